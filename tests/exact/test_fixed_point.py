"""Fixed-point numbers against Python's integers of any length."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hindgrad.exact import fixed_point
from hindgrad.exact.fixed_point import BASE, BITS, LARGEST, Fixed

SIZE = 8
DIGITS = (0, 1, 2)
EDGE = int(LARGEST) - 1
QUANTA = 2**50
few = settings(deadline=None, max_examples=30, derandomize=True)

highs = st.one_of(
    st.integers(-EDGE, EDGE),
    st.integers(-3, 3),
    st.integers(0, 3).map(lambda n: EDGE - n),
    st.integers(0, 3).map(lambda n: n - EDGE),
)
lows = st.one_of(st.integers(0, 2**24 - 1), st.sampled_from([0, 1, 2**24 - 1, 2**24 - 2]))
deltas = st.one_of(
    st.floats(-1500, 1500),
    st.floats(-1e-9, 1e-9),
    st.integers(-(2**30), 2**30).map(lambda n: (n + 0.5) * 2.0**-BITS),
    st.sampled_from([0.0, 2.0**-BITS, -(2.0**-BITS), -1e-30, 1024.0, -1024.0]),
)
drifts = st.one_of(st.integers(0, QUANTA - 1), st.sampled_from([0, 1, QUANTA - 1]))
bases = st.sampled_from([2**k for k in range(9)])


def eight(elements):
    return st.lists(elements, min_size=SIZE, max_size=SIZE)


def fixed_of(high, low, digits, drift=None):
    """The number with these digits, a column of two further ones per element."""
    low = np.asarray(low, np.float32).reshape(-1, 2)
    low = tuple(jnp.asarray(low[:, i]) for i in range(digits))
    drift = None if drift is None else jnp.asarray(drift, jnp.float64)
    return Fixed(jnp.asarray(high, jnp.float64), low, drift, BITS)


def integers(fixed):
    """All digits of each element as one Python integer; those beyond the leading in range."""
    totals = [int(x) for x in np.asarray(fixed.high).ravel()]
    for low in fixed.low:
        low = np.asarray(low).ravel()
        assert np.all((low >= 0) & (low < BASE) & (low == np.floor(low)))
        totals = [total * 2**24 + int(x) for total, x in zip(totals, low, strict=True)]
    return totals


def same(one, other):
    """Whether two numbers have the same digits and drift, bit for bit."""
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in leaves)


@jax.jit
def sums(fixed, delta):
    """0 − delta, of any size, then `fixed` with delta added, and with it subtracted again."""
    zero = jax.tree.map(jnp.zeros_like, (fixed.high, fixed.low))
    less = fixed_point.subtract(Fixed(*zero, fixed.drift, fixed.bits), delta)
    added = fixed_point.add(fixed, delta, 5)
    return less, added, fixed_point.subtract(added, delta)


@jax.jit
def shifted(fixed, base):
    out, rest = fixed_point.shift_out(fixed, base)
    return out, rest, fixed_point.shift_in(out, base, rest)


@jax.jit
def through(x, drift):
    """Encoded and decoded again, without and with a drift, for each number of digits."""
    fixed = [fixed_point.encode(x, BITS, k, d) for k in DIGITS for d in (None, drift)]
    return fixed, [fixed_point.decode(f, jnp.float64) for f in fixed]


@few
@given(st.data(), eight(highs), st.lists(lows, min_size=2 * SIZE, max_size=2 * SIZE))
def test_adding_and_subtracting_are_the_integers(data, high, low):
    drift = data.draw(st.one_of(st.none(), drifts, eight(drifts)))
    delta = data.draw(eight(deltas))
    for digits in DIGITS:
        with jax.enable_x64(True):
            fixed = fixed_of(high, low, digits, drift)
            less, added, back = sums(fixed, jnp.asarray(delta))
        unit = 2 ** (BITS + 24 * digits)
        before, after = integers(fixed), integers(added)
        change = [-each for each in integers(less)]
        leading = np.asarray(added.high)
        for i in range(SIZE):
            if drift is None:  # all but exact: the float64 remainder has 2^-53 of the leading
                assert abs(change[i] - Fraction(delta[i]) * unit) <= Fraction(17, 32)
            if abs((before[i] + change[i]) // 2 ** (24 * digits)) <= EDGE:
                assert after[i] == before[i] + change[i]
            else:
                assert leading[i] == LARGEST + 5
        within = np.abs(leading) < LARGEST
        for one, other in zip(jax.tree.leaves(back), jax.tree.leaves(fixed), strict=True):
            keep = within if one.shape else ...
            np.testing.assert_array_equal(np.asarray(one)[keep], np.asarray(other)[keep])


@few
@given(eight(highs), st.lists(lows, min_size=2 * SIZE, max_size=2 * SIZE), eight(bases))
@example([-EDGE, EDGE, -1, 0, 1, -EDGE, EDGE, -2], [2**24 - 1] * 2 * SIZE, [256] * SIZE)
@example([-EDGE, EDGE, -1, 0, 1, -EDGE, EDGE, -2], [0] * 2 * SIZE, [1, 2, 4, 8, 16, 32, 64, 128])
def test_shifting_out_is_division_with_rest_and_shifting_in_undoes_it(high, low, base):
    for digits in DIGITS:
        with jax.enable_x64(True):
            fixed = fixed_of(high, low, digits)
            out, rest, back = shifted(fixed, jnp.asarray(base, jnp.float64))
        assert same(back, fixed)
        quotients = zip(integers(out), np.asarray(rest).tolist(), strict=True)
        assert list(quotients) == list(map(divmod, integers(fixed), base))


@few
@given(eight(st.floats(-1000, 1000)), st.one_of(drifts, eight(drifts)))
@example([0.0, 1023.9, -1023.9, 1e-13, -1e-13, 1e-300, -1e-300, 0.1], 0)
def test_decoding_gives_back_the_number_within_half_of_the_last_digit(x, drift):
    with jax.enable_x64(True):
        fixed, numbers = through(jnp.asarray(x) / 2, jnp.asarray(drift, jnp.float64))
    for f, number in zip(fixed, np.asarray(numbers), strict=True):
        last = 2.0 ** -(24 * len(f.low) + BITS - (f.drift is not None))
        integers(f)  # the digits are in range
        # Decoding itself rounds to float64, and a drift's unit is a rounded power.
        np.testing.assert_allclose(number, np.asarray(x) / 2, rtol=1e-15, atol=0.54 * last)


def test_drift_makes_the_unit_smaller(x64):
    fixed = fixed_of([2**30], [0, 0], 0, 2.0**49)
    assert fixed_point.decode(fixed, jnp.float64)[0] == pytest.approx(2 ** (31 - BITS - 0.5))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
def test_numbers_of_a_type_come_back_in_it(dtype, x64):
    x = jnp.asarray([0.5, -3.25, 0, 100.0, 2.0**-7], dtype)
    back = fixed_point.decode(fixed_point.encode(x, BITS, 1), dtype)
    assert same(back, x)


@pytest.mark.parametrize(("scale", "bits"), [(1.0, 42), (2.0, 41), (2.0**-10, 52), (1024.0, 32)])
def test_scale_sets_the_range(scale, bits, x64):
    assert fixed_point.bits_for(scale) == bits
    x = jnp.asarray([1023.0, -1023.0, 1024.0, -1024.0]) * scale
    fixed = fixed_point.encode(x, fixed_point.bits_for(scale), 1)
    assert np.asarray(jnp.abs(fixed.high) < LARGEST).tolist() == [True, True, False, False]


@pytest.mark.parametrize("digits", DIGITS)
@pytest.mark.parametrize("drift", [None, 0.0, 2.0**50 - 1])
def test_stuck_numbers_carry_the_step_and_stay(digits, drift, x64):
    """NaN, infinities and overflow mark an element, and nothing moves it after that."""
    fixed = fixed_of([0, 1, -1, EDGE, -EDGE, 7, 9, 0], [2**24 - 1] * 2 * SIZE, digits, drift)
    nan, inf = jnp.nan, jnp.inf
    delta = jnp.asarray([nan, inf, -inf, 1.0, -1.0, 0.0, 0.0, 1e300])
    stuck = sums(fixed, delta)[1]
    mark = LARGEST + 5
    assert stuck.high.tolist() == [-mark, mark, mark, mark, mark, 7, 9, mark]
    for low in stuck.low:
        assert low.tolist() == [0, 0, 0, 0, 0, 2**24 - 1, 2**24 - 1, 0]
    is_stuck = np.arange(SIZE)[np.abs(stuck.high) >= LARGEST]
    for later in (jnp.full(SIZE, nan), jnp.full(SIZE, -inf), jnp.full(SIZE, -100.0)):
        again = fixed_point.add(stuck, later, 8)
        for one, other in zip((again.high, *again.low), (stuck.high, *stuck.low), strict=True):
            assert np.array_equal(one[is_stuck], other[is_stuck])
    out, rest = fixed_point.shift_out(stuck, jnp.full(SIZE, 256.0))
    assert np.all(rest[is_stuck] == 0)
    assert np.array_equal(out.high[is_stuck], stuck.high[is_stuck])
    assert all(np.all(low[is_stuck] == 0) for low in out.low)


def test_the_first_step_at_which_one_became_stuck(x64):
    fixed = fixed_point.encode(jnp.zeros(4), BITS, 1)
    step, by_nan, elements = fixed_point.stuck_at(fixed)
    assert (float(step), bool(by_nan), bool(elements.any())) == (np.inf, False, False)
    found = []
    for t, delta in [(9, [0, 0, jnp.inf, 0]), (11, [jnp.nan, 0, 0, 0]), (12, [5.0, 0, 0, 0])]:
        fixed = fixed_point.add(fixed, jnp.asarray(delta, jnp.float64), t)
        found.append(tuple(x.tolist() for x in fixed_point.stuck_at(fixed)))
    assert found == [(9, False, [False, False, True, False])] * 3
    fixed = fixed_point.add(fixed_point.encode(jnp.ones(2), BITS, 0), jnp.full(2, jnp.nan), 4)
    assert tuple(x.tolist() for x in fixed_point.stuck_at(fixed)) == (4, True, [True, True])


@pytest.mark.parametrize("x", [jnp.nan, jnp.inf, -jnp.inf, 1e30])
def test_what_cannot_be_encoded_is_stuck_at_step_0(x, x64):
    step, by_nan, elements = fixed_point.stuck_at(
        fixed_point.encode(jnp.asarray([1.0, x]), BITS, 2)
    )
    assert elements.tolist() == [False, True]
    assert (step, by_nan) == (0, np.isnan(x))

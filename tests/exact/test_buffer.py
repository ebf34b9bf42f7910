"""Multiplications by decays, undone bit for bit out of the buffer."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hindgrad.exact import buffer, decay, fixed_point
from hindgrad.exact.fixed_point import BITS

STEPS, LANES = 40, 6
SMALLEST = 0.02
ROWS = buffer.rows_for(STEPS * math.log2(1 / SMALLEST))


def forward(bits, delta, start, digits, rows):
    """All steps: the last number and its buffer, with which steps pushed and its
    largest word."""

    def step(carry, at):
        fixed, kept, t = carry
        fixed, kept, pushed = buffer.multiply(fixed, kept, at[0])
        fixed = fixed_point.add(fixed, at[1], t)
        return (fixed, kept, t + 1), (pushed, jnp.max(kept.word))

    carry = (start, buffer.empty(start.high, rows), 0.0)
    (fixed, kept, _), (pushed, words) = jax.lax.scan(step, carry, (bits, delta))
    return fixed, kept, pushed, words


def backward(fixed, kept, bits, delta, pushed):
    """All steps undone, the last first."""

    def step(carry, at):
        bits, delta, pushed = at
        fixed = fixed_point.subtract(carry[0], delta)
        return buffer.divide_back(fixed, carry[1], bits, pushed), None

    return jax.lax.scan(step, (fixed, kept), (bits, delta, pushed), reverse=True)[0]


@functools.partial(jax.jit, static_argnums=(3, 4))
def there_and_back(decays, x, delta, digits, rows):
    """A run and its reversal: what it started from, both ends of it, and one without a stack."""
    bits = decay.bits_lost(decays, 1 - decays)
    start = fixed_point.encode(x, BITS, digits, jnp.zeros(decays.shape[1:]))
    fixed, kept, pushed, words = forward(bits, delta, start, digits, rows)
    bare = forward(bits, delta, start, digits, None)
    back, emptied = backward(fixed, kept, bits, delta, pushed)
    value = fixed_point.decode(fixed, jnp.float64)
    return start, back, emptied, fixed, kept, words, bare, value, bits


def check(decays, x, delta, digits, rows):
    """Runs there and back, and checks all that holds of any run."""
    with jax.enable_x64(True):
        arrays = [jnp.asarray(a, jnp.float64) for a in (decays, x, delta)]
        result = there_and_back(*arrays, digits, rows)
    verify(jax.tree.map(np.asarray, result), decays, x, delta)
    return result


def verify(result, decays, x, delta):
    """What holds of the results of any run."""
    start, back, emptied, fixed, kept, words, bare, value, bits = result
    assert same(back, start)
    assert np.all(emptied.word == 0)
    assert emptied.count == 0
    assert np.max(words) < 2**24
    total = np.sum(np.max(bits.reshape(len(bits), -1), axis=1)) * decay.QUANTUM
    assert kept.count <= buffer.rows_for(total)
    assert buffer.DIGIT * kept.count <= total
    assert bare[1].stack is None
    assert same(bare[0], fixed)
    assert same(bare[1].word, kept.word)
    expected = np.asarray(x)
    for d, each in zip(decays, delta, strict=True):
        expected = expected * d + each
    np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9)


def same(one, other):
    """Bit for bit."""
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in leaves)


def draw(seed, shape, low, scale):
    """Decays of every size from `low` to 1, a start and additions; lanes 0 and 1 add nothing,
    and lane 1 is zero."""
    rng = np.random.default_rng(seed)
    decays = 1 - (1 - low) * rng.uniform(size=(STEPS, *shape)) ** rng.integers(1, 9, size=shape)
    decays[rng.uniform(size=decays.shape) < 0.1] = 1.0
    decays[rng.uniform(size=decays.shape) < 0.1] = low
    x = rng.normal(size=LANES) * scale
    delta = rng.normal(size=(STEPS, LANES)) * scale * rng.integers(0, 2, size=(STEPS, 1))
    delta[:, :2], x[1] = 0, 0
    return decays, x, delta


@pytest.mark.parametrize("digits", [0, 1, 2])
@pytest.mark.parametrize("shape", [(), (LANES,)])
def test_a_run_comes_back_bit_for_bit(digits, shape):
    @settings(deadline=None, max_examples=20, derandomize=True)
    @given(
        seed=st.integers(0, 2**32 - 1),
        low=st.floats(SMALLEST, 1) | st.sampled_from([SMALLEST, 0.5, 0.25, 0.999, 1.0]),
        scale=st.sampled_from([1e-9, 1e-3, 1.0, 3.0]),
    )
    def comes_back(seed, low, scale):
        check(*draw(seed, shape, low, scale), digits, ROWS)

    comes_back()


@pytest.mark.parametrize("kept", [1 / 128, SMALLEST, 1 / 8, 0.3, 0.5, 0.98, 1.0])
def test_just_enough_room(kept):
    """The room that the smallest decays need is enough, and all of it is used."""
    _, x, delta = draw(3, (), kept, 1.0)
    rows = buffer.rows_for(STEPS * math.log2(1 / kept))
    result = check(np.full(STEPS, kept), x, delta, 0, rows)
    assert result[4].count == rows
    assert result[4].stack.shape == (rows, LANES)


def test_lanes_to_which_nothing_is_added_do_not_overflow():
    """A constant, its negative, zero, and the ends of the range: their words stay whole."""
    decays = np.full((STEPS, LANES), 0.5)
    decays[:, 1::2] = 0.9
    x = np.asarray([1.0, -1.0, 0.0, 1023.9, -1023.9, -1e-12])
    check(decays, x, np.zeros((STEPS, LANES)), 0, ROWS)
    check(decays, x, np.zeros((STEPS, LANES)), 1, ROWS)


def test_each_of_a_batch_as_on_its_own(x64):
    """Under vmap, with decays of their own: the same bits as one at a time."""
    runs = [draw(seed, (LANES,), low, 1.0) for seed, low in enumerate([SMALLEST, 0.6, 1.0])]
    batch = [jnp.stack([jnp.asarray(a) for a in arrays]) for arrays in zip(*runs, strict=True)]
    run = jax.jit(jax.vmap(lambda *arrays: there_and_back(*arrays, 1, ROWS)))
    batched = jax.tree.map(np.asarray, run(*batch))
    for i, arrays in enumerate(runs):
        one = jax.tree.map(lambda a, i=i: a[i], batched)
        verify(one, *arrays)
        alone = there_and_back(*map(jnp.asarray, arrays), 1, ROWS)
        assert same(one[3:5], alone[3:5])


def test_the_digits_on_the_stack_are_those_of_the_number(x64):
    """Halved at every step with nothing added, the low bits of the number lie on the stack."""
    start = fixed_point.encode(jnp.asarray([0.7, -0.3]), BITS, 0, jnp.float64(0))
    bits = jnp.full(STEPS, 2.0**50)
    fixed, kept, _, _ = forward(bits, jnp.zeros((STEPS, 2)), start, 0, ROWS)
    for lane in range(2):
        gained = int(kept.word[lane])
        for row in reversed(range(int(kept.count))):
            gained = gained * 256 + int(kept.stack[row, lane])
        whole, lost = divmod(int(start.high[lane]), 2**STEPS)
        assert int(fixed.high[lane]) == whole
        assert gained.bit_count() == lost.bit_count()  # each word has its bits in reverse


@pytest.mark.parametrize(("kept", "rows"), [(0.5, 12), (0.9, 1), (0.98, 0), (0.99, 0), (1.0, 0)])
def test_golden_rows(kept, rows):
    """Of a hundred steps; never more than the bits that the decays lose."""
    bits = 100 * math.log2(1 / kept)
    assert buffer.rows_for(bits) == rows
    assert rows * buffer.DIGIT <= bits

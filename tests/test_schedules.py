"""Schedules: what they are at each step, beside closed forms and SciPy's splines."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.interpolate import CubicSpline

import hindgrad as hg
from hindgrad.schedules import Between, Linear, Piecewise, Positive, Real, Spline, WarmupCosine

KINDS = (Piecewise, Linear, Spline)


def all_steps(schedule, numbers, steps):
    return jax.jit(jax.vmap(lambda t: schedule(numbers, t)))(jnp.arange(steps))


@pytest.mark.parametrize(("windows", "steps"), [(1, 7), (3, 9), (4, 10), (7, 7), (5, 3), (3, 100)])
def test_equal_windows(windows, steps):
    """Step t lies in window ⌊t · windows ÷ steps⌋; beyond the end, the last value stays."""
    values = jnp.arange(windows, dtype=jnp.float32)
    got = all_steps(Piecewise(windows, steps, Real()), values, steps + 5)
    wanted = [min(t, steps - 1) * windows // steps for t in range(steps + 5)]
    np.testing.assert_array_equal(got, wanted)
    counts = np.bincount(np.asarray(wanted[:steps]), minlength=windows)
    assert counts.max() - counts.min() <= 1


def test_windows_of_long_runs():
    """Where `t * windows` leaves 32 bits."""
    values = jnp.arange(50_000.0)
    assert Piecewise(50_000, 100_000, Real())(values, jnp.int32(99_999)) == 49_999


@pytest.mark.parametrize(("knots", "steps"), [(2, 5), (4, 50), (9, 17), (6, 6), (7, 3), (3, 1)])
def test_lines_and_splines(x64, knots, steps):
    """Against NumPy's interpolation and SciPy's natural spline; beyond the end the value stays."""
    numbers = np.random.default_rng(knots).normal(size=knots)
    places = np.linspace(0, knots - 1, steps)
    lines = np.interp(places, np.arange(knots), numbers)
    curve = CubicSpline(np.arange(knots), numbers, bc_type="natural")(places)
    for kind, wanted in ((Linear, lines), (Spline, curve)):
        got = all_steps(kind(knots, steps, Real()), jnp.asarray(numbers), steps + 3)
        np.testing.assert_allclose(got[:steps], wanted, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(got[steps:], np.full(3, got[steps - 1]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("range_", "value"), [(Positive(), 0.3), (Between(0.5, 0.99), 0.9), (Real(), -2.0)]
)
def test_a_schedule_that_stays(x64, kind, range_, value):
    """`init` gives the value at every step, for each leaf and element."""
    schedule = kind(4, 20, range_)
    numbers = schedule.init({"w": value, "b": jnp.full((2, 3), value)})
    assert (numbers["w"].shape, numbers["b"].shape) == ((4,), (4, 2, 3))
    for t in (0, 7, 19, 30):
        got = schedule(numbers, t)
        np.testing.assert_allclose(got["w"], value, rtol=1e-12)
        np.testing.assert_allclose(got["b"], np.full((2, 3), value), rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_ranges_hold(kind):
    """Whatever the numbers are."""
    numbers = 20 * jax.random.normal(jax.random.key(0), (5,))
    assert (all_steps(kind(5, 30, Positive()), numbers, 30) >= 0).all()
    decays = all_steps(kind(5, 30, Between(0.5, 0.99)), numbers, 30)
    assert ((decays >= 0.5) & (decays <= 0.99)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_schedule_nearest_to_known_values(x64, kind):
    """One of the same kind is found again; from another, no change of a number comes nearer."""
    schedule = kind(4, 30, Between(0.5, 0.99))
    numbers = {"w": jnp.array([0.3, -0.4, 1.2, 0.1]), "b": jnp.linspace(-1.0, 1, 8).reshape(4, 2)}
    values = schedule.values(numbers)
    assert (values["w"].shape, values["b"].shape) == ((30,), (30, 2))
    np.testing.assert_array_equal(values["b"][7], schedule(numbers, 7)["b"])
    found = schedule.fit(values)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), found, numbers
    )
    cosine = 0.75 + 0.2 * jnp.cos(jnp.linspace(0, 3, 30))
    free = schedule.range.free
    far = lambda n: jnp.sum((free(schedule.values(n)) - free(cosine)) ** 2)
    best = schedule.fit(cosine)
    moves = 0.01 * jnp.concatenate([jnp.eye(4), -jnp.eye(4)])
    assert (jax.vmap(far)(best[None] + moves) > far(best)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives(x64, kind):
    """Against finite differences; each knot has one."""
    schedule = kind(3, 10, Between())
    numbers = jnp.array([0.3, -0.4, 1.2])
    total = lambda n: jnp.sum(jnp.arange(1.0, 11) * all_steps(schedule, n, 10))
    got = jax.grad(total)(numbers)
    moves = 1e-5 * np.eye(3)
    wanted = [float(total(numbers + m) - total(numbers - m)) / 2e-5 for m in moves]
    np.testing.assert_allclose(got, wanted, rtol=1e-7)
    assert (got != 0).all()


def test_float32_stays():
    numbers = jnp.zeros(3, jnp.float32)
    for kind in KINDS:
        with jax.enable_x64(True):
            assert kind(3, 10)(numbers, jnp.int64(4)).dtype == jnp.float32


@pytest.mark.parametrize("kind", KINDS)
def test_whole_numbers(kind):
    """At the knots they are floats; for the settings, NumPy's are as good as Python's."""
    schedule = kind(np.int64(2), np.int32(5), Between(np.float32(0), np.float64(4)))
    assert schedule == kind(2, 5, Between(0, 4))
    got, wanted = (schedule(jnp.array([3, 1], dtype), 1) for dtype in (jnp.int32, jnp.float32))
    assert got == wanted


def test_a_run_through_every_adjoint():
    """A rate for each layer by a spline, a decay by lines: `Reversible` has room for all decays."""
    rate, decay = Spline(3, 12), Linear(2, 12, Between(0.5, 0.99))
    hyper = {"rate": rate.init({"w": 0.1, "v": 0.05}), "decay": decay.init(0.9)}
    optimizer = hg.Momentum(lambda h, t: rate(h["rate"], t), lambda h, t: decay(h["decay"], t))
    data = jnp.linspace(-1, 1, 8)[:, None] * jnp.arange(1.0, 4)[None]
    training = hg.Training(
        lambda p, h, batch: jnp.mean((jnp.tanh(batch.data @ p["w"]) @ p["v"] - 1) ** 2),
        optimizer=optimizer,
        batches=hg.full_batch(data),
        steps=12,
    )
    params = {"w": jnp.full((3, 2), 0.3), "v": jnp.array([0.5, -0.2])}
    score = lambda h, adjoint: jnp.sum(training(params, h, adjoint=adjoint).params["w"] ** 2)
    wanted = jax.grad(score)(hyper, hg.Stored())
    for adjoint in (hg.Reversible(min_decay=0.5), hg.Forward()):
        got = jax.jit(jax.grad(score), static_argnums=1)(hyper, adjoint)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), got, wanted
        )


# A warm-up and a cosine.


def by_hand(peak, warmup, end, steps):
    """The formula, a step at a time."""
    rates = []
    for t in range(steps):
        if t <= warmup:
            rates.append(peak * (t + 1) / (warmup + 1))
        else:
            turn = np.pi * (t - warmup) / (steps - 1 - warmup)
            rates.append(end + (peak - end) * (1 + np.cos(turn)) / 2)
    return np.array(rates)


def optax_warmup_cosine(peak, warmup, end, steps):
    schedule = optax.warmup_cosine_decay_schedule(peak / (warmup + 1), peak, warmup, steps - 1, end)
    return schedule(jnp.arange(steps))


@pytest.mark.parametrize("warmup", [0.2, 3, 7.5, 8, 28.9])
def test_warmup_cosine_is_its_formula(x64, warmup):
    """And beyond the end the end stays; optax says the same, where it can."""
    schedule = WarmupCosine(30)
    numbers = schedule.init(0.3, warmup=warmup, end=0.02)
    got = all_steps(schedule, numbers, 33)
    np.testing.assert_allclose(got[:30], by_hand(0.3, warmup, 0.02, 30), rtol=1e-12)
    np.testing.assert_allclose(got[30:], 0.02, rtol=1e-12)
    np.testing.assert_allclose(schedule.values(numbers), got[:30], rtol=1e-12)
    if isinstance(warmup, int):
        wanted = optax_warmup_cosine(0.3, warmup, 0.02, 30)
        np.testing.assert_allclose(got[:30], wanted, rtol=1e-12)


def test_warmup_cosine_is_differentiated_by_all_three(x64):
    """In their own scale and in the free one; also by the warm-up, under jit and vmap."""
    schedule, given = WarmupCosine(30), np.array([0.3, 7.3, 0.02])
    weights = np.linspace(1, 2, 30)
    make = lambda g: schedule.init(g[0], warmup=g[1], end=g[2])
    total = lambda g: jnp.vdot(weights, schedule.values(make(g)))
    got = jax.jit(jax.vmap(jax.grad(total)))(jnp.stack([given, given]))
    moves = 1e-6 * np.eye(3)
    slope = lambda m: weights @ (by_hand(*(given + m), 30) - by_hand(*(given - m), 30)) / 2e-6
    wanted = [slope(m) for m in moves]
    np.testing.assert_allclose(got, [wanted, wanted], rtol=1e-6)
    numbers = make(given)
    free = jax.grad(lambda n: jnp.vdot(weights, schedule.values(n)))(numbers)
    share = given[1] / 29
    scales = given[0], 29 * share * (1 - share), given[2]
    np.testing.assert_allclose(free, np.array(wanted) * scales, rtol=1e-6)


def test_warmup_cosine_is_finite_whatever_its_numbers():
    schedule = WarmupCosine(20)
    extremes = jnp.array([[0.0, share, end] for share in (-1e4, -5, 0, 5, 1e4) for end in (-30, 3)])
    rates = jax.vmap(schedule.values)(extremes)
    slopes = jax.vmap(jax.grad(lambda n: schedule.values(n).sum()))(extremes)
    assert (rates > 0).all()
    assert jnp.isfinite(rates).all()
    assert jnp.isfinite(slopes).all()
    assert schedule(jnp.zeros(3, jnp.bfloat16), 4).dtype == jnp.bfloat16


def test_the_warmup_cosine_nearest_to_known_values(x64):
    """Its own numbers, from a tree with an array; those of optax's; and no change comes nearer."""
    schedule = WarmupCosine(40)
    pair = jnp.array([0.3, 0.1])
    numbers = schedule.init({"w": 0.2, "b": pair}, warmup={"w": 5.5, "b": 11.0}, end=0.01)
    assert (numbers["w"].shape, numbers["b"].shape) == ((3,), (3, 2))
    found = schedule.fit(schedule.values(numbers))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-8), found, numbers)
    found = schedule.fit(optax_warmup_cosine(0.4, 4, 0.01, 40))
    np.testing.assert_allclose(found, schedule.init(0.4, warmup=4, end=0.01), atol=1e-8)
    roof = 0.2 - 0.01 * jnp.abs(jnp.arange(40) - 9.0) ** 0.5
    far = lambda n: jnp.sum((schedule.values(n) - roof) ** 2)
    best = schedule.fit(roof)
    moves = 0.01 * jnp.concatenate([jnp.eye(3), -jnp.eye(3)])
    assert (jax.vmap(far)(best[None] + moves) > far(best)).all()


def test_a_warm_up_is_tuned(x64):
    """Its hypergradient through a run, against finite differences."""
    schedule = WarmupCosine(12)
    training = hg.Training(
        lambda w, h, batch: jnp.sum(jnp.cosh(w * jnp.array([1.0, 2.0]))),
        optimizer=hg.Momentum(lambda h, t: schedule(h, t), 0.5),
        batches=lambda t: None,
        steps=12,
    )
    objective = hg.Objective(training, init=jnp.ones(2), score=lambda w, h, key: jnp.sum(w**2))
    assert hg.check(objective, schedule.init(0.05, warmup=4.4, end=0.001)).ok


@pytest.mark.parametrize("kind", [*KINDS, lambda knots, steps, range_: WarmupCosine(steps)])
def test_strict_promotion(kind):
    """Nothing is promoted in silence, whatever the step's type."""
    with jax.numpy_dtype_promotion("strict"):
        schedule = kind(3, 10, Positive())
        numbers = schedule.fit(jnp.linspace(0.1, 0.2, 10))
        found = [schedule(numbers, t) for t in (3, np.int64(3), np.uint8(3), jnp.int32(3))]
        assert all(value == found[0] and value.dtype == jnp.float32 for value in found)
        # All steps at once are another program, which rounds otherwise on JAX 0.12.
        np.testing.assert_allclose(schedule.values(numbers)[3], found[0], rtol=5e-7)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Spline(1, 10), r"Spline\(knots=1\): a whole number, at least 2"),
        (lambda: Linear(2, 0), r"Linear\(steps=0\)"),
        (lambda: Piecewise(2, 5).init(-1.0), r"value -1 is not within .* Positive\(\)"),
        (lambda: Linear(2, 5, Between()).init(1.0), r"value 1 is not within .* Between\(\)"),
        (lambda: Linear(2, 3).fit(jnp.array([1.0, 0.5, 0.0])), r"value 0 is not within"),
        (lambda: Linear(2, 5).fit(0.1), r"shape \(\); a row for each of the 5 steps"),
        (lambda: Between(0.9, 0.5), r"Between\(0.9, 0.5\): two finite bounds"),
        (lambda: Between(0, float("inf")), r"Between\(0.0, inf\): two finite bounds"),
        (lambda: Linear(3, 5)(jnp.zeros(3), jnp.arange(3)), r"steps of shape \(3,\); .* values"),
        (lambda: Linear(3, 5)(jnp.zeros(2), 0), r"3 numbers was given an array of shape \(2,\)"),
        (lambda: Linear(True, 5), r"Linear\(knots=True\): a whole number"),
        (lambda: WarmupCosine(1), r"WarmupCosine\(steps=1\): a whole number, at least 2"),
        (lambda: WarmupCosine(5).init(0.1, warmup=4, end=0.1), r"4 is not within .* Between"),
        (lambda: WarmupCosine(5).init(0.1, warmup=2, end=0.0), r"0 is not within .* Positive"),
        (lambda: WarmupCosine(5).fit(jnp.ones(4)), r"a row for each of the 5 steps"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_range_is_an_object():
    with pytest.raises(TypeError, match="range"):
        Linear(2, 5, "positive")  # pyright: ignore[reportArgumentType]

"""`Reversible`: home to the bit, the gradient of float64 training, and never a wrong answer."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
import problems
from hindgrad.adjoints.reversible import run

REVERSIBLE = hg.Reversible()
small_rate = lambda hyper, t: 0.01 * hyper["rate"]["out"][t]
coupled = hg.Coupled(problems.weight_decay)
decoupled = hg.Decoupled(problems.weight_decay)
CASES = {
    "damped": (hg.Momentum(problems.rate, 0.9), REVERSIBLE),
    "heavy ball, coupled": (
        hg.Momentum(problems.rate, 0.9, weight_decay=coupled, convention=hg.HeavyBall()),
        REVERSIBLE,
    ),
    "position first": (
        hg.Momentum(problems.rate, 0.99, weight_decay=coupled, convention=hg.PositionFirst()),
        REVERSIBLE,
    ),
    "per element, decoupled": (
        hg.Momentum(problems.rate, problems.decay, weight_decay=decoupled),
        hg.Reversible(min_decay={"decay": 0.5, "weight_decay": 0.99}),
    ),
    "adam, coupled": (hg.Adam(small_rate, weight_decay=coupled), REVERSIBLE),
    "adamw, all traced": (
        hg.Adam(
            small_rate,
            b1=lambda hyper, t: 0.8 + 0.1 * jax.nn.sigmoid(hyper["log_l2"]),
            b2=lambda hyper, t: 0.99 + 0.001 * hyper["rate"]["out"][t],
            weight_decay=decoupled,
        ),
        hg.Reversible(min_decay=0.8),
    ),
}


def value_and_gradients(optimizer, adjoint, params, hyper, steps=problems.STEPS):
    training = problems.training(optimizer, steps)

    def value(params, hyper):
        run = training(params, hyper, adjoint=adjoint)
        return problems.score(run) + 1e-3 * sum(jnp.sum(x) for x in jax.tree.leaves(run.state)), run

    return jax.value_and_grad(value, argnums=(0, 1), has_aux=True)(params, hyper)


@pytest.mark.parametrize("case", CASES)
def test_float64(x64, key, case):
    """Rates, decays, weight decays, initial weights, the loss's hyperparameters, outputs."""
    optimizer, adjoint = CASES[case]
    params = problems.init(key)
    hyper = problems.hyper(params)
    (value, _), got = value_and_gradients(optimizer, adjoint, params, hyper)
    (right, _), wanted = value_and_gradients(optimizer, hg.Stored(), params, hyper)
    np.testing.assert_allclose(value, right, rtol=1e-9)
    assert problems.relative_error(got, wanted) <= 1e-7


@pytest.mark.parametrize("case", ["damped", "per element, decoupled", "adamw, all traced"])
def test_float32_against_float64(key, case):
    optimizer, adjoint = CASES[case]
    params = problems.init(key)
    hyper = problems.hyper(params)
    _, got = value_and_gradients(optimizer, adjoint, params, hyper)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype(jnp.float64), (params, hyper))
        _, wanted = value_and_gradients(optimizer, hg.Stored(), *wide)
    assert problems.relative_error(got, wanted) <= (6e-5 if "adam" in case else 1e-5)


def test_same_result_with_and_without_derivative(key):
    """To the bit; and the trained parameters are those of the plain run, to rounding."""
    params = problems.init(key)
    hyper = problems.hyper(params)
    for case in ("damped", "adam, coupled"):
        optimizer, adjoint = CASES[case]
        training = problems.training(optimizer)
        (_, differentiated), _ = value_and_gradients(optimizer, adjoint, params, hyper)
        alone = training(params, hyper, adjoint=adjoint)
        assert eqx.tree_equal(differentiated, alone)
        plain = training(params, hyper)
        for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(plain), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


def test_draws_and_types_are_the_users(key):
    """Random numbers, batches and dtypes are those that `Stored` sees, without x64."""

    def loss(params, hyper, batch):
        noise = jax.random.normal(batch.key, ()) * jax.random.uniform(batch.key, (3,)).sum()
        assert noise.dtype == jnp.zeros(()).dtype == jnp.float32
        return problems.cross_entropy(params, *batch.data) + 0.1 * noise * params["out"]["b"].sum()

    x, y = problems.data()
    batches = hg.minibatches((x, y), size=32, key=key)
    training = hg.Training(loss, optimizer=hg.Momentum(0.1), batches=batches, steps=9)
    params = problems.init(key)
    run = lambda adjoint: training(params, {}, adjoint=adjoint)
    np.testing.assert_allclose(run(REVERSIBLE).losses, run(hg.Stored()).losses, rtol=1e-6)
    gradient = lambda adjoint: jax.grad(
        lambda p: problems.valid(training(p, {}, adjoint=adjoint).params)
    )(params)
    assert problems.relative_error(gradient(REVERSIBLE), gradient(hg.Stored())) <= 1e-5
    assert not jax.config.read("jax_enable_x64")


def chase(optimizer, steps):
    """Training that is cheap to compile: parameters follow a moving target."""
    return hg.Training(
        lambda params, hyper, batch: jnp.sum((params - hyper["shift"] * batch) ** 2),
        optimizer=optimizer,
        batches=lambda t: jnp.cos(1.0 * t),
        steps=steps,
    )


def quadratic(adjoint, optimizer, steps=20):
    """A score of (hyper, start); `shift` reaches every step's loss."""
    training = chase(optimizer, steps)

    def score(hyper, params):
        run = training(params, hyper, adjoint=adjoint)
        return jnp.sum(run.params**2) + jnp.mean(run.losses)

    return score


MOMENTUM = hg.Momentum(lambda hyper, t: hyper["rate"])
START = jnp.array([1.0, -2.0, 3.0])
HYPER = {"rate": jnp.asarray(0.1), "shift": jnp.asarray(0.5)}


def test_transformations():
    """vmap of grad, grad of vmap, jit, inside a scan, under checkpoint: all the same."""
    f = quadratic(REVERSIBLE, MOMENTUM)
    wanted = jax.grad(quadratic(hg.Stored(), MOMENTUM))(HYPER, START)
    batch = jax.tree.map(lambda x: jnp.stack([x, 0.9 * x]), HYPER)
    first = lambda tree: jax.tree.map(lambda x: x[0], tree)
    close = lambda got: problems.relative_error(got, wanted) <= 1e-5
    assert close(first(jax.vmap(jax.grad(f), (0, None))(batch, START)))
    assert close(first(jax.grad(lambda b: jnp.sum(jax.vmap(f, (0, None))(b, START)))(batch)))
    assert close(jax.jit(jax.grad(jax.checkpoint(f)))(HYPER, START))
    scanned = lambda h: jax.lax.scan(lambda c, _: (c + f(h, START), None), 0.0, None, length=2)[0]
    assert close(jax.tree.map(lambda x: x / 2, jax.grad(scanned)(HYPER)))


@pytest.mark.parametrize("steps", [1, 2, 7, 200])
def test_lengths_and_windows(x64, steps):
    """One step, and a run continued from the state and the step at which another ended."""
    hyper = {"rate": 0.1, "shift": 0.5, "decay": 0.6}
    training = chase(hg.Momentum(0.1, lambda hyper, t: hyper["decay"]), steps)

    def score(hyper, adjoint):
        begun = training(START.astype(float), hyper, adjoint=adjoint)
        run = training(begun.params, hyper, adjoint=adjoint, state=begun.state, start=steps)
        return jnp.sum(run.params**2)

    hyper = jax.tree.map(jnp.asarray, hyper)
    got, wanted = (jax.grad(score)(hyper, a) for a in (hg.Reversible(min_decay=0.5), hg.Stored()))
    assert problems.relative_error(got, wanted) <= 1e-9


def captured_tape(monkeypatch, function):
    """The tape that a forward pass leaves, as shapes."""
    seen, forward = [], run.forward

    def spy(*args, keep):
        results = forward(*args, keep=keep)
        seen.append(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), results[1]))
        return results

    monkeypatch.setattr(run, "forward", spy)
    jax.eval_shape(function)
    return seen[-1]


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.98, 0.99])
def test_buffer_is_near_the_optimum(monkeypatch, decay):
    """At most 1.03 T log2(1/decay) bits per parameter and one word of 64."""
    steps = 1000
    score = quadratic(REVERSIBLE, hg.Momentum(0.1, decay), steps)
    tape = captured_tape(monkeypatch, lambda: jax.grad(score)(HYPER, START))
    (buffer,) = (b for buffers in tape.position.buffers for b in buffers)
    bits = 8 * buffer.stack.shape[0]
    assert 0.9 * steps * np.log2(1 / decay) - 16 <= bits <= 1.03 * steps * np.log2(1 / decay)
    assert buffer.word.dtype.itemsize * 8 <= 64


def test_buffer_of_a_known_schedule(monkeypatch):
    """Decays that depend on the step alone are known while tracing."""
    decay = lambda hyper, t: jnp.where(t < 500, 0.5, 0.99)
    score = quadratic(REVERSIBLE, hg.Momentum(0.1, decay), 1000)
    tape = captured_tape(monkeypatch, lambda: jax.grad(score)(HYPER, START))
    (buffer,) = (b for buffers in tape.position.buffers for b in buffers)
    assert 8 * buffer.stack.shape[0] <= 500 + 500 * np.log2(1 / 0.99)


def test_many_steps_and_decays(key):
    """300 steps, a decay of its own for every element and step: home, or it would raise."""
    decay = lambda hyper, t: jax.random.uniform(jax.random.fold_in(key, t), (3,), minval=0.02)
    optimizer = hg.Momentum(lambda hyper, t: hyper["rate"], decay)
    score = quadratic(hg.Reversible(min_decay=0.02), optimizer, 300)
    got = jax.grad(score)(HYPER, START)
    wanted = jax.grad(quadratic(hg.Stored(), optimizer, 300))(HYPER, START)
    assert problems.relative_error(got, wanted) <= 1e-4


def test_scale():
    """Numbers beyond the range of scale 1."""
    optimizer = hg.Momentum(0.1)
    big = quadratic(hg.Reversible(scale=2.0**20), optimizer)
    got, wanted = (
        jax.grad(f)(HYPER, 1e6 * START) for f in (big, quadratic(hg.Stored(), optimizer))
    )
    np.testing.assert_allclose(got["shift"], wanted["shift"], rtol=1e-3)
    with pytest.raises(RuntimeError, match="left the range"):
        quadratic(REVERSIBLE, optimizer)(HYPER, 1e6 * START)


def test_host_memory():
    f = quadratic(hg.Reversible(memory=jax.memory.Space.Host), MOMENTUM, 200)
    wanted = jax.grad(quadratic(REVERSIBLE, MOMENTUM, 200))(HYPER, START)
    assert eqx.tree_equal(jax.grad(f)(HYPER, START), wanted)


HUGE = {**HYPER, "rate": jnp.asarray(1e9)}
DECAYING = hg.Momentum(0.1, lambda hyper, t: hyper["rate"])
FAILURES = {
    "huge rate": (REVERSIBLE, MOMENTUM, HUGE, START, r"params left the range .* at step 0 "),
    "diverging": (
        REVERSIBLE,
        MOMENTUM,
        {**HYPER, "rate": jnp.asarray(60.0)},
        START,
        r"left the range .* at step [1-9]",
    ),
    "NaN weights": (
        REVERSIBLE,
        MOMENTUM,
        HYPER,
        START.at[1].set(jnp.nan),
        "params became NaN or infinite at step 0",
    ),
    "decay below min_decay": (
        hg.Reversible(min_decay=0.5),
        DECAYING,
        HYPER,
        START,
        "decay of memory is too small at step 0",
    ),
    "decay 0": (
        hg.Reversible(min_decay=0.5),
        DECAYING,
        {**HYPER, "rate": jnp.asarray(0.0)},
        START,
        "decay of memory is too small at step 0",
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_failures_of_the_forward_pass(failure):
    """Raised with and without a derivative, under jit, vmap of grad, and in a scan."""
    adjoint, optimizer, hyper, params, message = FAILURES[failure]
    f = quadratic(adjoint, optimizer)
    good = {**HYPER, "rate": jnp.asarray(0.9)} if optimizer is DECAYING else HYPER
    both = jax.tree.map(lambda *x: jnp.stack(x), good, hyper)
    ways = [
        lambda: f(hyper, params),
        lambda: jax.grad(f)(hyper, params),
        lambda: jax.jit(jax.grad(f))(hyper, params),
        lambda: jax.vmap(jax.grad(f), (0, None))(both, params),
        lambda: jax.lax.scan(lambda c, h: (c, jax.grad(f)(h, params)), 0, both),
    ]
    for way in ways:
        with pytest.raises(RuntimeError, match=message):
            jax.block_until_ready(way())


def unstable(steps=12):
    """A loss that draws a random number outside of JAX, from step 4 on."""
    rng = np.random.default_rng(0)
    struct = jax.ShapeDtypeStruct((), jnp.float32)

    @jax.custom_jvp
    def noise(x, t):
        draw = lambda t: np.asarray(rng.normal() if t.min() >= 4 else 0, np.float32)
        return jax.pure_callback(draw, struct, t + 0 * x.astype(int), vmap_method="sequential")

    noise.defjvp(lambda primals, tangents: (noise(*primals), jnp.zeros(())))
    return hg.Training(
        lambda p, hyper, t: jnp.sum((p - hyper["shift"]) ** 2) * (1 + noise(p[0], t)),
        optimizer=MOMENTUM,
        batches=lambda t: t,
        steps=steps,
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_that_does_not_come_home():
    """Raised whichever derivative is asked for: the check is tied to every cotangent."""
    training = unstable()
    final = lambda hyper, params: jnp.sum(training(params, hyper, adjoint=REVERSIBLE).params)
    message = r"did not lead to the initial value of params; it went wrong between step ([4-9]|1\d)"
    for name in HYPER:
        one = lambda x, name=name: final({**HYPER, name: x}, START)
        with pytest.raises(RuntimeError, match=message):
            jax.block_until_ready(jax.grad(one)(HYPER[name]))
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), HYPER)
    for way in (
        lambda: jax.grad(final, argnums=1)(HYPER, START),
        lambda: jax.jit(jax.grad(final))(HYPER, START),
        lambda: jax.vmap(jax.grad(final), (0, None))(batch, START),
        lambda: jax.lax.scan(lambda c, h: (c, jax.grad(final)(h, START)), 0, batch),
    ):
        with pytest.raises(RuntimeError, match=message):
            jax.block_until_ready(way())


def test_too_full_a_buffer(monkeypatch):
    """Whatever leads to it: here, a buffer made too small on purpose."""
    monkeypatch.setattr("hindgrad.exact.buffer.rows_for", lambda bits: 1)
    optimizer = hg.Momentum(0.1, lambda hyper, t: hyper["rate"])
    f = quadratic(hg.Reversible(min_decay=0.5), optimizer, 40)
    hyper = {**HYPER, "rate": jnp.asarray(0.5)}
    both = jax.tree.map(lambda x: jnp.stack([x, x]), hyper)
    for way in (
        lambda: jax.grad(f)(hyper, START),
        lambda: jax.jit(jax.grad(f))(hyper, START),
        lambda: jax.vmap(jax.grad(f), (0, None))(both, START),
        lambda: jax.lax.scan(lambda c, h: (c, jax.grad(f)(h, START)), 0, both),
    ):
        with pytest.raises(RuntimeError, match="buffer for memory was full at step 1"):
            jax.block_until_ready(way())


def test_report():
    """NaN and a status; under vmap only for the run that failed."""

    def f(hyper, status):
        return quadratic(hg.Reversible(failure=hg.failures.Report(status)), MOMENTUM)(hyper, START)

    both = jax.tree.map(lambda *x: jnp.stack(x), HYPER, HUGE)
    values, (grads, status) = jax.vmap(jax.value_and_grad(f, (0, 1)), (0, None))(both, jnp.zeros(3))
    wanted = jax.grad(quadratic(REVERSIBLE, MOMENTUM))(HYPER, START)
    np.testing.assert_allclose(grads["rate"][0], wanted["rate"], rtol=1e-6)
    assert jnp.isfinite(values[0])
    assert jnp.isnan(values[1])
    assert jnp.isnan(grads["rate"][1])
    np.testing.assert_array_equal(status, [[0, 0, 0], [2, 0, 0]])

    training = unstable()

    def score(hyper, status):
        adjoint = hg.Reversible(failure=hg.failures.Report(status))
        return jnp.sum(training(START, hyper, adjoint=adjoint).params)

    grads, status = jax.grad(score, (0, 1))(HYPER, jnp.zeros(3))
    assert jnp.isnan(grads["rate"])
    assert status[0] == 5


REFUSED = {
    "min_decay": (DECAYING, REVERSIBLE, "needs min_decay for the decay 'decay'"),
    "min_decay not named": (
        hg.Adam(0.1, lambda hyper, t: hyper["rate"], lambda hyper, t: hyper["rate"]),
        hg.Reversible(min_decay={"b1": 0.5}),
        "'b2'.*does not name it",
    ),
    "min_decay range": (DECAYING, hg.Reversible(min_decay=0.001), "0.001 .*outside"),
    "decay 0": (hg.Momentum(0.1, 0.0), REVERSIBLE, "'decay' is 0"),
    "Nesterov": (hg.Momentum(0.1, convention=hg.Nesterov()), REVERSIBLE, "Checkpointed"),
    "optax": (hg.from_optax(lambda hyper: optax.sgd(0.1)), REVERSIBLE, "Checkpointed"),
    "scale": (MOMENTUM, hg.Reversible(scale=3.0), "power of two"),
    "scale structure": (MOMENTUM, hg.Reversible(scale={"a": 1.0}), "prefix"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    optimizer, adjoint, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        quadratic(adjoint, optimizer)(HYPER, START)


def test_unroll_is_refused():
    with pytest.raises(ValueError, match="Neither unroll"):
        hg.unroll(lambda s, h, t: s * h, jnp.ones(2), 0.5, 3, adjoint=REVERSIBLE)


def test_second_derivatives_are_refused():
    """They would pass through the rounding, which has the derivative 0."""
    f = lambda rate: quadratic(REVERSIBLE, MOMENTUM)({**HYPER, "rate": rate}, START)
    with pytest.raises(ValueError, match="first derivatives only"):
        jax.grad(jax.grad(f))(0.1)
    with pytest.raises((ValueError, TypeError)):
        jax.hessian(f)(0.1)


def test_unknown_names_in_min_decay():
    with pytest.raises(
        ValueError, match=r"names \['decya'\]; the optimizer's decays are \['decay'\]"
    ):
        quadratic(hg.Reversible(min_decay={"decya": 0.8}), MOMENTUM)(HYPER, START)

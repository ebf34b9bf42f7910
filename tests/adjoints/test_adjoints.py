"""All adjoints: against plain `jax.grad`, under every transformation, and what they run again."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

import hindgrad as hg
import problems

EXACT = [
    hg.Stored(),
    hg.Checkpointed(),
    hg.Checkpointed(slots=1),
    hg.Checkpointed(slots=4),
    hg.Checkpointed(budget=5000),
    hg.Truncated(100),
    hg.Truncated(problems.STEPS, inner=hg.Checkpointed(slots=2)),
]


def rosenbrock(state, hyper, t):
    """Momentum on Rosenbrock's valley, with an integer in the state and an output per step."""
    x, v, count = state
    g = jax.grad(lambda x: hyper["a"] * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2)(x)
    v = hyper["decay"] * v - hyper["rate"][t] * g
    return (x + v, v, count + 1), {"x": x[0], "count": count}


def start():
    return jnp.array([-0.5, 0.7]), jnp.zeros(2), jnp.int32(0)


def hyper(steps=problems.STEPS):
    return {"rate": jnp.linspace(0.01, 0.03, steps), "decay": 0.8, "a": 3.0, "name": "valley"}


def tuned(hyper):
    return {name: value for name, value in hyper.items() if name != "name"}


def score(state, outputs, hyper):
    """Depends on the end, on every output, and on the hyperparameters directly."""
    (x, v, _), weights = state, jnp.arange(outputs["x"].size)
    return jnp.sum(x**2) + v[0] + jnp.vdot(weights, outputs["x"]) / 50 + hyper["decay"] ** 2


def ours(adjoint, hyper, start, steps=problems.STEPS):
    hyper = {**hyper, "name": "valley"}
    return score(*hg.unroll(rosenbrock, start, hyper, steps, adjoint=adjoint), hyper)


def plain(hyper, start, steps=problems.STEPS):
    step = lambda state, t: rosenbrock(state, hyper, t)
    return score(*jax.lax.scan(step, start, jnp.arange(steps)), hyper)


def gradients(function, hyper):
    x, v, count = start()
    return jax.grad(lambda h, x, v: function(h, (x, v, count)), argnums=(0, 1, 2))(hyper, x, v)


@pytest.mark.parametrize("adjoint", EXACT, ids=repr)
def test_exact(x64, adjoint):
    h = tuned(hyper())
    got, wanted = (gradients(f, h) for f in (functools.partial(ours, adjoint), plain))
    assert problems.relative_error(got, wanted) <= 1e-12


@pytest.mark.parametrize("adjoint", EXACT[:4], ids=repr)
def test_finite_differences(x64, adjoint):
    h = tuned(hyper())
    direction = jax.tree.map(
        lambda x: jnp.cos(jnp.arange(jnp.size(x)) + 1.0).reshape(jnp.shape(x)), h
    )
    value = jax.jit(
        lambda e: ours(adjoint, jax.tree.map(lambda x, d: x + e * d, h, direction), start())
    )
    difference = (value(1e-6) - value(-1e-6)) / 2e-6
    assert abs(jax.grad(value)(0.0) - difference) <= 1e-7 * abs(difference)


@pytest.mark.parametrize("adjoint", [hg.Stored(), hg.Checkpointed(slots=3)], ids=repr)
def test_transformations(x64, adjoint):
    """grad of vmap, vmap of grad, value_and_grad, jit, inside a scan, under checkpoint."""
    h = tuned(hyper())
    f = lambda h: ours(adjoint, h, start())
    wanted = jax.grad(lambda h: plain(h, start()))(h)
    batch = jax.tree.map(lambda x: jnp.stack([x, 0.9 * x]), h)
    first = lambda tree: jax.tree.map(lambda x: x[0], tree)
    close = lambda got: problems.relative_error(got, wanted) <= 1e-12
    assert close(first(jax.vmap(jax.grad(f))(batch)))
    assert close(first(jax.grad(lambda b: jnp.sum(jax.vmap(f)(b)))(batch)))
    assert close(jax.jit(jax.value_and_grad(f))(h)[1])
    assert close(jax.grad(jax.checkpoint(f))(h))
    scanned = lambda h: jax.lax.scan(lambda c, _: (c + f(h), None), 0.0, None, length=2)[0]
    assert close(jax.tree.map(lambda x: x / 2, jax.grad(scanned)(h)))


def test_only_outputs(x64):
    """An objective of the outputs alone, and one of the last state alone."""
    h = tuned(hyper())
    run = lambda h: hg.unroll(rosenbrock, start(), h, 5)
    loop = lambda h: jax.lax.scan(lambda s, t: rosenbrock(s, h, t), start(), jnp.arange(5))
    for pick in (lambda s, o: jnp.sum(o["x"]), lambda s, o: s[0][1], lambda s, o: o["x"][0]):
        got, wanted = (jax.grad(lambda h, f=f, pick=pick: pick(*f(h)))(h) for f in (run, loop))
        np.testing.assert_allclose(got["rate"], wanted["rate"], rtol=1e-12)
        np.testing.assert_allclose(got["a"], wanted["a"], rtol=1e-12)


def steps_run(adjoint, steps):
    """The steps that are carried out, in order: forward, then backward."""
    seen = []

    def step(state, hyper, t):
        io_callback(lambda t: seen.append(int(t)), None, t, ordered=True)
        return state * hyper

    jax.block_until_ready(
        jax.value_and_grad(lambda h: hg.unroll(step, jnp.float32(1), h, steps, adjoint=adjoint)[0])(
            jnp.float32(0.9)
        )
    )
    return seen


@pytest.mark.parametrize(
    ("adjoint", "back"),
    [
        (hg.Stored(), [5, 4, 3, 2, 1, 0]),
        (hg.Checkpointed(slots=6), [5, 4, 3, 2, 1, 0]),
        (hg.Checkpointed(slots=1), [5, 0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 1, 2, 0, 1, 0]),
        (hg.Checkpointed(slots=3), [5, 3, 4, 3, 1, 2, 1, 0]),
        (hg.Truncated(2), [5, 4]),
    ],
    ids=repr,
)
def test_golden_order(adjoint, back):
    """Forward each step once; backward, a step appears when replayed and when pulled back."""
    assert steps_run(adjoint, 6) == [*range(6), *back]


def test_truncated_is_the_gradient_of_the_last_steps(x64):
    h, steps, window = tuned(hyper()), problems.STEPS, 4
    before = jax.lax.stop_gradient(hg.unroll(rosenbrock, start(), h, steps - window)[0])
    shifted = lambda state, h, t: rosenbrock(state, h, t + steps - window)
    got = jax.grad(
        lambda h: jnp.sum(
            hg.unroll(rosenbrock, start(), h, steps, adjoint=hg.Truncated(window))[0][0]
        )
    )(h)
    wanted = jax.grad(lambda h: jnp.sum(hg.unroll(shifted, before, h, window)[0][0]))(h)
    assert problems.relative_error(got, wanted) <= 1e-12
    assert not np.any(got["rate"][: steps - window])


def test_truncated_refuses_the_initial_state():
    with pytest.raises(ValueError, match="initial state of a run of 12 steps"):
        gradients(functools.partial(ours, hg.Truncated(4)), tuned(hyper()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hg.Checkpointed(slots=0), "at least 1"),
        (lambda: hg.Checkpointed(budget=0), "at least 1"),
        (lambda: hg.Truncated(0), "at least 1"),
        (lambda: hg.unroll(rosenbrock, start(), hyper(), 0), "steps=0"),
        (lambda: hg.unroll(lambda s, h, t: (s, s, s), 1.0, 1.0, 2), "neither a state"),
        (lambda: hg.unroll(lambda s, h, t: s[None], jnp.ones(2), 1.0, 2), "keeps its shapes"),
    ],
)
def test_misuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_budget_decides():
    assert hg.Checkpointed(budget=1000).slots_for(steps=100, state_bytes=30) == 32
    assert hg.Checkpointed(budget=10).slots_for(steps=100, state_bytes=30) == 1
    assert hg.Checkpointed().slots_for(steps=100, state_bytes=30) == 100
    assert hg.Checkpointed().replays(steps=100, state_bytes=30) == 0
    assert hg.Checkpointed(slots=3).replays(steps=10, state_bytes=30) == 6

"""What the end of a run determines, and what counts as a constant there."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg

ROWS = np.random.default_rng(0).normal(size=(60, 3))
GOAL = ROWS @ np.array([1.0, -2.0, 0.5])


def ridge(params, hyper, batch):
    residual = ROWS @ params["a"] + params["b"] * ROWS[:, 0] - GOAL
    return jnp.mean(residual**2) + hyper * jnp.sum(params["a"] ** 2)


def falling(t):
    """A rate that ends at exactly zero."""
    return 0.2 * (1 - t / 1999)


HELD = {
    "rate of 0": hg.Momentum({"a": 0.1, "b": 0.0}, 0.5),
    "set to zero": hg.from_optax(
        lambda h: optax.multi_transform(
            {"free": optax.sgd(0.1), "held": optax.set_to_zero()}, {"a": "free", "b": "held"}
        )
    ),
    "none": hg.Momentum(0.1, 0.5),
    "a rate that ends at 0": hg.Momentum(lambda h, t: falling(t), 0.5),
    "steps by the sign": hg.from_optax(
        lambda h: optax.chain(optax.scale_by_sign(), optax.scale_by_schedule(lambda t: -falling(t)))
    ),
}


@pytest.mark.parametrize("optimizer", HELD.values(), ids=HELD)
def test_what_is_held_is_a_constant(x64, optimizer):
    start = {"a": jnp.zeros(3), "b": jnp.float64(0.7)}
    run = hg.Training(ridge, optimizer=optimizer, batches=lambda t: None, steps=2000)
    objective = hg.Objective(
        run, init=start, score=lambda p, h, k: jnp.sum(jnp.sin(p["a"])) + p["b"]
    )

    def solution(hyper):
        """The minimum, of what is free, by linear algebra."""
        is_held = optimizer in (HELD["rate of 0"], HELD["set to zero"])
        inputs = ROWS if is_held else np.column_stack([ROWS, ROWS[:, 0]])
        right = GOAL - 0.7 * ROWS[:, 0] if is_held else GOAL
        penalty = hyper * jnp.diag(jnp.array([1.0, 1, 1, 0])[: inputs.shape[1]])
        found = jnp.linalg.solve(inputs.T @ inputs / 60 + penalty, inputs.T @ right / 60)
        return jnp.sum(jnp.sin(found[:3])) + (0.7 if is_held else found[3])

    found = jax.grad(lambda h: objective(h, adjoint=hg.Implicit()))(0.3)
    tolerance = 1e-2 if optimizer is HELD["steps by the sign"] else 1e-9
    np.testing.assert_allclose(found, jax.grad(solution)(0.3), rtol=tolerance)


def test_a_constant_in_a_step(x64):
    step = lambda s, h, t: (0.5 * s[0] + h * s[1], s[1])
    start = jnp.zeros(2), jnp.ones(2)
    run = lambda h: hg.unroll(step, start, h, 80, adjoint=hg.Implicit(hg.solvers.NormalEquations()))
    np.testing.assert_allclose(jax.grad(lambda h: run(h)[0][0].sum())(0.3), 4, rtol=1e-6)


SOLVER = hg.solvers.NormalEquations()


def of_step(hyper, adjoint):
    """What a step adds a hyperparameter to, a count, and what comes to rest at the hyperparameter,
    as the count has no part in it."""

    def step(state, hyper, t):
        rest = state["rest"] - 0.5 * (state["rest"] - hyper)
        return {"rest": rest, "sum": state["sum"] + hyper, "count": state["count"] + 1}, ()

    start = {name: jnp.float64(0) for name in ("rest", "sum", "count")}
    return hg.unroll(step, start, hyper, 100, adjoint=adjoint)[0]


def of_model(hyper, adjoint):
    """The same beside weights."""

    def loss(params, hyper, batch, state):
        after = {"sum": state["sum"] + hyper, "count": state["count"] + 1.0}
        return jnp.sum((params - hyper) ** 2), after

    run = hg.Training(loss, optimizer=hg.Momentum(0.2), batches=lambda t: None, steps=300)
    state = {"sum": jnp.float64(0), "count": jnp.float64(0)}
    end = run(jnp.zeros(()), hyper, model_state=state, adjoint=adjoint)
    return {"rest": end.params, **end.model_state}


def of_params(hyper, adjoint):
    """Weights that nothing holds: their gradient is the hyperparameter."""
    loss = lambda params, hyper, batch: (params["rest"] - hyper) ** 2 + hyper * params["sum"]
    run = hg.Training(loss, optimizer=hg.Momentum(0.2), batches=lambda t: None, steps=300)
    start = {"rest": jnp.float64(0), "sum": jnp.float64(1)}
    return run(start, hyper, adjoint=adjoint).params


@pytest.mark.parametrize("hyper", [0.0, 0.3])
@pytest.mark.parametrize("run", [of_step, of_model, of_params])
def test_a_sum_is_no_constant(x64, run, hyper):
    """It never comes to rest, also where it has not moved: refused, and not taken for one whose
    derivative is zero. A count is one."""
    of = lambda name: jax.grad(lambda h: run(h, hg.Implicit(SOLVER))[name])(hyper)
    with pytest.raises(Exception, match=r"Implicit: (the linear system|training did not|the end)"):
        of("sum")
    if run is not of_params:
        np.testing.assert_allclose(of("rest"), 1, rtol=1e-6)
        assert of("count") == 0

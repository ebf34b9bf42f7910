"""Gradients accumulated over microbatches: the same, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg

ROWS, SIZE = 48, 12
HYPER = {"rate": 0.3, "l2": 0.01, "weight": np.linspace(0.5, 1.5, ROWS)}


def data(key):
    x = jax.random.normal(key, (ROWS, 5))
    return {"x": x, "y": jnp.sin(jnp.sum(x, 1))}


def forward(params, x):
    return (jnp.tanh(x @ params["in"]) @ params["out"])[:, 0]


def loss(params, hyper, batch):
    errors = (forward(params, batch.data["x"]) - batch.data["y"]) ** 2
    penalty = hyper["l2"] * sum(jnp.sum(p**2) for p in params.values())
    return jnp.mean(hyper["weight"][batch.index] * errors) + penalty


def start(key):
    first, second = jax.random.split(key)
    return {
        "in": jax.random.normal(first, (5, 8)) / 2,
        "out": jax.random.normal(second, (8, 1)) / 3,
    }


def objective(key, microbatch, loss=loss, **changes):
    rows = data(key)
    settings = {
        "optimizer": hg.Momentum(lambda h, t: h["rate"], 0.8),
        "batches": hg.minibatches(rows, size=SIZE, key=key),
        "steps": 7,
    }
    training = hg.Training(loss, microbatch=microbatch, **settings | changes)
    score = lambda params, hyper, key: jnp.mean((forward(params, rows["x"]) - rows["y"]) ** 2)
    return hg.Objective(training, init=start(key), score=score)


@pytest.mark.parametrize(
    "adjoint", [hg.Stored(), hg.Checkpointed(slots=2), hg.Forward(), hg.Reversible()], ids=repr
)
@pytest.mark.parametrize("microbatch", [4, 1])
def test_the_same_hypergradient(key, x64, adjoint, microbatch):
    by = lambda rows, adjoint: jax.value_and_grad(
        lambda h: objective(key, rows)(h, adjoint=adjoint)
    )(HYPER)
    value, found = by(microbatch, adjoint)
    wanted_value, wanted = by(None, hg.Stored())
    np.testing.assert_allclose(value, wanted_value, rtol=1e-12)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("adjoint", [hg.Stored(), hg.Reversible()], ids=repr)
def test_memory_falls_with_it(key, adjoint):
    """In the gradient and in the product with the Hessian."""
    x = jax.random.normal(key, (4096, 16))
    params = [jax.random.normal(k, (16, 16)) / 4 for k in jax.random.split(key, 6)]

    def loss(params, hyper, batch):
        z = batch.data
        for w in params:
            z = jnp.tanh(z @ w)
        return jnp.mean(z**2) * hyper

    def bytes_of(microbatch):
        training = hg.Training(
            loss,
            optimizer=hg.Momentum(0.1, 0.9),
            batches=hg.minibatches(x, size=2048, key=key),
            steps=3,
            microbatch=microbatch,
        )
        value = hg.Objective(training, init=params, score=lambda p, h, k: jnp.sum(p[0] ** 2))
        program = jax.jit(jax.grad(lambda h: value(h, adjoint=adjoint))).lower(1.0).compile()
        return program.memory_analysis().temp_size_in_bytes

    whole, half, eighth = map(bytes_of, (None, 1024, 256))
    assert half < 0.65 * whole
    assert eighth < 0.3 * whole


def test_state_goes_from_one_to_the_next(key, x64):
    """Against a loop: each microbatch sees the state that the one before has left."""

    def loss(params, hyper, batch, state):
        mean = jnp.mean(batch.data["x"])
        state = {"mean": 0.9 * state["mean"] + 0.1 * mean, "count": state["count"] + 1}
        errors = (forward(params, batch.data["x"]) - batch.data["y"] - state["mean"]) ** 2
        return jnp.mean(errors), state

    given = {"mean": jnp.float64(0.3), "count": jnp.int32(0)}
    training = objective(key, 4, loss).training
    run = training(start(key), HYPER, model_state=given)
    params, state, velocity = start(key), given, jax.tree.map(jnp.zeros_like, start(key))
    for t in range(7):
        batch = training.batches(t)

        def total(params, state=state, batch=batch):
            values = []
            for i in range(0, SIZE, 4):
                part = jax.tree.map(lambda x, i=i: x[i : i + 4], (batch.data, batch.index))
                value, state = loss(params, HYPER, batch.__class__(part[0], None, part[1]), state)
                values.append(value)
            return sum(values) / 3, state

        grads, state = jax.grad(total, has_aux=True)(params)
        velocity = jax.tree.map(lambda v, g: 0.8 * v - 0.2 * g, velocity, grads)
        params = jax.tree.map(lambda p, v: p + HYPER["rate"] * v, params, velocity)
    assert run.model_state["count"] == 21
    np.testing.assert_allclose(run.model_state["mean"], state["mean"], rtol=1e-12)
    for name in params:
        np.testing.assert_allclose(run.params[name], params[name], rtol=1e-10)


def test_what_is_no_array_reaches_the_loss_as_it_is(key):
    def plain(params, hyper, batch):
        assert hyper["n"] == 2
        assert batch["mode"] == "train"
        return jnp.mean(hyper["act"](batch["x"] @ params["in"]) ** hyper["n"])

    rows = data(key)["x"]
    batches = lambda t: {"x": rows[:8], "mode": "train"}
    hyper = HYPER | {"n": 2, "act": jnp.tanh}
    run = lambda microbatch: objective(key, microbatch, plain, batches=batches).run(hyper, key)
    np.testing.assert_allclose(run(4).losses, run(None).losses, rtol=1e-6)


def test_each_has_its_own_key(key):
    """Dropout is not the same in all microbatches."""

    def loss(params, hyper, batch):
        return jnp.mean(jax.random.uniform(batch.key, (4,)) * params["in"][0, 0])

    run = objective(key, 4, loss).run(HYPER, key)
    batch = hg.minibatches(data(key), size=SIZE, key=key)(0)
    draws = [jax.random.uniform(jax.random.fold_in(batch.key, i), (4,)) for i in range(3)]
    wanted = jnp.mean(jnp.stack(draws)) * start(key)["in"][0, 0]
    np.testing.assert_allclose(run.losses[0], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("microbatch", "changes", "message"),
    [
        (5, {}, r"microbatch=5\) does not divide the 12 rows of a batch.*\[1, 2, 3, 4, 6, 12\]"),
        (0, {}, r"Training\(microbatch=0\): a whole number, at least 1"),
        (2, {"batches": lambda t: t}, "no array with rows"),
        (
            2,
            {"batches": lambda t: (jnp.ones(4), jnp.ones(6))},
            r"batch\[0\] has 4, batch\[1\] has 6",
        ),
        (
            1,
            {"batches": lambda t: (jnp.ones((2, 3)), jax.random.PRNGKey(t))},
            r"batch\[1\] is uint32\[2\], as jax.random.PRNGKey's keys are",
        ),
    ],
)
def test_messages(key, microbatch, changes, message):
    with pytest.raises(ValueError, match=message):
        objective(key, microbatch, **changes)(HYPER)

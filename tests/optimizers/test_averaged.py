"""The average of the weights: against a loop, and backwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg

HYPER = {"rate": 0.1, "average": 0.7, "target": 1.5}
START = np.array([0.3, -1.0, 2.0])
STEPS = 9


def loss(params, hyper, batch):
    return jnp.sum((params - hyper["target"]) ** 4) / 8


def objective(optimizer):
    training = hg.Training(loss, optimizer=optimizer, batches=lambda t: t, steps=STEPS)
    score = hg.RunScore(lambda run, hyper, key: jnp.sum(run.state.average**3))
    return hg.Objective(training, init=jnp.asarray(START), score=score)


def averaged(inner):
    return hg.Averaged(inner, decay=lambda h, t: h["average"])


def rate(hyper, t):
    return hyper["rate"]


def by_hand(hyper):
    params, velocity, average = jnp.asarray(START), jnp.zeros(3), jnp.asarray(START)
    for _ in range(STEPS):
        velocity = 0.9 * velocity - 0.1 * jax.grad(loss)(params, hyper, None)
        params = params + hyper["rate"] * velocity
        average = hyper["average"] * average + (1 - hyper["average"]) * params
    return jnp.sum(average**3)


@pytest.mark.parametrize(
    "adjoint", [hg.Stored(), hg.Checkpointed(), hg.Forward(), hg.Reversible(min_decay=0.5)]
)
def test_against_a_loop(x64, adjoint):
    wanted = jax.grad(by_hand)(HYPER)
    value = objective(averaged(hg.Momentum(rate, 0.9)))
    found = jax.grad(lambda h: value(h, adjoint=adjoint))(HYPER)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9)
        assert abs(wanted[name]) > 1e-2


@pytest.mark.parametrize(
    "inner",
    [
        hg.Adam(rate, weight_decay=hg.Decoupled(0.1)),
        hg.Momentum(rate, 0.5, weight_decay=hg.Coupled(0.1), convention=hg.PositionFirst()),
    ],
)
def test_every_optimizer_comes_home(inner):
    value = objective(averaged(inner))
    by = lambda adjoint: jax.grad(lambda h: value(h, adjoint=adjoint))(HYPER)
    found, wanted = by(hg.Reversible(min_decay=0.5)), by(hg.Stored())
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4)


def test_training_does_not_see_it():
    plain = hg.Training(loss, optimizer=hg.Adam(0.1), batches=lambda t: t, steps=STEPS)
    run = objective(hg.Averaged(hg.Adam(0.1), decay=0.9)).run(HYPER, jax.random.key(0))
    np.testing.assert_array_equal(run.params, plain(jnp.asarray(START), HYPER).params)


def test_half_precision_is_averaged_in_single():
    memory = hg.Averaged(hg.Momentum(0.1), decay=0.9).init(
        jnp.asarray(START, jnp.bfloat16), {"rate": jnp.float32(0.1), "decay": jnp.float32(0.9)}
    )
    assert memory.average.dtype == jnp.float32


def test_misuse():
    with pytest.raises(TypeError, match="written as moves is needed"):
        hg.Averaged(hg.from_optax(lambda h: None), decay=0.9)
    with pytest.raises(ValueError, match=r"Averaged\(decay\)=1"):
        hg.Averaged(hg.Momentum(0.1), decay=1)
    with pytest.raises(ValueError, match="Average once"):
        objective(hg.Averaged(averaged(hg.Momentum(0.1)), decay=0.5))(HYPER)

"""Layers whose steps a compiler is prone to round in more than one way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg

RATE = lambda hyper, t: hyper["rate"]


@pytest.mark.parametrize(
    "optimizer", [hg.Adam(RATE), hg.Momentum(RATE, 0.9)], ids=["adam", "momentum"]
)
@pytest.mark.parametrize(
    "divided", [lambda x, v: x / jnp.sqrt(v), lambda x, v: x * jax.lax.rsqrt(v)]
)
def test_batch_normalisation_comes_home(key, optimizer, divided):
    x = jax.random.normal(key, (100, 32))

    def loss(params, hyper, batch):
        rows, targets = batch.data
        z = rows @ params
        normal = divided(z - z.mean(0)[None], z.var(0)[None] + 1e-3)
        return jnp.mean((normal - targets) ** 2)

    batches = hg.minibatches((x, jnp.tanh(x[:, :10])), size=20, key=0)
    training = hg.Training(loss, optimizer=optimizer, batches=batches, steps=4)
    score = lambda params, hyper, key: jnp.sum(params * x[32:64, :10])
    objective = hg.Objective(training, init=x[:32, :10], score=score)
    by = lambda adjoint: jax.grad(lambda h: objective(h, adjoint=adjoint))({"rate": 0.02})
    np.testing.assert_allclose(by(hg.Reversible())["rate"], by(hg.Stored())["rate"], rtol=1e-3)


def test_numbers_that_are_infinite_on_purpose():
    """A masked softmax at a temperature: minus infinity, divided by what is constant."""
    mask = jnp.array([True, True, False, True])

    def loss(params, hyper, batch):
        logits = jnp.where(mask, params * hyper["scale"], -jnp.inf) / 2.0
        return -jax.nn.log_softmax(logits)[0]

    optimizer = hg.Momentum(lambda h, t: h["rate"], 0.9)
    training = hg.Training(loss, optimizer=optimizer, batches=lambda t: None, steps=5)
    start = jnp.array([0.1, 0.2, 0.3, 0.4])
    objective = hg.Objective(training, init=start, score=lambda p, h, key: jnp.sum(p**2))
    by = lambda adjoint: jax.grad(lambda h: objective(h, adjoint=adjoint))(
        {"scale": 1.0, "rate": 0.1}
    )
    found, right = by(hg.Reversible()), by(hg.Stored())
    for name in right:
        np.testing.assert_allclose(found[name], right[name], rtol=1e-4)


@pytest.mark.parametrize("microbatch", [None, 8])
@pytest.mark.parametrize("shape", [(128,), (128, 4)], ids=["vector", "matrix"])
def test_weights_of_examples_come_home(key, shape, microbatch):
    """Their derivative is a scatter, which the way forward does not have: a compiler makes one
    kernel of a small loop without, in which products of matrices are rounded otherwise."""
    x = jax.random.normal(key, (500, shape[0]))

    def loss(params, hyper, batch):
        errors = (batch.data @ params - batch.data[:, :4].T[: params.ndim].sum()) ** 2
        errors = errors.reshape(len(errors), -1).mean(1)
        return jnp.mean(hyper["weight"][batch.index % 8] * errors) / 1000

    training = hg.Training(
        loss,
        optimizer=hg.Momentum(RATE, 0.9),
        batches=hg.minibatches(x, size=64, key=0),
        steps=60,
        microbatch=microbatch,
    )
    score = lambda params, hyper, key: jnp.mean((params - 0.1) ** 2)
    objective = hg.Objective(training, init=jnp.zeros(shape), score=score)
    by = lambda adjoint: jax.grad(lambda h: objective(h, adjoint=adjoint))(
        {"rate": 0.5, "weight": jnp.linspace(0.5, 1.5, 8)}
    )
    found, right = by(hg.Reversible()), by(hg.Stored())
    for name in right:
        np.testing.assert_allclose(found[name], right[name], rtol=1e-3)

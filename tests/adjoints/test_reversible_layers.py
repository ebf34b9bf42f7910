"""Layers whose steps a compiler is prone to round in more than one way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg


@pytest.mark.parametrize(
    "optimizer", [hg.Adam(0.01), hg.Momentum(0.1, 0.9)], ids=["adam", "momentum"]
)
@pytest.mark.parametrize(
    "divided", [lambda x, v: x / jnp.sqrt(v), lambda x, v: x * jax.lax.rsqrt(v)]
)
def test_batch_normalisation_comes_home(key, optimizer, divided):
    x = jax.random.normal(key, (100, 32))

    def loss(params, hyper, batch):
        rows, targets = batch.data
        z = rows @ params + hyper["shift"]
        normal = divided(z - z.mean(0)[None], z.var(0)[None] + 1e-3)
        return jnp.mean((normal - targets) ** 2)

    batches = hg.minibatches((x, jnp.tanh(x[:, :10])), size=20, key=0)
    training = hg.Training(loss, optimizer=optimizer, batches=batches, steps=4)
    objective = hg.Objective(training, init=x[:32, :10], score=lambda p, h, key: jnp.mean(p**2))
    by = lambda adjoint: jax.grad(lambda h: objective(h, adjoint=adjoint))({"shift": 0.3})
    np.testing.assert_allclose(by(hg.Reversible())["shift"], by(hg.Stored())["shift"], atol=1e-5)

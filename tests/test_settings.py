"""Settings of JAX that a user may have, under which hypergradients stay what they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg

SETTINGS = {
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "no jit": jax.disable_jit,
    "NaNs are errors": lambda: jax.debug_nans(True),
    "leaks are errors": jax.checking_leaks,
}
ADJOINTS = [hg.Checkpointed(slots=2), hg.Reversible()]
HYPER = {"rate": jnp.float32(0.1), "penalty": jnp.float32(0.01)}


def objective():
    """Rows drawn with keys, Adam, and an average of the weights."""
    x = jax.random.normal(jax.random.key(0), (16, 3))
    rows = x, x.sum(1)

    def loss(params, hyper, batch):
        x, y = batch.data
        squares = jnp.mean((x @ params["w"] + params["b"] - y) ** 2)
        return squares + hyper["penalty"] * jnp.sum(params["w"] ** 2)

    def score(run, hyper, key):
        x, y = rows
        return jnp.mean((x @ run.state.average["w"] - y) ** 2)

    start = {"w": 0.1 * jnp.ones(3), "b": jnp.zeros(())}
    adam = hg.Averaged(hg.Adam(lambda hyper, t: hyper["rate"]), decay=0.9)
    training = hg.Training(
        loss, optimizer=adam, batches=hg.minibatches(rows, size=4, key=1), steps=3
    )
    return hg.Objective(training, init=lambda hyper, key: start, score=hg.RunScore(score))


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("adjoint", ADJOINTS, ids=lambda adjoint: type(adjoint).__name__)
def test_hypergradients_are_the_same(name, adjoint):
    gradient = lambda: jax.grad(lambda h: objective()(h, 0, adjoint=adjoint))(HYPER)
    with SETTINGS[name]():
        found = gradient()
    wanted = gradient()
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-4)

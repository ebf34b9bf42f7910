"""Coming home is checked against the very numbers that the run began from. (Also run at the
compiler's default level: there a start that is computed twice may come out twice.)"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg

X = jax.random.normal(jax.random.key(1), (100, 32))
Y = jnp.tanh(X[:, :10])
DRAWS = {
    "normal": jax.random.normal,
    "uniform": jax.random.uniform,
    "truncated normal": lambda key, shape: jax.random.truncated_normal(key, -2, 2, shape),
    "exponential": jax.random.exponential,
    "normalised": lambda key, shape: jax.nn.standardize(jax.random.normal(key, shape)),
}


def objective(draw, optimizer):
    training = hg.Training(
        lambda params, hyper, batch: jnp.mean((batch.data[0] @ params["w"] - batch.data[1]) ** 2),
        optimizer=optimizer,
        batches=hg.minibatches((X, Y), size=10, key=0),
        steps=5,
    )
    return hg.Objective(
        training,
        init=lambda hyper, key: {"w": draw(key, (32, 10)) * jnp.exp(hyper["log_scale"]) / 6},
        score=lambda params, hyper, key: jnp.mean((X @ params["w"] - Y) ** 2),
    )


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("kind", [hg.Momentum, hg.Adam], ids=lambda kind: kind.__name__)
def test_starts_that_a_function_draws(draw, kind):
    run = objective(draw, kind(lambda hyper, t: jnp.exp(hyper["log_rate"])))
    hyper = {"log_scale": 0.1, "log_rate": -3.0}
    right = jax.grad(lambda h: run(h, adjoint=hg.Stored()))(hyper)
    gradient = jax.grad(lambda h: run(h, adjoint=hg.Reversible()))
    for found in (gradient(hyper), jax.jit(gradient)(hyper)):
        for name in hyper:
            np.testing.assert_allclose(found[name], right[name], rtol=2e-3)


LOSSES = {
    "over a root": lambda z: z / jnp.sqrt(z * z + 0.1),
    "quotients": lambda z: z / (1 + z * z) / (2 + jnp.abs(z)),
    "powers": lambda z: jnp.exp(z) * jnp.exp(-0.5 * z) / (1 + jnp.exp(z)) ** 1.5,
    "layer norm": lambda z: jax.nn.standardize(z, axis=-1),
}


@pytest.mark.parametrize("activation", LOSSES.values(), ids=LOSSES)
def test_losses_that_a_compiler_rewrites(activation):
    """A quotient by a root becomes a product, or not, if the root is used elsewhere too."""
    training = hg.Training(
        lambda params, hyper, batch: jnp.mean(
            (activation(batch.data[0] @ params + hyper["shift"]) - batch.data[1]) ** 2
        ),
        optimizer=hg.Adam(lambda hyper, t: hyper["rate"]),
        batches=hg.minibatches((X, Y), size=20, key=0),
        steps=4,
    )
    run = hg.Objective(training, init=X[:32, :10], score=lambda p, h, key: jnp.mean(p**2))
    hyper = {"shift": 0.3, "rate": 0.01}
    right = jax.grad(lambda h: run(h, adjoint=hg.Stored()))(hyper)
    found = jax.grad(lambda h: run(h, adjoint=hg.Reversible()))(hyper)
    for name in hyper:
        np.testing.assert_allclose(found[name], right[name], rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("kind", [hg.Momentum, hg.Adam], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("decay", [0.42, {"v": 0.42, "w": 0.8}, "elements"], ids=str)
def test_one_step(x64, kind, decay):
    """Forward it starts from moments of zero, which a compiler knows: what it computes of them
    while compiling must have the bits that the way back computes."""
    start = {"v": np.float64(-0.79), "w": np.array([0.41, -0.02, -0.17, 0.11])}
    if decay == "elements":
        decay = {"v": 0.42, "w": np.array([0.42, 0.5, 0.6, 0.7])}

    def value(scale, adjoint):
        training = hg.Training(
            lambda params, scale, batch: scale * sum(jnp.sum(w**2) for w in params.values()),
            optimizer=kind(0.05, decay),
            batches=lambda t: None,
            steps=1,
        )
        return sum(jnp.sum(w) for w in training(start, scale, adjoint=adjoint).params.values())

    reversible, stored = (jax.grad(lambda s, a=a: value(s, a)) for a in ADJOINTS)
    for scale in (0.07, 0.09, 0.3):
        np.testing.assert_allclose(reversible(scale), stored(scale), rtol=1e-9)


ADJOINTS = hg.Reversible(min_decay=0.4), hg.Stored()

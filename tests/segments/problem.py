"""A small network on noisy data, and what segments are compared with."""

import jax
import jax.numpy as jnp
import numpy as np

import hindgrad as hg

STEPS, SEGMENTS = 37, 5
HYPER = {"rate": 0.3, "weight": np.linspace(0.5, 1.5, 40), "scale": 0.8, "n": 2}


def start(hyper, key):
    first, second = jax.random.split(key)
    return {
        "in": hyper["scale"] * jax.random.normal(first, (5, 8)),
        "out": jax.random.normal(second, (8,)) / 3,
    }


def fixed_start():
    """One that depends on no hyperparameter."""
    return start({"scale": 1.0}, jax.random.key(5))


def network(params, x):
    return jnp.tanh(x @ params["in"]) @ params["out"]


def data():
    x = jax.random.normal(jax.random.key(7), (40, 5))
    return x, jnp.sin(jnp.sum(x, 1))


def loss(params, hyper, batch):
    x, y = batch.data
    return jnp.mean(hyper["weight"][batch.index] * (network(params, x) - y) ** 2)


def score(params, hyper, key):
    x, y = data()
    return jnp.mean((network(params, x) - y) ** 2) + 1e-3 * hyper["rate"] ** 2


def rate(hyper, t):
    return hyper["rate"]


def objective(steps=STEPS, score=score, optimizer=None, loss=loss, init=start):
    training = hg.Training(
        loss,
        optimizer=hg.Momentum(rate, 0.9) if optimizer is None else optimizer,
        batches=hg.minibatches(data(), size=8, key=1),
        steps=steps,
    )
    return hg.Objective(training, init=init, score=score)

"""The runs that are timed: a tanh network on the digits, momentum .9, batch 128."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import hindgrad as hg

BATCH = 128


class Problem(NamedTuple):
    """A training run written twice: for hindgrad, and by hand as a `lax.scan`."""

    params: dict
    hyper: dict
    training: hg.Training
    by_hand: Callable[..., Any]
    valid: Callable[..., Any]

    def score(self, hyper, adjoint=None):
        return self.valid(self.training(self.params, hyper, adjoint=adjoint).params)

    def score_by_hand(self, hyper):
        return self.valid(self.by_hand(self.params, hyper))


def network(params, x):
    x = jnp.tanh(x @ params["w1"] + params["b1"])
    x = jnp.tanh(x @ params["w2"] + params["b2"])
    return x @ params["w3"] + params["b3"]


def cross_entropy(params, x, y):
    logits = network(params, x)
    picked = jnp.take_along_axis(logits, y[:, None], -1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, -1) - picked)


def make(width: int, steps: int, seed: int = 0) -> Problem:
    """Two hidden layers of `width` units: 26,122 parameters for 128, 301,066 for 512."""
    x, y = load_digits(return_X_y=True)
    x = jnp.asarray(x / 16, jnp.float32)
    y = jnp.asarray(y)
    train, valid = (x[:1280], y[:1280]), (x[1280:], y[1280:])
    keys = jax.random.split(jax.random.key(seed), 3)
    sizes = ((64, width), (width, width), (width, 10))
    params = {}
    for i, (key, (n, m)) in enumerate(zip(keys, sizes, strict=True), 1):
        params[f"w{i}"] = jax.random.normal(key, (n, m)) / np.sqrt(n)
        params[f"b{i}"] = jnp.zeros(m)
    hyper = {"rate": jnp.full(steps, 0.1), "log_l2": jnp.float32(-7.0)}

    def batches(t):
        begin = (t % 10) * BATCH
        return tuple(jax.lax.dynamic_slice_in_dim(a, begin, BATCH) for a in train)

    def loss(params, hyper, batch):
        penalty = sum(jnp.vdot(p, p) for p in jax.tree.leaves(params))
        return cross_entropy(params, *batch) + 0.5 * jnp.exp(hyper["log_l2"]) * penalty

    training = hg.Training(
        loss,
        optimizer=hg.Momentum(lambda hyper, t: hyper["rate"][t], 0.9),
        batches=batches,
        steps=steps,
    )

    def by_hand(params, hyper):
        def step(carry, t):
            params, velocity = carry
            grads = jax.grad(loss)(params, hyper, batches(t))
            velocity = jax.tree.map(lambda v, g: 0.9 * v - 0.1 * g, velocity, grads)
            params = jax.tree.map(lambda p, v: p + hyper["rate"][t] * v, params, velocity)
            return (params, velocity), None

        start = params, jax.tree.map(jnp.zeros_like, params)
        return jax.lax.scan(step, start, jnp.arange(steps))[0][0]

    return Problem(params, hyper, training, by_hand, lambda params: cross_entropy(params, *valid))

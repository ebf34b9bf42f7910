"""The runs that are timed: networks on the digits, batch 128, by momentum .9 or by Adam."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from sklearn.datasets import load_digits

import hindgrad as hg

BATCH = 128


class Problem(NamedTuple):
    """A training run written twice: for hindgrad, and by hand as a `lax.scan`."""

    params: PyTree
    hyper: dict
    training: hg.Training
    by_hand: Callable[..., Any]
    valid: Callable[..., Any]

    def score(self, hyper, adjoint=None):
        return self.valid(self.training(self.params, hyper, adjoint=adjoint).params)

    def score_by_hand(self, hyper):
        return self.valid(self.by_hand(self.params, hyper))


class Network(NamedTuple):
    """A model: initial parameters from a key, and logits from parameters and images."""

    init: Callable[..., PyTree]
    logits: Callable[..., Any]


def dense(width: int) -> Network:
    """Two hidden tanh layers: 26,122 parameters for width 128, 301,066 for 512."""
    sizes = ((64, width), (width, width), (width, 10))

    def init(key):
        params = {}
        for i, (n, m) in enumerate(sizes, 1):
            normal = jax.random.normal(jax.random.fold_in(key, i), (n, m))
            params[f"w{i}"] = normal / np.sqrt(n)
            params[f"b{i}"] = jnp.zeros(m)
        return params

    def logits(params, x):
        x = jnp.tanh(x @ params["w1"] + params["b1"])
        x = jnp.tanh(x @ params["w2"] + params["b2"])
        return x @ params["w3"] + params["b3"]

    return Network(init, logits)


def convolutional(channels: int = 16) -> Network:
    """Two 3 × 3 convolutions with max pooling and GELU, one dense layer: 3,626 parameters."""

    def init(key):
        a, b, c = jax.random.split(key, 3)
        return {
            "c1": jax.random.normal(a, (3, 3, 1, channels)) / 3,
            "c2": jax.random.normal(b, (3, 3, channels, channels)) / np.sqrt(9 * channels),
            "w": jax.random.normal(c, (4 * channels, 10)) / np.sqrt(4 * channels),
            "b1": jnp.zeros(channels),
            "b2": jnp.zeros(channels),
            "b3": jnp.zeros(10),
        }

    def layer(x, kernel, bias):
        dims = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dims)
        window = (1, 2, 2, 1)
        return jax.lax.reduce_window(
            jax.nn.gelu(x + bias), -jnp.inf, jax.lax.max, window, window, "VALID"
        )

    def logits(params, x):
        x = layer(x.reshape(-1, 8, 8, 1), params["c1"], params["b1"])
        x = layer(x, params["c2"], params["b2"])
        return x.reshape(x.shape[0], -1) @ params["w"] + params["b3"]

    return Network(init, logits)


NETWORKS = {
    "dense-128": dense(128),
    "dense-512": dense(512),
    "convolutional": convolutional(),
}


def cross_entropy(logits, y):
    picked = jnp.take_along_axis(logits, y[:, None], -1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, -1) - picked)


def digits():
    """All images [1797, 64] and labels, in the float type in force."""
    x, y = load_digits(return_X_y=True)
    return jnp.asarray(x / 16, jnp.result_type(float)), jnp.asarray(y)


def make(network: Network, steps: int, *, adam: bool = False, seed: int = 0) -> Problem:
    """A run with a rate for each step and a penalty, in the float type in force."""
    x, y = digits()
    train, valid = (x[:1280], y[:1280]), (x[1280:], y[1280:])
    params = network.init(jax.random.key(seed))
    rate = 1e-3 if adam else 0.1
    hyper = {"rate": jnp.full(steps, rate), "log_l2": jnp.asarray(-7.0)}

    def batches(t):
        begin = (t % 10) * BATCH
        return tuple(jax.lax.dynamic_slice_in_dim(a, begin, BATCH) for a in train)

    def loss(params, hyper, batch):
        penalty = sum(jnp.vdot(p, p) for p in jax.tree.leaves(params))
        x, y = batch
        ce = cross_entropy(network.logits(params, x), y)
        return ce + 0.5 * jnp.exp(hyper["log_l2"]) * penalty

    kind = hg.Adam if adam else hg.Momentum
    training = hg.Training(
        loss, optimizer=kind(lambda hyper, t: hyper["rate"][t]), batches=batches, steps=steps
    )
    begin, step = (_adam if adam else _momentum)()

    def by_hand(params, hyper):
        def body(carry, t):
            params, memory = carry
            grads = jax.grad(loss)(params, hyper, batches(t))
            return step(params, memory, grads, hyper["rate"][t], t), None

        return jax.lax.scan(body, (params, begin(params)), jnp.arange(steps))[0][0]

    def score(params):
        x, y = valid
        return cross_entropy(network.logits(params, x), y)

    return Problem(params, hyper, training, by_hand, score)


def _momentum():
    def step(params, velocity, grads, rate, t):
        del t
        velocity = jax.tree.map(lambda v, g: 0.9 * v - 0.1 * g, velocity, grads)
        return jax.tree.map(lambda p, v: p + rate * v, params, velocity), velocity

    return lambda params: jax.tree.map(jnp.zeros_like, params), step


def _adam():
    def step(params, memory, grads, rate, t):
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, memory[0], grads)
        square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, memory[1], grads)
        first, second = 1 - 0.9 ** (t + 1.0), 1 - 0.999 ** (t + 1.0)

        def move(p, m, s):
            root = jnp.sqrt(s / second + 1e-30)  # differentiable at 0
            return p - rate * (m / first) / (root + 1e-8)

        return jax.tree.map(move, params, mean, square), (mean, square)

    def begin(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return zeros, zeros

    return begin, step

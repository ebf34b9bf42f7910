"""A small real training run, through hindgrad and written by hand: digits, a tanh network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import hindgrad as hg

STEPS = 12
BATCH = 32


@functools.cache
def digits():
    x, y = load_digits(return_X_y=True)
    return x / 16, y


def data(rows=slice(0, 160)):
    """Rows of the digits, in the float type in force."""
    x, y = digits()
    return jnp.asarray(x[rows], jnp.zeros(()).dtype), jnp.asarray(y[rows], jnp.int32)


def init(key, width=6):
    a, b = jax.random.split(key)
    return {
        "hidden": {"w": jax.random.normal(a, (64, width)) / 8, "b": jnp.zeros(width)},
        "out": {"w": jax.random.normal(b, (width, 10)) / 2, "b": jnp.zeros(10)},
    }


def network(params, x):
    hidden = jnp.tanh(x @ params["hidden"]["w"] + params["hidden"]["b"][None])
    return hidden @ params["out"]["w"] + params["out"]["b"][None]


def cross_entropy(params, x, y):
    logits = network(params, x)
    picked = jnp.take_along_axis(logits, y[:, None], -1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, -1) - picked)


def batches(t):
    x, y = data()
    begin = (t * BATCH) % 160
    return tuple(jax.lax.dynamic_slice_in_dim(a, begin, BATCH) for a in (x, y))


def loss(params, hyper, batch):
    penalty = sum(jnp.vdot(p, p) for p in jax.tree.leaves(params))
    return cross_entropy(params, *batch) + jnp.exp(hyper["log_l2"]) * penalty


def valid(params):
    return cross_entropy(params, *data(slice(160, 320)))


def hyper(params, steps=STEPS):
    """Hyperparameters of every kind: per step and layer, per element, per leaf, scalar."""
    ramp = 1 + jnp.arange(steps) / steps
    key = jax.random.key(7)
    return {
        "rate": {"hidden": 0.2 * ramp, "out": 0.1 * ramp},
        "decay": jax.tree.map(lambda p: 0.5 + 0.4 * jax.random.uniform(key, p.shape), params),
        "weight_decay": jax.tree.map(lambda _: jnp.asarray(0.01), params),
        "log_l2": jnp.asarray(-6.0),
    }


def rate(hyper, t):
    return {name: values[t] for name, values in hyper["rate"].items()}


def decay(hyper, t):
    del t
    return hyper["decay"]


def weight_decay(hyper, t):
    del t
    return hyper["weight_decay"]


def training(optimizer, steps=STEPS):
    return hg.Training(loss, optimizer=optimizer, batches=batches, steps=steps)


def score(run_or_params, losses=None):
    """Depends on the trained parameters and on every step's loss."""
    params, losses = (
        (run_or_params.params, run_or_params.losses) if losses is None else (run_or_params, losses)
    )
    return valid(params) + jnp.vdot(jnp.linspace(0.0, 0.1, losses.size), losses)


def scan(step, state, steps=STEPS):
    """A training loop by hand: `step((params, memory), t) -> ((params, memory), loss)`."""
    return jax.lax.scan(step, state, jnp.arange(steps))


def spread(value, params):
    return jax.tree.broadcast(value, params)


def relative_error(got, wanted):
    """‖got − wanted‖ / ‖wanted‖ for each top-level entry; the largest of them."""
    errors = []
    for g, w in zip(_entries(got), _entries(wanted), strict=True):
        g, w = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (g, w))
        errors.append(np.linalg.norm(g - w) / max(np.linalg.norm(w), 1e-30))
    return max(errors)


def _entries(tree):
    if isinstance(tree, tuple):
        return [entry for part in tree for entry in _entries(part)]
    return list(tree.values()) if isinstance(tree, dict) else [tree]

"""A small training with state beside the weights, and the same by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import hindgrad as hg

STEPS, DECAY = 7, 0.9
HYPER = {"rate": 0.1, "decay": 0.8, "width": 1.0, "variance": 0.7}


def rows():
    x = jax.random.normal(jax.random.key(0), (60, 4))
    return x, jnp.tanh(x[:, :3] @ jnp.arange(9.0).reshape(3, 3) / 5)


def loss(params, hyper, batch, state):
    """Normalised by the batch, moved by what is carried: floats, a count and a key."""
    x, y = batch.data
    z = x @ params["w"]
    mean, variance = z.mean(0), z.var(0)
    toward = lambda old, new: hyper["decay"] * old + (1 - hyper["decay"]) * new
    after = {
        "mean": toward(state["mean"], mean),
        "variance": toward(state["variance"], variance),
        "count": state["count"] + 1,
        "key": jax.random.fold_in(state["key"], 1),
    }
    noise = 0.01 * state["count"] * jax.random.normal(state["key"], y.shape)
    normal = (z - mean) / jnp.sqrt(variance + 1e-3) + 0.1 * jnp.tanh(state["mean"]) + noise
    return jnp.mean((normal * params["gain"] - y) ** 2), after


def score(params, hyper, key, state):
    x, y = rows()
    z = (x @ params["w"] - state["mean"]) / jnp.sqrt(state["variance"] + 1e-3)
    return jnp.mean((z * params["gain"] - y) ** 2)


def start(hyper, key):
    params = {"w": jnp.eye(4, 3) * hyper["width"] + 0.1, "gain": jnp.ones(3)}
    state = {"mean": jnp.zeros(3), "variance": jnp.ones(3) * hyper["variance"]}
    return params, state | {"count": jnp.int32(0), "key": jax.random.key(3)}


def batches():
    return hg.minibatches(rows(), size=12, key=1)


def training(loss=loss, **options):
    optimizer = hg.Momentum(lambda h, t: h["rate"], DECAY)
    given = {"optimizer": optimizer, "batches": batches(), "steps": STEPS}
    return hg.Training(loss, **given | options)


def objective(init=start, score=score, **options):
    return hg.Objective(training(**options), init=init, score=score)


def by_hand(hyper, loss=loss, score=score, init=start):
    """Momentum, step by step, differentiated by JAX."""
    params, state = init(hyper, None)
    params, fixed = eqx.partition(params, eqx.is_inexact_array)
    velocity = jax.tree.map(jnp.zeros_like, params)
    for t in range(STEPS):
        whole = lambda p, t=t, s=state: loss(eqx.combine(p, fixed), hyper, batches()(t), s)
        grads, state = jax.grad(whole, has_aux=True)(params)
        velocity = jax.tree.map(lambda v, g: DECAY * v - (1 - DECAY) * g, velocity, grads)
        params = jax.tree.map(lambda p, v: p + hyper["rate"] * v, params, velocity)
    return score(eqx.combine(params, fixed), hyper, None, state)


def assert_close(found, wanted, rtol=1e-9):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol)

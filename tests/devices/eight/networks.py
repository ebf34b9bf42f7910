"""A network whose training is put on devices in several ways."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import hindgrad as hg

keys = jax.random.split(jax.random.key(0), 3)
PARAMS = {
    "w1": jax.random.normal(keys[0], (8, 16)) / 3,
    "w2": jax.random.normal(keys[1], (16, 8)) / 4,
}
ROWS = jax.random.normal(keys[2], (32, 8))
HYPER = {"rate": jnp.float32(0.1), "l2": jnp.float32(0.01), "weights": jnp.ones(32)}


class Placing(NamedTuple):
    """Where parameters and rows are."""

    w1: P = P()
    w2: P = P()
    rows: P = P()


DATA = Placing(rows=P("d"))
FSDP = Placing(w1=P("d"), w2=P("d"), rows=P("d"))
TENSOR = Placing(w1=P(None, "d"), w2=P("d"))


def network(params, x):
    h = jnp.tanh(x @ params["w1"])
    is_split = jax.typeof(h).sharding.spec[-1:] == ("d",)  # an explicit mesh wants to be told
    return jnp.matmul(h, params["w2"], out_sharding=P(None, None) if is_split else None)


def loss(params, hyper, batch):
    x, weights = batch.data
    errors = jnp.sum((network(params, x) - x) ** 2, 1)
    penalty = sum(jnp.sum(v**2) for v in params.values())
    return jnp.mean(weights * errors) + hyper["l2"] * penalty


def momentum(decay=0.9):
    return hg.Momentum(lambda h, t: h["rate"], decay)


def score_of(params, rows, hyper, *, adjoint, optimizer, loss=loss, batches=None, **options):
    """The score of a run, whose example weights are hyperparameters too."""
    batches = partial(hg.minibatches, size=16, key=0) if batches is None else batches
    training = hg.Training(
        loss, optimizer=optimizer, batches=batches((rows, hyper["weights"])), steps=6, **options
    )
    trained = training(params, hyper, adjoint=adjoint).params
    return jnp.mean((network(trained, rows) - rows) ** 2)


def placed(mesh, placing):
    """The parameters, the rows and the hyperparameters, there."""
    put = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))
    params = {name: put(x, getattr(placing, name)) for name, x in PARAMS.items()}
    return params, put(ROWS, placing.rows), HYPER | {"weights": put(jnp.ones(32), placing.rows)}


def hypergradient(mesh, placing, **options):
    """By a compiled function of the hyperparameters, which closes over all else."""
    with jax.set_mesh(mesh):
        params, rows, hyper = placed(mesh, placing)
        return jax.jit(jax.value_and_grad(lambda h: score_of(params, rows, h, **options)))(hyper)


def on_one_device(**options):
    """The same without a mesh."""
    return jax.jit(jax.value_and_grad(lambda h: score_of(PARAMS, ROWS, h, **options)))(HYPER)


def assert_same(found, expected, tolerance=5e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())

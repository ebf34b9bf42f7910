"""Streams whose rows are split over devices: the batches, and the results, of one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import hindgrad as hg
from devices.eight.networks import PARAMS, ROWS, assert_same, momentum, network

SOURCE = np.asarray(ROWS)
HYPER = {"rate": jnp.float32(0.1), "weights": jnp.ones(32)}


def objective_of(batches, params, **options):
    def loss(params, hyper, batch):
        errors = jnp.sum((network(params, batch.data) - batch.data) ** 2, 1)
        weights = hyper["weights"]
        return jnp.mean(
            weights.at[batch.index].get(out_sharding=jax.typeof(errors).sharding) * errors
        )

    training = hg.Training(loss, optimizer=momentum(), batches=batches, steps=6, **options)
    score = lambda p, hyper, key: jnp.mean((network(p, SOURCE) - SOURCE) ** 2)
    return hg.Objective(training, init=params, score=score)


@pytest.fixture(scope="module")
def wanted():
    objective = objective_of(hg.minibatches(SOURCE, size=16, key=0), PARAMS)
    return jax.value_and_grad(objective)(HYPER)


def stream_on(mesh, **options):
    return hg.stream(SOURCE, key=0, split=NamedSharding(mesh, P("d")), **{"size": 16} | options)


@pytest.mark.parametrize("shards", [None, 8])
def test_by_callbacks(mesh, wanted, shards):
    with jax.set_mesh(mesh):
        params = jax.device_put(PARAMS, NamedSharding(mesh, P()))
        objective = objective_of(stream_on(mesh), params, shards=shards)
        found = jax.value_and_grad(objective)(HYPER)
    assert_same(found, wanted)


def test_in_segments(mesh, wanted):
    seen = []
    with jax.set_mesh(mesh):
        params = jax.device_put(PARAMS, NamedSharding(mesh, P()))
        batches = stream_on(mesh, decode=lambda row: seen.append(1) or row)
        objective = objective_of(batches, params)
        found = hg.hypergradient(
            objective, HYPER, adjoint=hg.Reversible(), segments=3, progress=False
        )
    assert seen
    assert_same((found.value, found.gradient), wanted)


def test_messages(mesh):
    with pytest.raises(ValueError, match=r"stream\(size=12, split=…\): rows are split over 8"):
        stream_on(mesh, size=12)
    with pytest.raises(ValueError, match="how rows are split is needed"):
        hg.stream(SOURCE, size=16, key=0, split=NamedSharding(mesh, P()))

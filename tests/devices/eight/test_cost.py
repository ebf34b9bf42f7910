"""What a hypergradient costs each of eight devices, as the compiler counts it."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import hindgrad as hg
from benchmarks import devices
from devices.eight.conftest import of_kind

WIDTH = 128
ADJOINTS = {
    "Stored": hg.Stored(),
    "Checkpointed": hg.Checkpointed(slots=32),
    "Reversible": hg.Reversible(),
}
LIMITS = {"Stored": 1.15, "Checkpointed": 1.15, "Reversible": 1.45}
"""Memory with the parameters split, as multiples of an eighth of one device's."""
GATHERED = 3
"""Sets of parameters that FSDP gathers for a moment: weights, their tangents, gradients."""

counted = partial(devices.counted, devices.mlp, width=WIDTH)


@pytest.mark.parametrize("name", ADJOINTS)
def test_memory_and_operations_are_split(name):
    """States, moments, what is kept of them, cotangents and lost bits are split; each device then
    holds an eighth, and whole parameters only while a step is computed."""
    adjoint = ADJOINTS[name]
    one = counted(adjoint, 1, "rows")
    both, params = counted(adjoint, 8, "rows and params"), counted(adjoint, 8, "params")
    size = 4 * 4 * WIDTH**2
    assert params.memory < LIMITS[name] * one.memory / 8
    assert both.memory < 1.05 * one.memory / 8 + GATHERED * size
    assert both.operations < 1.15 * one.operations / 8


@pytest.mark.parametrize("name", ADJOINTS)
def test_layers_are_gathered_one_by_one(name):
    """In a scan over the layers, as large networks are written: no whole set of parameters is
    on any device."""
    scanned = partial(counted, layers=16, scanned=True)
    one, split = (scanned(ADJOINTS[name], n, "rows and params") for n in (1, 8))
    assert split.memory < 1.15 * one.memory / 8
    assert split.operations < 1.15 * one.operations / 8


def test_shards_are_split():
    """Each device computes its own only."""
    one, split = counted(hg.Stored(), 1, "rows"), counted(hg.Stored(), 8, "rows", shards=8)
    assert split.operations < 1.3 * one.operations / 8


def test_bytes_sent():
    """A sum over eight devices in each of five steps, of 1,000 numbers in each of two layers."""
    mesh = of_kind("auto")
    x = jax.device_put(jnp.ones((8, 1000)), NamedSharding(mesh, P("d")))

    def run(total, x):
        layer = lambda total, _: (total + jnp.sum(jnp.sin(x + total[0]), 0), None)
        step = lambda total, _: (jax.lax.scan(layer, total, length=2)[0], None)
        return jax.lax.scan(step, total, length=5)[0]

    with jax.set_mesh(mesh):
        text = jax.jit(run).lower(jnp.zeros(1000), x).compile().as_text()
    assert devices.sent(text, 8, 5) == pytest.approx(2 * 2 * 4000 * 7 / 8)

"""What a hypergradient costs each of eight devices, as the compiler counts it."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import hindgrad as hg
from devices.eight.conftest import of_kind

LAYERS, WIDTH, ROWS, STEPS = 4, 128, 64, 64


def compiled(mesh, rows_spec, params_spec, adjoint, **options):
    """A hypergradient that closes over parameters and rows, on a mesh or on one device."""
    place = lambda x, spec: x if mesh is None else jax.device_put(x, NamedSharding(mesh, spec))
    keys = jax.random.split(jax.random.key(0), LAYERS + 1)
    draw = lambda key, n: jax.random.normal(key, (n, WIDTH)) / WIDTH**0.5
    params = [place(draw(key, WIDTH), params_spec) for key in keys[:-1]]
    rows = place(draw(keys[-1], 4 * ROWS), rows_spec)

    def loss(params, hyper, batch):
        x = batch.data
        for w in params:
            x = jnp.tanh(x @ w)
        return jnp.mean(x**2) * hyper["scale"]

    training = hg.Training(
        loss,
        optimizer=hg.Momentum(lambda h, t: h["rate"], 0.9),
        batches=hg.minibatches(rows, size=ROWS, key=0),
        steps=STEPS,
        **options,
    )
    score = lambda params, hyper, key: sum(jnp.sum(w**2) for w in params)
    objective = hg.Objective(training, init=params, score=score)
    hyper = {"scale": jnp.float32(1), "rate": jnp.float32(0.1)}
    value = jax.value_and_grad(lambda hyper: objective(hyper, adjoint=adjoint))
    if mesh is None:
        return jax.jit(value).lower(hyper).compile()
    with jax.set_mesh(mesh):
        return jax.jit(value).lower(hyper).compile()


def memory(program):
    """The bytes that a device has in use beside the program's constants."""
    used = program.memory_analysis()
    return used.temp_size_in_bytes + used.argument_size_in_bytes + used.output_size_in_bytes


ADJOINTS = {
    "Stored": hg.Stored(),
    "Checkpointed": hg.Checkpointed(slots=32),
    "Reversible": hg.Reversible(),
}


LIMITS = {"Stored": 1.15, "Checkpointed": 1.15, "Reversible": 1.45}
"""Memory with the parameters split, as multiples of an eighth of one device's."""
GATHERED = 3
"""Sets of parameters that FSDP gathers for a moment: weights, their tangents, gradients."""


@pytest.mark.parametrize("name", ADJOINTS)
def test_memory_and_operations_are_split(name):
    """States, moments, what is kept of them, cotangents and lost bits are split; each device then
    holds an eighth, and whole parameters only while a step is computed."""
    one = compiled(None, None, None, ADJOINTS[name])
    both = compiled(of_kind("auto"), P("d"), P("d"), ADJOINTS[name])
    params = compiled(of_kind("auto"), P(), P("d"), ADJOINTS[name])
    size = 4 * LAYERS * WIDTH**2
    assert memory(params) < LIMITS[name] * memory(one) / 8
    assert memory(both) < 1.05 * memory(one) / 8 + GATHERED * size
    assert both.cost_analysis()["flops"] < 1.15 * one.cost_analysis()["flops"] / 8

"""`Reversible`: whatever is damaged between the two ways, no wrong gradient is returned.

`HINDGRAD_FAULTS=10000` tries more than the default.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hindgrad as hg
from conftest import SEED
from hindgrad.adjoints.reversible import run

STEPS = 40
FAULTS = int(os.environ.get("HINDGRAD_FAULTS", "400"))
ROWS = jnp.sin(jnp.arange(24.0).reshape(8, 3))
OPTIMIZERS = {
    "momentum": hg.Momentum(lambda hyper, t: hyper["rate"][t], lambda hyper, t: hyper["decay"]),
    "adam": hg.Adam(lambda hyper, t: 0.1 * hyper["rate"][t], b1=0.9, b2=0.99),
}


def loss(params, hyper, batch):
    hidden = jnp.tanh(ROWS @ params["w"])
    return jnp.mean((hidden @ params["v"] - ROWS[:, 0]) ** 2)


def objective(optimizer):
    training = hg.Training(loss, optimizer=optimizer, batches=lambda t: None, steps=STEPS)
    start = {"w": 0.3 * jnp.cos(jnp.arange(12.0).reshape(3, 4)), "v": jnp.ones(4) / 2}

    def init(hyper, key):
        """The same for each fault; of each its own, so that both ways are side by side alike."""
        return jax.tree.map(lambda x: x + jnp.float32(0) * hyper["fault"][0], start)

    return hg.Objective(training, init=init, score=loss)


def damaged(tape, fault):
    """The tape with one number changed: which of its arrays, which element, and how."""
    which, element, bit = fault

    def change(number, x):
        if jnp.issubdtype(x.dtype, jnp.floating):  # whole numbers
            new = x + jnp.exp2((bit % 8).astype(x.dtype))
        elif x.dtype == bool:
            new = ~x
        else:
            new = x ^ (1 << (bit % 8)).astype(x.dtype)
        here = jnp.arange(x.size, dtype=jnp.int32).reshape(x.shape) == element % x.size
        return jnp.where(here & (which == number), new, x)

    parts = tape.position.state, tape.position.buffers, tape.pushed
    leaves, structure = jax.tree.flatten(parts)
    leaves = [change(i, x) if x.size else x for i, x in enumerate(leaves)]
    state, buffers, pushed = jax.tree.unflatten(structure, leaves)
    position = tape.position._replace(state=state, buffers=buffers)
    return tape._replace(position=position, pushed=pushed), len(jax.tree.leaves(state)), len(leaves)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_changed_number_is_refused(optimizer, monkeypatch):
    """One whole number, one bit of the buffer, or one mark of a step. What nothing reads may be
    changed: then the gradient is the same, to the bit."""
    undo, arrays = run.undo, {}

    def faulty(scores, plan, dynamics, wanted, tape, cotangents):
        tape, arrays["state"], arrays["all"] = damaged(tape, dynamics.hyper["fault"])
        return undo(scores, plan, dynamics, wanted, tape, cotangents)

    monkeypatch.setattr(run, "undo", faulty)
    whole = objective(OPTIMIZERS[optimizer])
    min_decay = {"decay": 0.5} if optimizer == "momentum" else None
    adjoint = hg.Reversible(min_decay=min_decay, failure=hg.failures.Report(jnp.zeros(3)))
    floats = {"rate": jnp.full(STEPS, 0.1), "decay": jnp.float32(0.8)}

    def found(fault):
        at = lambda floats: whole({**floats, "fault": fault}, adjoint=adjoint)
        return ravel_pytree(jax.grad(at)(floats))[0]

    jax.eval_shape(found, jnp.zeros(3, jnp.int32))
    draws = np.random.default_rng(SEED).integers(0, [arrays["all"], 10_000, 8], (1 + FAULTS, 3))
    draws[0, 0] = -1  # no fault
    right, *gradients = np.asarray(jax.jit(jax.vmap(found))(jnp.asarray(draws, jnp.int32)))
    assert np.isfinite(right).all()
    refused, same = np.isnan(gradients).all(1), (gradients == right).all(1)
    assert np.all(refused | same)
    assert np.all(refused[draws[1:, 0] < arrays["state"]])
    assert refused.mean() > 0.6

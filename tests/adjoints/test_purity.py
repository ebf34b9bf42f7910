"""A step that is run again must be the same step: a loader that goes on is found out."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
from hindgrad.adjoints import purity

STEPS = 6
ROWS = jax.random.normal(jax.random.key(0), (60, 3))


def objective(batches):
    training = hg.Training(
        lambda params, hyper, batch: jnp.mean((batch @ params - 0.3) ** 2) * hyper,
        optimizer=hg.Momentum(0.1, 0.5),
        batches=batches,
        steps=STEPS,
    )
    return hg.Objective(training, init=jnp.ones(3), score=lambda p, h, k: jnp.sum(p**2))


def loader(next_row):
    """Batches that a callback fetches, from the row that `next_row(t)` gives."""

    def fetch(t):
        first = next_row(int(t))
        return np.asarray(ROWS)[first : first + 5]

    struct = jax.ShapeDtypeStruct((5, 3), ROWS.dtype)
    return lambda t: jax.pure_callback(fetch, struct, t)


ADJOINTS = [
    hg.Stored(),
    hg.Checkpointed(slots=2),
    hg.Truncated(3),
    hg.Interpolated(),
    hg.Implicit(stationary=1e9, solved=1e9),
    hg.Reversible(),
]
name = lambda adjoint: type(adjoint).__name__


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=name)
def test_an_iterator_is_found_out(adjoint):
    count = itertools.count()
    run = objective(loader(lambda t: next(count) * 7 % 50))
    with pytest.raises((RuntimeError, ValueError), match=r"again|the same twice"):
        jax.block_until_ready(jax.grad(lambda h: run(h, adjoint=adjoint))(1.0))


@pytest.mark.parametrize("adjoint", ADJOINTS[:4], ids=name)
def test_a_function_of_the_step_is_fine(adjoint):
    slices = lambda t: jax.lax.dynamic_slice_in_dim(ROWS, 7 * t, 5)
    runs = objective(loader(lambda t: t * 7)), objective(slices)
    found = [jax.grad(lambda h, run=run: run(h, adjoint=adjoint))(1.0) for run in runs]
    assert np.isfinite(found[0])
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_what_is_frozen_is_refused():
    rows = iter([ROWS[i : i + 5] for i in range(50)])
    with pytest.raises(ValueError, match=r"Training\(batches.*another batch"):
        objective(lambda t: next(rows))(1.0)
    numbers = itertools.count()
    with pytest.raises(ValueError, match=r"Training\(batches.*another batch"):
        objective(lambda t: ROWS[:5] * next(numbers))(1.0)


@pytest.mark.parametrize(
    ("before", "again", "other"),
    [
        (1.0, 1.00001, False),
        (1.0, 1.01, True),
        (1e-9, 2e-9, False),  # rounding, beside a largest loss of 1
        (jnp.nan, 1.0, False),
        (jnp.inf, jnp.nan, False),
        (1.0, jnp.nan, True),
    ],
)
def test_is_other(before, again, other):
    losses = jnp.array([1.0, before, jnp.inf], jnp.float32)
    assert purity.is_other(losses[1], jnp.float32(again), purity.floor(losses)) == other

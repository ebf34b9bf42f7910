"""Schedules: where each window begins, at any length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg


@pytest.mark.parametrize(("windows", "steps"), [(1, 7), (3, 9), (4, 10), (7, 7), (5, 3), (3, 100)])
def test_equal_windows(windows, steps):
    """Step t lies in window ⌊t · windows ÷ steps⌋; beyond the end, the last value stays."""
    values, ts = jnp.arange(windows, dtype=jnp.float32), jnp.arange(steps + 5)
    got = jax.jit(jax.vmap(lambda t: hg.piecewise(values, t, steps)))(ts)
    wanted = [min(t * windows // steps, windows - 1) for t in range(steps + 5)]
    np.testing.assert_array_equal(got, wanted)
    assert hg.piecewise(values, steps - 1, steps) == wanted[steps - 1]
    counts = np.bincount(np.asarray(wanted[:steps]), minlength=windows)
    assert counts.max() - counts.min() <= 1


def test_long_runs():
    """Where `t * windows` leaves 32 bits."""
    values = jnp.arange(50_000.0)
    assert hg.piecewise(values, jnp.int32(99_999), steps=100_000) == 49_999


def test_windows_of_arrays_and_their_derivative():
    """The derivative of a window's value is the sum over its steps."""
    values = jnp.arange(6.0).reshape(2, 3)
    total = lambda values: sum(
        (t + 1) * jnp.sum(hg.piecewise(values, jnp.int32(t), 4)) for t in range(4)
    )
    assert hg.piecewise(values, jnp.int32(3), 4).shape == (3,)
    np.testing.assert_array_equal(jax.grad(total)(values), [[3.0] * 3, [7.0] * 3])

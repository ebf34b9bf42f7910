"""Sums over many steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hindgrad as hg
from hindgrad import sums

MILLIONS = 10**7


def test_equal_shares_of_ten_million():
    """A plain float32 sum is several per cent off."""

    def run(_, total):
        return total.plus(jnp.float32(1 / 3))

    compensated = sums.Compensated.of(jnp.float32(0))
    total = jax.jit(lambda c: jax.lax.fori_loop(0, MILLIONS, run, c))(compensated).total
    assert abs(float(total) / (MILLIONS * float(np.float32(1 / 3))) - 1) <= 1e-6


def test_whole_numbers_and_nothing():
    total = sums.Compensated.of({"n": jnp.int32(0), "none": None})
    assert total.plus({"n": jnp.int32(2), "none": None}).total == {"n": 2, "none": None}


@pytest.mark.parametrize("steps", [1, 7, 8, 9, 1000, 4096])
def test_blocks_sum_to_the_whole(x64, steps):
    values = jax.random.normal(jax.random.key(0), (steps, 3))
    whole = sums.over_blocks(lambda v: {"sum": jnp.sum(v, 0)}, (values,), 3)
    np.testing.assert_allclose(whole["sum"], np.sum(values, 0), rtol=1e-12, atol=1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=70))
def test_pairwise(values):
    total = float(sums.pairwise(jnp.asarray(values, jnp.float32)))
    bound = 8 * np.finfo(np.float32).eps * np.sum(np.abs(values))
    assert abs(total - np.sum(np.asarray(values, np.float64))) <= bound + 1e-30


@pytest.mark.parametrize("steps", [10**6, MILLIONS])
def test_hypergradients_of_long_runs(steps):
    """θ ← θ − r c: its derivatives by r and c are sums of equal shares."""
    training = hg.Training(
        lambda w, hyper, batch: hyper["c"] * w,
        optimizer=hg.Momentum(lambda hyper, t: hyper["r"], 0.0),
        batches=lambda t: None,
        steps=steps,
    )
    run = lambda hyper: training(jnp.float32(0), hyper, adjoint=hg.Stored()).params
    hyper = {"r": jnp.float32(0.3e-6), "c": jnp.float32(1 / 3)}
    found = jax.grad(run)(hyper)
    assert abs(float(found["r"]) / (-steps * float(hyper["c"])) - 1) <= 1e-6
    assert abs(float(found["c"]) / (-steps * float(hyper["r"])) - 1) <= 1e-6

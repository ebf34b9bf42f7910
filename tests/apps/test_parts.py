"""Schedules taken apart, and hypergradients that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hindgrad.apps.model import Network, draw_problem
from hindgrad.apps.table import Table
from hindgrad.apps.tune.parts import apart, limit, of_parts, together

NETWORK = Network((2, 4, 2), "classification", 10, 8)


@pytest.fixture(scope="module")
def objective():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 2)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int32)
    table = Table("half", x, y, "classification", ("no", "yes"), ("p", "q"), "y")
    return draw_problem(table, NETWORK, test=0.2, valid=0.2, seed=0)[0].objective


def test_the_parts_of_hyperparameters_have_them_as_their_sum():
    hyper = NETWORK.defaults()
    parts = apart(hyper)
    for name, value in together(parts).items():
        np.testing.assert_array_equal(value, hyper[name])
    parts["rate"]["layer"] += jnp.array([[0.0, 1.0]])
    parts["rate"]["knot"] += 2.0
    parts["scale"]["all"] += 3.0
    moved = together(parts)
    np.testing.assert_allclose(moved["rate"] - hyper["rate"], [[2.0, 3.0]] * 4, rtol=1e-5)
    np.testing.assert_allclose(moved["scale"] - hyper["scale"], 3.0)


def test_the_hypergradient_of_the_parts_is_that_of_the_log_of_the_objective(objective, key):
    hyper = NETWORK.defaults()
    value, grads = jax.value_and_grad(of_parts(objective))(apart(hyper), key)
    plain, expected = jax.value_and_grad(objective)(hyper, key)
    assert value == pytest.approx(float(jnp.log(plain)), rel=1e-5)
    for name in hyper:
        np.testing.assert_allclose(grads[name]["own"], expected[name] / plain, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        grads["rate"]["layer"], (expected["rate"] / plain).sum(0, keepdims=True), rtol=1e-4
    )


def test_a_hypergradient_from_chaotic_training_is_refused(objective, key):
    start = apart(NETWORK.defaults())
    value, grads = jax.value_and_grad(of_parts(objective, 1e-6))(start, key)
    assert np.isfinite(value)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(grads))
    norm = float(optax.tree.norm(jax.grad(of_parts(objective))(start, key)))
    just = jax.grad(of_parts(objective, norm * 1.001))(start, key)
    assert float(optax.tree.norm(just)) == pytest.approx(norm, rel=1e-4)


def test_what_is_chaotic_depends_on_what_is_ordinary():
    assert limit(0.5, "classification") == 3.0
    for norm in (0.3, 3.4, 5.3, 500.0):
        assert limit(norm, "regression") > 2 * max(norm, 5.3)

"""The families of small problems: their values, their starts and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

import hindgrad as hg

FAMILIES = [
    hg.learned.Quadratics(3),
    hg.learned.Rosenbrock(),
    hg.learned.LogisticRegression(examples=12),
]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: type(f).__name__)
def test_a_problem_is_a_function_of_its_key(family, key):

    @jax.jit
    def problem(key, step_key):
        params, loss = family(key)
        return params, loss(params, step_key)

    one, again = problem(key, key), problem(key, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert one[1] > 0
    assert problem(jax.random.key(99), key)[1] != one[1]


def test_quadratics_have_their_minimum_where_linear_algebra_has_it(x64, key):
    @jax.jit
    def lowest(key):
        params, loss = hg.learned.Quadratics(4)(key)
        step = jnp.linalg.solve(jax.hessian(loss)(params, key), jax.grad(loss)(params, key))
        return params, loss(params, key), loss(params - step, key)

    params, first, last = lowest(key)
    assert np.max(np.abs(params)) < 0.05
    assert last == pytest.approx(0, abs=1e-12)
    assert first > 0.1


@pytest.mark.parametrize("size", [2, 5])
def test_rosenbrock_is_scipys(x64, key, size):
    params, loss = hg.learned.Rosenbrock(size)(key)
    assert params.shape == (size,)
    assert loss(params, key) == pytest.approx(optimize.rosen(np.asarray(params)))
    assert loss(jnp.ones(size), key) == 0


def test_logistic_regression_of_two_classes(x64, key):
    """With two classes, it is the logistic loss of the difference between their logits."""
    family = hg.learned.LogisticRegression(hg.learned.Gaussians(4), examples=30, penalty=0.1)

    @jax.jit
    def problem(key):
        params, loss = family(key)
        return params, loss(params, key), family.data(jax.random.split(key)[0], 2, 30)

    params, value, (x, y) = problem(key)
    assert x.shape == (30, 4)
    assert np.bincount(y).tolist() == [15, 15]
    margin = x @ (params["matrix"][:, 1] - params["matrix"][:, 0])
    by_hand = np.mean(np.logaddexp(0, np.where(y == 1, -margin, margin)))
    by_hand += 0.05 * np.sum(params["matrix"] ** 2)
    assert value == pytest.approx(by_hand)


def test_logistic_regression_on_given_data(key):
    """Each problem draws its rows; here they say which ones."""
    x = np.arange(20.0)[:, None] * np.ones((1, 2))
    family = hg.learned.LogisticRegression((x, np.arange(20) % 3), classes=3, examples=8)
    drawn, labels = family._draw(key)
    np.testing.assert_array_equal(labels, drawn[:, 0].astype(int) % 3)
    others, _ = family._draw(jax.random.key(5))
    assert not np.array_equal(drawn, others)
    params, _ = family(key)
    assert params["matrix"].shape == (2, 3)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros(4), np.zeros(4, int)),
        (np.zeros((4, 2)), np.zeros(3, int)),
        (np.zeros((4, 2)), np.zeros(4)),
        (np.zeros((4, 2)), np.array([0, 1, 2, 3])),
        (np.zeros((4, 2)), np.array([0, 1, -1, 0])),
    ],
    ids=["no matrix", "other length", "floats", "too many classes", "negative"],
)
def test_data_that_do_not_fit_are_refused(x, y):
    with pytest.raises(ValueError, match="examples × features are needed"):
        hg.learned.LogisticRegression((x, y), classes=3)


def test_rosenbrock_of_one_parameter_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        hg.learned.Rosenbrock(1)

"""Ranks of numbers, and waves of these."""

import numpy as np
import pytest
from scipy.stats import norm, rankdata

from hindgrad.apps.tables.bends import FREQUENCIES, NONE, added, bent


def test_scores_are_those_of_ranks_whatever_the_scale():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2))
    x[:, 1] = np.exp(5 * x[:, 1])
    scores = bent(x, [0, 1])(x)[:, 2:4]
    right = norm.ppf((rankdata(x, axis=0) - 0.5) / len(x))
    inner = np.abs(right) < 1.5
    np.testing.assert_allclose(scores[inner], right[inner], atol=0.04)
    cubes = bent(x[:, :1] ** 3, [0])(x[:, :1] ** 3)[:, 1]
    np.testing.assert_allclose(cubes[inner[:, 0]], scores[inner[:, 0], 0], atol=0.04)


def test_equal_numbers_have_the_middle_of_their_ranks():
    x = np.repeat([[0.0], [1.0], [2.0]], [60, 20, 20], axis=0)
    scores = bent(x, [0])(np.array([[0.0], [1.0], [2.0]]))[:, 1]
    np.testing.assert_allclose(scores, norm.ppf([0.3, 0.7, 0.9]), atol=0.04)


def test_waves_are_of_the_scores_and_rows_that_lie_outside_are_finite():
    x = np.linspace(-1, 1, 101)[:, None]
    fitted = bent(x, [0])
    made = fitted(np.array([[0.3], [1e9], [-1e9]]))
    assert made.shape == (3, 1 + added(1))
    angles = made[:, 1:2] * FREQUENCIES
    np.testing.assert_allclose(made[:, 2:], np.concatenate([np.sin(angles), np.cos(angles)], 1))
    np.testing.assert_allclose(made[1:, 1], norm.ppf([0.999, 0.001]))


def test_other_columns_stay_as_they_are():
    x = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_array_equal(bent(x, [2])(x)[:, :3], x)
    np.testing.assert_array_equal(NONE(x), x)


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_a_constant_column_has_the_score_of_the_middle(value):
    x = np.full((30, 1), value)
    np.testing.assert_allclose(bent(x, [0])(x)[:, 1], 0, atol=1e-9)

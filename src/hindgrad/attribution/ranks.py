"""How well one order foretells another."""

import numpy as np
from jaxtyping import Float
from scipy import stats

RESAMPLES = 1000
"""Draws of a bootstrap interval."""
LEVEL = 0.95
"""Its level."""


def spearman(
    foretold: Float[np.ndarray, "runs queries"], found: Float[np.ndarray, "runs queries"]
) -> Float[np.ndarray, " queries"]:
    """Spearman's correlation over the runs, of each query; 0 where one of the two does not change,
    and so says nothing of the order of the other."""
    a, b = (stats.rankdata(x, axis=0) for x in (foretold, found))
    a, b = a - a.mean(0, keepdims=True), b - b.mean(0, keepdims=True)
    size = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return np.where(size > 0, (a * b).sum(0) / np.where(size > 0, size, 1.0), 0.0)


def interval(
    foretold: Float[np.ndarray, "runs queries"],
    found: Float[np.ndarray, "runs queries"],
    random: np.random.Generator,
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean correlation over the queries: runs are drawn
    again, the queries stay (Efron & Tibshirani 1993, *An introduction to the bootstrap*, 13.3)."""
    runs = len(found)
    draws = random.integers(0, runs, (RESAMPLES, runs))
    means = [spearman(foretold[draw], found[draw]).mean() for draw in draws]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)

"""Numbers bent, beside themselves: what a network of few layers cannot make of a number easily."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtri

DISTINCT = 10
"""A column of no more different numbers is left as it is."""

MOST_COLUMNS = 64
"""A table of more columns to bend is left as it is: it has inputs enough."""

MOST_NUMBERS = 20_000_000
"""And one to which more numbers would be added than that, in all rows."""

LEVELS = 200
"""Quantiles that are kept of a column."""

SPREAD = 0.3
"""The standard deviation of the frequencies, in cycles for each standard deviation of a column."""

FREQUENCIES = 2 * np.pi * SPREAD * ndtri(0.5 + (np.arange(4) + 0.5) / 8)
"""Radians: the quantiles of half a normal distribution."""

FURTHEST = 1e-3
"""Scores are those of probabilities no nearer to 0 and 1."""


class Bends(NamedTuple):
    """Beside the numbers of a row: the normal score of each, by its rank among the rows that this
    was fitted on, and sines and cosines of the scores.

    Ranks make a network indifferent to the scale and to outliers, and waves let it fit what changes
    quickly: with numbers alone it learns smooth functions first (Gorishniy, Rubachev and Babenko
    2022, "On embeddings for numerical features in tabular deep learning").
    """

    columns: Int[np.ndarray, " bent"]
    """Which numbers are bent."""
    quantiles: Float[np.ndarray, "levels bent"]
    frequencies: Float[np.ndarray, " waves"]

    def __call__(self, numbers: Float[np.ndarray, "rows width"]) -> Float[np.ndarray, "rows more"]:
        """The numbers, and what is added."""
        if not len(self.columns):
            return numbers
        scores = np.stack(
            [
                _scores(numbers[:, c], q)
                for c, q in zip(self.columns, self.quantiles.T, strict=True)
            ],
            axis=1,
        )
        angles = scores[:, :, None] * self.frequencies
        waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=2)
        return np.concatenate([numbers, scores, waves.reshape(len(numbers), -1)], axis=1)


NONE = Bends(np.zeros(0, np.int64), np.zeros((LEVELS, 0)), FREQUENCIES)
"""Numbers as they are."""


def added(columns: int, frequencies: int = len(FREQUENCIES)) -> int:
    """How many numbers are added for so many columns."""
    return columns * (1 + 2 * frequencies)


def bent(numbers: Float[np.ndarray, "rows width"], columns: Sequence[int]) -> Bends:
    """Fitted on these rows."""
    chosen = np.asarray(columns, np.int64)
    quantiles = np.quantile(numbers[:, chosen], np.linspace(0, 1, LEVELS), axis=0)
    return Bends(chosen, quantiles, FREQUENCIES)


def _scores(x: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """The normal scores of numbers; of equal quantiles the middle one counts."""
    levels = np.linspace(0, 1, len(quantiles))
    below = np.interp(x, quantiles, levels)
    above = -np.interp(-x, -quantiles[::-1], -levels[::-1])
    return ndtri(np.clip((below + above) / 2, FURTHEST, 1 - FURTHEST))

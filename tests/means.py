"""Estimates that are right on average."""

import jax
import numpy as np

ERRORS = 4
"""How many standard errors a mean may be off: chance alone exceeds that once in 16,000."""


def assert_mean(estimates, wanted, *, within=0.1):
    """The mean over the first axis is what is wanted, and is known to within that share of it: what
    is wrong by more would be noticed."""
    for found, right in zip(jax.tree.leaves(estimates), jax.tree.leaves(wanted), strict=True):
        error = np.std(found, axis=0) / np.sqrt(len(found))
        assert ERRORS * np.linalg.norm(error) <= within * np.linalg.norm(right)
        np.testing.assert_array_less(np.abs(np.mean(found, axis=0) - right), ERRORS * error)

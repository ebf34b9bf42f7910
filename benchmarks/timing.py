"""Interleaved timing: noise of a shared machine falls on all candidates alike."""

from collections.abc import Callable

import jax

from experiments.franceschi2017.modes import medians as interleaved


def medians(candidates: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each candidate: medians of `repeats` rounds, in each of which all run once.

    Each is run once beforehand, so that compilation stays out.
    """
    for run in candidates.values():
        jax.block_until_ready(run())
    return interleaved(candidates, repeats)

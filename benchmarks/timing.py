"""Interleaved timing: noise of a shared machine falls on all candidates alike."""

import time
from collections.abc import Callable

import jax
import numpy as np


def medians(candidates: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Seconds of each candidate: medians of `repeats` rounds, in each of which all run once.

    Each is run once beforehand, so that compilation stays out.
    """
    for run in candidates.values():
        jax.block_until_ready(run())
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            begin = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - begin)
    return {name: float(np.median(values)) for name, values in seconds.items()}

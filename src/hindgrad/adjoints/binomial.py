"""The binomial checkpointing schedule of Griewank & Walther 2000 (Algorithm 799, "revolve")."""

from functools import lru_cache
from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import Int


class Schedule(NamedTuple):
    """Which states are kept on the way forward, and how each one is recalled on the way back.

    Slot number `slots` is the working state: written whenever nothing is kept, and last by the
    state before the last step.
    """

    kept: Int[np.ndarray, " steps"]
    """The slot that takes the state before step k on the way forward."""
    source: Int[np.ndarray, " steps"]
    """The slot from which the state before step k is recalled."""
    source_step: Int[np.ndarray, " steps"]
    """The step before which that slot's state stood."""
    first: Int[np.ndarray, " steps"]
    """The number of replays made when step k's turn comes: steps k = steps − 1, …, 0."""
    written: Int[np.ndarray, " replays"]
    """The slot that takes the state after each replayed step."""


def replays(steps: int, slots: int) -> int:
    """The fewest steps that must be run again to go back through `steps` steps with `slots`
    snapshots, the initial state's included (Griewank & Walther 2000, Prop. 1).

    They count the steps of the first sweep as well: r·T − C(s + r, s + 1), r the smallest number
    with C(s + r, s) ≥ T. Here those T − 1 are left out, being the training itself.
    """
    if steps <= 1:
        return 0
    r = _repetitions(steps, slots)
    return r * steps - comb(slots + r, slots + 1) - (steps - 1)


def _repetitions(steps, slots):
    r = 0
    while comb(slots + r, slots) < steps:
        r += 1
    return r


def split(steps: int, slots: int) -> int:
    """Where the next snapshot goes, counted from the last one, which is one of `slots`."""
    r = _repetitions(steps, slots)
    left = comb(slots + r - 2, slots) if r >= 2 else 0
    return max(1, left, steps - comb(slots - 1 + r, slots - 1))


@lru_cache(maxsize=64)
def schedule(steps: int, slots: int) -> Schedule:
    """The optimal schedule for `steps` steps and `slots` snapshots."""
    kept = np.full(steps, slots, np.int32)
    kept[0] = 0
    snapshots = [(0, 0)]  # (step, slot), the latest last
    for step in _snapshots(0, steps - 1, slots):
        kept[step] = len(snapshots)
        snapshots.append((step, len(snapshots)))
    source, source_step, first = (np.zeros(steps, np.int32) for _ in range(3))
    source[-1], source_step[-1] = kept[-1], steps - 1
    written: list[int] = []
    for k in range(steps - 2, -1, -1):
        while snapshots[-1][0] > k:
            snapshots.pop()
        begin, source[k] = snapshots[-1]
        source_step[k], first[k] = begin, len(written)
        written.extend([slots] * (k - begin))
        for step in _snapshots(begin, k, slots - len(snapshots) + 1):
            written[first[k] + step - begin - 1] = len(snapshots)
            snapshots.append((step, len(snapshots)))
    return Schedule(kept, source, source_step, first, np.asarray(written, np.int32))


def _snapshots(begin, end, slots):
    """Where to put snapshots between a snapshot at `begin`, one of `slots`, and the state
    before step `end`, the next to be recalled."""
    places = []
    while end > begin and slots > 1:
        begin += split(end + 1 - begin, slots)
        slots -= 1
        if begin < end:
            places.append(begin)
    return places

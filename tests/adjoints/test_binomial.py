"""The checkpointing schedule against dynamic programming, and carried out step by step."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hindgrad.adjoints import binomial


@functools.cache
def fewest(steps, slots):
    """By dynamic programming: the fewest forward steps to reverse `steps` steps, when the state
    before the first is kept in one of `slots` slots."""
    if steps <= 1:
        return 0
    if slots == 1:
        return steps * (steps - 1) // 2
    return min(m + fewest(m, slots) + fewest(steps - m, slots - 1) for m in range(1, steps))


def test_optimal():
    for steps in range(1, 60):
        for slots in range(1, 8):
            assert binomial.replays(steps, slots) == max(fewest(steps, slots) - (steps - 1), 0)


def carry_out(steps, slots):
    """Runs a schedule on states that are step numbers; returns the replayed steps in order."""
    schedule = binomial.schedule(steps, slots)
    memory = {}
    for k in range(steps):
        memory[int(schedule.kept[k])] = k
    replayed = []
    for k in range(steps - 1, -1, -1):
        state = memory[int(schedule.source[k])]
        assert state == schedule.source_step[k]
        for i in range(k - state):
            replayed.append(state)
            state += 1
            memory[int(schedule.written[schedule.first[k] + i])] = state
        assert state == k
    assert set(memory) <= set(range(slots + 1))
    return replayed


@settings(max_examples=200, deadline=None)
@given(steps=st.integers(1, 400), slots=st.integers(1, 30))
def test_schedule_recalls_every_state_at_the_optimum(steps, slots):
    assert len(carry_out(steps, slots)) == binomial.replays(steps, slots)


def test_golden():
    """Ten steps, three slots: which steps are run again, in which order."""
    assert carry_out(10, 3) == [7, 4, 5, 0, 1, 2]


@pytest.mark.parametrize(
    ("steps", "slots", "count"),
    [(1000, 1000, 0), (1000, 31, 1440), (1000, 10, 2637), (100_000, 100, 194_748)],
)
def test_golden_counts(steps, slots, count):
    assert binomial.replays(steps, slots) == count

"""The order of the segments: every one gone back through once, from a position that is there."""

import pytest

from hindgrad.adjoints import binomial
from hindgrad.segments.order import Back, Forward, Order


def walked(order):
    """The way forward and back, checked; how many segments were run again, and the most positions
    kept at a time."""
    kept = {0}
    for expected, action in enumerate(order.forward(0)):
        assert action.segment == expected
        if action.is_kept:
            kept.add(action.segment + 1)
    kept.discard(order.segments)  # the end is no start of a segment
    at, replayed, most, passed = None, 0, len(kept), []
    last = order.segments - 1  # the position before the last segment has just been seen
    kept.add(last)
    for action in order.back(order.segments, set(kept)):
        if isinstance(action, Forward):
            assert action.segment == at or action.segment in kept
            at, replayed = action.segment + 1, replayed + 1
            if action.is_kept:
                kept.add(at)
                most = max(most, len(kept))
        else:
            assert action.segment == at or action.segment in kept
            passed.append(action.segment)
            kept = {place for place in kept if place < action.segment}
            at = None
    assert passed == list(reversed(range(order.segments)))
    return replayed, most


@pytest.mark.parametrize("segments", [1, 2, 7, 20])
@pytest.mark.parametrize("slots", [1, 2, 3, 7, 20])
def test_the_fewest_replays(segments, slots):
    replayed, most = walked(Order(segments, slots))
    assert most <= slots
    assert replayed == binomial.replays(segments, min(slots, segments))
    assert Order(segments, None).cost(segments, set(range(segments))) == 0


def test_all_are_kept_without_slots():
    assert walked(Order(9, None)) == (0, 9)
    assert list(Order(2, None).back(2, {0, 1})) == [Back(1), Back(0)]


@pytest.mark.parametrize("kept", [{0}, {0, 3}, {0, 1, 2, 3}])
def test_from_what_a_killed_call_has_left(kept):
    actions = list(Order(8, 4).back(6, kept))
    assert [a.segment for a in actions if isinstance(a, Back)] == [5, 4, 3, 2, 1, 0]

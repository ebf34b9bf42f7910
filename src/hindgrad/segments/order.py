"""In which order a run is gone through in segments, forward and back."""

from collections.abc import Iterator, Set
from typing import NamedTuple

from hindgrad.adjoints import binomial


class Forward(NamedTuple):
    """Segment `segment` is run, and the position after it kept if `is_kept`."""

    segment: int
    is_kept: bool


class Back(NamedTuple):
    """Segment `segment` is gone back through."""

    segment: int


class Order(NamedTuple):
    """The order for so many segments with so many slots, each of which keeps the position before a
    segment; with None for all of them."""

    segments: int
    slots: int | None

    def forward(self, at: int) -> Iterator[Forward]:
        """The way forward from the kept position `at`."""
        places = range(self.segments + 1)
        if self.slots is not None:
            places = binomial.snapshots(self.segments, self.slots)
        return (Forward(s, s + 1 in places) for s in range(at, self.segments))

    def back(self, at: int, kept: Set[int]) -> Iterator[Forward | Back]:
        """The way back from the position `at`, with these positions kept before it, the first of
        all among them: the fewest segments run again (Griewank & Walther 2000)."""
        kept = {place for place in kept if place < at}
        for segment in reversed(range(at)):
            place = max(kept)
            if place < segment:
                slots = (self.segments if self.slots is None else self.slots) - len(kept) + 1
                steps = binomial.snapshots(segment + 1 - place, max(1, slots))
                new = {place + step for step in steps}
                yield from (Forward(s, s + 1 in new) for s in range(place, segment))
                kept |= new
            yield Back(segment)
            kept.discard(segment)

    def cost(self, at: int, kept: Set[int]) -> int:
        """How many segments are run again on that way back."""
        return sum(isinstance(action, Forward) for action in self.back(at, kept))

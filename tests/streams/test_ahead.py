"""Reading ahead: in the background, in both directions, within bounds."""

import threading

import jax
import numpy as np

from hindgrad.streams.ahead import Ahead
from hindgrad.streams.reader import Reader


class Numbers(Reader):
    """Each step gets its number; `reads` are the steps and the threads in which they were read."""

    def __init__(self):
        self.reads = []

    @property
    def spec(self):
        return jax.ShapeDtypeStruct((), np.int32), None

    def read(self, t):
        self.reads.append((t, threading.current_thread().name))
        return np.int32(t), None

    def check(self):
        pass

    def described(self):
        return []


def steps(reader):
    return [t for t, _ in reader.reads]


def used(ahead, firsts):
    """These blocks, each used when all that was begun before is read."""
    for first in firsts:
        ahead.block(first, 4, 12)
        settled(ahead)


def settled(ahead):
    """Once all that was begun is read."""
    for future in list(ahead._blocks.values()):
        future.result()


def test_the_next_block_is_read_in_the_background():
    reader = Numbers()
    ahead = Ahead(reader)
    block = ahead.block(0, 4, 12)
    assert block.data[0].tolist() == [0, 1, 2, 3]
    settled(ahead)
    assert steps(reader) == list(range(8))
    assert all(name.startswith("hindgrad-stream") for _, name in reader.reads)


def test_nothing_is_read_beyond_the_end():
    reader = Numbers()
    used(Ahead(reader), (0, 4, 8))
    assert steps(reader) == list(range(12))


def test_on_the_way_back_the_block_before_is_next():
    reader = Numbers()
    ahead = Ahead(reader)
    used(ahead, (0, 4, 8))
    reader.reads.clear()
    used(ahead, (8, 4, 0))  # the last two are still there
    assert steps(reader) == [0, 1, 2, 3]


def test_no_more_than_three_blocks_are_kept():
    ahead = Ahead(Numbers())
    for first in [*range(0, 80, 4), *range(76, -1, -4)]:
        ahead.block(first, 4, 80)
        assert len(ahead._blocks) <= 3


def test_a_step_comes_from_its_block():
    reader = Numbers()
    ahead = Ahead(reader)
    ahead.count = 5
    for t in (0, 4, 7, 12, 3):
        assert ahead.step(t)[0] == t

"""A run in exact arithmetic, piece by piece: nothing is replayed."""

import zlib
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from hindgrad import numerics
from hindgrad.adjoints.base import Piece, Pieces, PulledPiece
from hindgrad.adjoints.reversible import run
from hindgrad.adjoints.reversible.failure import NOT_UNDONE, text
from hindgrad.adjoints.reversible.plan import plan_for
from hindgrad.adjoints.scores import OneScore


class ExactPieces(Pieces):
    """Pieces whose positions are exact, and whose tapes hold the bits that the decays lost. The way
    back through each must lead to the position before it."""

    replays: ClassVar[bool] = False

    adjoint: Any
    total: int

    def begin(self, dynamics, state):
        plan = self._plan(dynamics, state)
        with numerics.wide():
            return run.begin(plan, state)

    def state(self, dynamics, like, position):
        plan = self._plan(dynamics, like)
        with numerics.wide():
            return plan.decode(position)

    def forward(self, dynamics: Any, like, position, *, keep):
        plan = self._plan(dynamics, like)
        with numerics.wide():
            end, tape, status = run.forward(plan, dynamics, position, keep=keep)
            # Positions and losses are kept beside the tape.
            kept = tape._replace(position=end.buffers, losses=None, begin=None) if keep else None
            end = end._replace(buffers=(), faults=())
            return Piece(end, tape.losses, kept, _numbers(status))

    def backward(self, dynamics: Any, wanted, like, ends, cotangents):
        _, (after, losses, tape, _) = ends
        plan = self._plan(dynamics, like)
        with numerics.wide():
            end = plan.emptied(after, keep=False)._replace(buffers=tape.position)
            tape = tape._replace(position=end, losses=losses)
            results, begin, status = run.undo(OneScore(), plan, dynamics, wanted, tape, cotangents)
            of_dynamics, of_state = results
            begin = begin._replace(buffers=(), faults=())
            return PulledPiece(of_dynamics, of_state, begin, _numbers(status))

    def marks(self, position):
        state = jax.tree.map(np.asarray, position.state)
        leaves = dict(leaf for group in range(len(state.arrays)) for leaf in state.split(group))
        return np.array([_checksum(leaves[i]) for i in range(len(leaves))], np.uint32)

    def fault(self, marks, position):
        (others,) = np.nonzero(marks != self.marks(position))
        return np.array([NOT_UNDONE, others[0], 0]) if others.size else None

    def describe(self, fault, first, leaves):
        return text(fault, first, leaves)

    def _plan(self, dynamics, like):
        return plan_for(self.adjoint, dynamics, like, self.total)


def _checksum(arrays):
    total = 0
    for array in arrays:
        total = zlib.crc32(array.tobytes(), total)
    return total


def _numbers(status):
    return jnp.stack([status.cause, status.leaf, status.step])

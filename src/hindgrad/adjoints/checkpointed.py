"""`Checkpointed`: some states kept, the others replayed."""

import jax
import jax.numpy as jnp
import numpy as np

from hindgrad import trees
from hindgrad.adjoints import binomial
from hindgrad.adjoints.base import Adjoint, Recall, Traits
from hindgrad.adjoints.stored import Stored


class Checkpointed(Adjoint):
    """Keeps `slots` states and replays the others from the nearest one before.

    Exact; the fewest replayed steps for its slots (Griewank & Walther 2000); memory: `slots`
    states and a working one. With no number given, as many slots as fit in `budget`; as long as
    all states fit, this is `Stored`.

    **Arguments:**

    - `slots`: how many states to keep, the initial one included (at least 1).
    - `budget`: bytes for the states of one run (under `vmap`, of each of the runs). Default 1 GiB.
    """

    traits = Traits(
        states="kept ones, or replayed from the nearest kept one",
        memory="`slots` states and one; as many as fit into `budget` (1 GiB) unless given",
        replays="none while all states fit, else the fewest possible",
        exact="yes",
        optimizers="any",
    )

    slots: int | None = None
    budget: int = 2**30

    def __check_init__(self):
        if self.slots is not None and self.slots < 1:
            raise ValueError(
                f"Checkpointed(slots={self.slots}): the initial state needs a slot, so at least 1."
            )
        if self.budget <= 0:
            raise ValueError(
                f"Checkpointed(budget={self.budget}): a number of bytes, above 0, is needed."
            )

    def slots_for(self, steps: int, state_bytes: int) -> int:
        """The number of slots used for a run of `steps` steps over a state of that size."""
        if self.slots is not None:
            return min(self.slots, steps)
        fitting = self.budget // max(state_bytes, 1)
        return steps if fitting >= steps else max(1, fitting - 1)  # one is the working state

    def replays(self, steps: int, state_bytes: int) -> int:
        """The number of steps run again on the way back, beyond the one of each pullback."""
        return binomial.replays(steps, self.slots_for(steps, state_bytes))

    def run(self, dynamics, state):
        slots = self.slots_for(dynamics.steps, trees.nbytes(state))
        adjoint = Stored() if slots >= dynamics.steps else Binomial(slots)
        return adjoint.run(dynamics, state)


class Binomial(Recall):
    """Checkpointing with a fixed number of slots, fewer than the steps."""

    slots: int

    def record(self, dynamics, state):
        schedule = binomial.schedule(dynamics.steps, self.slots)
        snapshots = jax.tree.map(lambda x: jnp.broadcast_to(x, (self.slots + 1, *x.shape)), state)

        def body(carry, xs):
            state, snapshots = carry
            k, slot = xs
            snapshots = _write(snapshots, state, slot)
            state, output = dynamics.step(state, k)
            return (state, snapshots), output

        ks = np.arange(dynamics.steps, dtype=np.int32)
        (final, snapshots), outputs = jax.lax.scan(body, (state, snapshots), (ks, schedule.kept))
        return final, outputs, snapshots

    def recall(self, dynamics, tape, k):
        schedule = jax.tree.map(jnp.asarray, binomial.schedule(dynamics.steps, self.slots))
        begin, first = schedule.source_step[k], schedule.first[k]

        def replay(i, carry):
            state, snapshots = carry
            state, _ = dynamics.step(state, begin + i)
            return state, _write(snapshots, state, schedule.written[first + i])

        state = jax.tree.map(lambda x: _read(x, schedule.source[k]), tape)
        return jax.lax.fori_loop(0, k - begin, replay, (state, tape))


def _read(snapshots, slot):
    return jax.lax.dynamic_index_in_dim(snapshots, slot, keepdims=False)


def _write(snapshots, state, slot):
    return jax.tree.map(
        lambda xs, x: jax.lax.dynamic_update_index_in_dim(xs, x, slot, 0), snapshots, state
    )

"""`Checkpointed`: some states kept, the others replayed."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from hindgrad import trees
from hindgrad.adjoints import binomial
from hindgrad.adjoints.base import Adjoint, Traits
from hindgrad.adjoints.recall import Recall, Replayed
from hindgrad.adjoints.stored import Stored
from hindgrad.arguments import whole, whole_or_none


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

    slots: int | None = eqx.field(default=None, converter=whole_or_none("Checkpointed", "slots"))
    budget: int = eqx.field(default=2**30, converter=whole("Checkpointed", "budget"))

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

    def pieces(self, total):
        del total
        return Replayed(self)


class Tape(eqx.Module):
    """The states kept."""

    states: PyTree
    """The latest last; behind the slots the state that was seen last on the way forward."""
    places: Int[Array, " places"]
    """Before which step each of them stood."""
    used: Int[Array, ""]
    """How many slots are in use."""


class Binomial(Recall):
    """Checkpointing with a fixed number of slots, fewer than the steps."""

    slots: int

    def differentiable(self):
        return Stored()

    def record(self, dynamics, state, wanted):
        del wanted
        first = binomial.snapshots(dynamics.steps, self.slots)
        places = first + [binomial.NOWHERE] * (self.slots + 1 - len(first))
        tape = Tape(
            jax.tree.map(lambda x: jnp.broadcast_to(x, (self.slots + 1, *x.shape)), state),
            jnp.asarray(places, jnp.int32),
            jnp.int32(0),
        )

        def body(carry, k):
            state, tape = carry
            tape = self._keep(tape, state, tape.places[tape.used] == k)
            state, output = dynamics.recorded(state, k)
            return (state, tape), output

        ks = jnp.arange(dynamics.steps, dtype=jnp.int32)
        (final, tape), outputs = jax.lax.scan(body, (state, tape), ks)
        return final, outputs, tape

    def recall(self, dynamics, tape, k):
        passed = tape.places[tape.used - 1] > k
        tape = Tape(tape.states, tape.places, tape.used - passed.astype(jnp.int32))
        place = tape.places[tape.used - 1]
        is_last_seen = (k == dynamics.steps - 1) & (place < k)
        source = jnp.where(is_last_seen, self.slots, tape.used - 1)
        begin = jnp.where(is_last_seen, k, place)
        state = jax.tree.map(lambda x: _read(x, source), tape.states)

        def follow(place, tape):
            return binomial.next_snapshot(place, k, self.slots - tape.used + 1)

        def replay(i, carry):
            state, tape, following = carry
            state, _ = dynamics.recorded(state, i)
            reached = i + 1 == following
            places = tape.places.at[tape.used].set(jnp.where(reached, i + 1, binomial.NOWHERE))
            tape = self._keep(Tape(tape.states, places, tape.used), state, reached)
            following = jax.lax.cond(reached, lambda: follow(i + 1, tape), lambda: following)
            return state, tape, following

        state, tape, _ = jax.lax.fori_loop(begin, k, replay, (state, tape, follow(begin, tape)))
        return state, tape

    def _keep(self, tape, state, is_kept):
        """The state in the next slot; where it is not to be kept, in the one behind them."""
        slot = jnp.where(is_kept, tape.used, self.slots)
        write = lambda xs, x: jax.lax.dynamic_update_index_in_dim(xs, x, slot, 0)
        states = jax.tree.map(write, tape.states, state)
        return Tape(states, tape.places, tape.used + is_kept.astype(jnp.int32))


def _read(states, slot):
    return jax.lax.dynamic_index_in_dim(states, slot, keepdims=False)

"""`Stored`: every state kept."""

import jax
import jax.numpy as jnp

from hindgrad.adjoints.base import Traits
from hindgrad.adjoints.recall import Recall


class Stored(Recall):
    """Keeps the state before every step, and no activations (Franceschi et al. 2017, Alg. 1).

    Exact; no step is replayed; memory: `steps` states.
    """

    traits = Traits(
        states="every state kept",
        memory="T states",
        replays="none",
        exact="yes",
        optimizers="any",
    )

    def record(self, dynamics, state):
        def body(state, k):
            after, output = dynamics.step(state, k)
            return after, (output, state)

        ks = jnp.arange(dynamics.steps, dtype=jnp.int32)
        final, (outputs, states) = jax.lax.scan(body, state, ks)
        return final, outputs, (states, final)

    def recall(self, dynamics, tape, k):
        del dynamics
        return jax.tree.map(lambda states: states[k], tape[0]), tape

    def after(self, tape, k):
        # What is not read of it is not computed either.
        choose = lambda states, final: jnp.where(k + 1 < len(states), states[k + 1], final)
        return jax.tree.map(choose, *tape)

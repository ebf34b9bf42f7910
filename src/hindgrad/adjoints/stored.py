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
        return final, outputs, states

    def recall(self, dynamics, tape, k):
        del dynamics
        return jax.tree.map(lambda states: states[k], tape), tape

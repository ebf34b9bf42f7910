"""`Stored`: every state kept."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from hindgrad.adjoints.activations import Linearized
from hindgrad.adjoints.base import Traits
from hindgrad.adjoints.recall import Recall
from hindgrad.arguments import whole


class Tape(eqx.Module):
    """What is kept of a run."""

    states: PyTree
    """Before each step."""
    final: PyTree
    activations: list[Array]
    """Of each step."""
    linearized: Linearized | None
    """The steps, if activations are kept."""


class Stored(Recall):
    """Keeps the state before every step (Franceschi et al. 2017, Alg. 1).

    Exact; no step is replayed; memory: `steps` states. Gradients are computed anew on the way back,
    unless their activations are kept too: then a hypergradient costs about three trainings in place
    of four.

    **Arguments:**

    - `activations`: bytes for the activations of all steps of one run. They are kept if they fit,
      and computed anew if not, or where the score sees what the steps put out (their losses).
      Default 0.
    """

    activations: int = eqx.field(
        default=0, kw_only=True, converter=whole("Stored", "activations", least=0)
    )

    traits = Traits(
        states="every state kept",
        memory="T states; activations too, if they fit into `activations` (0 bytes unless given)",
        replays="none",
        exact="yes",
        optimizers="any",
    )

    def differentiable(self):
        return Stored() if self.activations else self

    def record(self, dynamics, state, wanted):
        linearized = self._fitting(dynamics, state, wanted)

        def body(state, k):
            if linearized is None:
                after, output = dynamics.recorded(state, k)
                return after, (output, state, [])
            after, output, activations = linearized.forward(dynamics, state, k)
            return after, (output, state, activations)

        ks = jnp.arange(dynamics.steps, dtype=jnp.int32)
        final, (outputs, states, activations) = jax.lax.scan(body, state, ks)
        return final, outputs, Tape(states, final, activations, linearized)

    def _fitting(self, dynamics, state, wanted):
        """The steps taken apart, if their activations fit."""
        if not self.activations:
            return None
        linearized = Linearized.of(dynamics, wanted, state)
        fits = dynamics.steps * linearized.activation_bytes <= self.activations
        return linearized if fits else None

    def recall(self, dynamics, tape, k):
        del dynamics
        return jax.tree.map(lambda states: states[k], tape.states), tape

    def pullback(self, dynamics, wanted, tape, k, *, sees_outputs):
        state, tape = self.recall(dynamics, tape, k)
        # What is not read of the state after is not computed either.
        choose = lambda states, final: jnp.where(k + 1 < len(states), states[k + 1], final)
        after = jax.tree.map(choose, tape.states, tape.final)
        if tape.linearized is None or sees_outputs:
            return dynamics.pullback(wanted, state, k, after), tape
        activations = [x[k] for x in tape.activations]
        return tape.linearized.pullback(dynamics, state, k, after, activations), tape

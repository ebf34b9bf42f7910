"""`Truncated`: the derivative of the last steps only."""

import equinox as eqx
import jax
import jax.numpy as jnp

from hindgrad.adjoints.antithetic import Estimator
from hindgrad.adjoints.base import Adjoint, Restated, Traits, forward
from hindgrad.adjoints.checkpointed import Checkpointed
from hindgrad.arguments import whole


class Truncated(Adjoint):
    """Differentiates the last `steps` steps only, by another adjoint (Shaban et al. 2019).

    Biased: what acted before the window counts as constant. Hyperparameters get the share of the
    last `steps` steps; those that act only before (the early part of a schedule) get zero, and
    so do the outputs of the steps before. The initial state gets no derivative at all, so asking
    for one raises `ValueError`.

    **Arguments:**

    - `steps`: the window's length (at least 1).
    - `inner`: the adjoint used within it.
    """

    traits = Traits(
        states="the inner adjoint, over the last steps only",
        memory="that of the inner adjoint",
        replays="those of the inner adjoint",
        exact="no: steps before count as constant",
        optimizers="those of the inner adjoint",
    )

    steps: int = eqx.field(converter=whole("Truncated", "steps"))
    inner: Adjoint = Checkpointed()

    def __check_init__(self):
        if not isinstance(self.inner, Adjoint) or isinstance(self.inner, Estimator):
            raise TypeError(
                f"Truncated(inner={self.inner!r}): an adjoint of a run is needed, such as "
                "Stored(). (Evolution and PersistentEvolution compare scores of whole runs.)"
            )

    def hypergradient(self, run, hyper, carry=None):
        last = Restated(run=run, key=run.key, adjoint=lambda inner: Truncated(self.steps, inner))
        return self.inner.hypergradient(last, hyper, carry)

    def first_carry(self, run, hyper):
        return self.inner.first_carry(run, hyper)

    def run(self, dynamics, state):
        head = dynamics.steps - self.steps
        if head <= 0:
            return self.inner.run(dynamics, state)
        state = _refuse_gradient(state, self.steps, dynamics.steps)
        past, state = jax.tree.map(_constant, (dynamics.window(0, head), state))
        state, outputs = forward(past, state)
        final, last = self.inner.run(dynamics.window(head, self.steps), state)
        return final, jax.tree.map(lambda *parts: jnp.concatenate(parts), outputs, last)


def _constant(leaf):
    return jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf


@eqx.filter_custom_vjp
def _refuse_gradient(state, window, steps):
    del window, steps
    return state


@_refuse_gradient.def_fwd
def _refuse_gradient_forward(perturbed, state, window, steps):
    if any(jax.tree.leaves(perturbed)):
        raise ValueError(
            f"Truncated(steps={window}) was asked for the derivative with respect to the initial "
            f"state of a run of {steps} steps (initial weights, or hyperparameters that they "
            "depend on). It would be zero, since only the last steps are differentiated. Use "
            "Checkpointed() or Stored(), or put jax.lax.stop_gradient around the initial state."
        )
    return state, None


@_refuse_gradient.def_bwd
def _refuse_gradient_backward(residuals, cotangent, perturbed, state, window, steps):
    del residuals, cotangent, perturbed, window, steps
    return jax.tree.map(lambda _: None, eqx.filter(state, eqx.is_inexact_array))

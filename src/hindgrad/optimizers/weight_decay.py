"""Weight decay: part of the gradient, or of the step."""

import abc

import equinox as eqx
import jax
from jaxtyping import PyTree

from hindgrad.optimizers.base import Coefficient, check_number, spread


class WeightDecay(eqx.Module):
    """Pulls the parameters towards zero."""

    strength: eqx.AbstractVar[Coefficient]

    @abc.abstractmethod
    def gradient(self, grads: PyTree, params: PyTree, strength: PyTree) -> PyTree:
        """The gradient that the optimizer sees."""

    @abc.abstractmethod
    def shrink(self, params: PyTree, rate: PyTree, strength: PyTree) -> PyTree:
        """The parameters to which the optimizer's step is added."""


class Coupled(WeightDecay):
    """`g ← g + strength · θ`: the gradient of an L2 penalty strength/2 · ‖θ‖²."""

    strength: Coefficient

    def __check_init__(self):
        check_number("Coupled(strength)", self.strength, 0.0, float("inf"))

    def gradient(self, grads, params, strength):
        return jax.tree.map(lambda g, p, s: g + s * p, grads, params, strength)

    def shrink(self, params, rate, strength):
        del rate, strength
        return params


class Decoupled(WeightDecay):
    """`θ ← θ − rate · strength · θ`, beside the optimizer's step (Loshchilov & Hutter 2019)."""

    strength: Coefficient

    def __check_init__(self):
        check_number("Decoupled(strength)", self.strength, 0.0, float("inf"))

    def gradient(self, grads, params, strength):
        del params, strength
        return grads

    def shrink(self, params, rate, strength):
        return jax.tree.map(lambda p, a, s: p - a * s * p, params, rate, strength)


def apply_weight_decay(
    weight_decay: WeightDecay | None, grads: PyTree, params: PyTree, rate: PyTree, coefficients
) -> tuple[PyTree, PyTree]:
    """The gradient with weight decay, and the parameters that the step is added to."""
    if weight_decay is None:
        return grads, params
    strength = spread("weight_decay", coefficients["weight_decay"], params)
    return (
        weight_decay.gradient(grads, params, strength),
        weight_decay.shrink(params, rate, strength),
    )

"""Weight decay: part of the gradient, or of the step."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from hindgrad.optimizers.base import Coefficient, check_number, spread
from hindgrad.optimizers.moves import Lose, State


class WeightDecay(eqx.Module):
    """Pulls the parameters towards zero."""

    strength: eqx.AbstractVar[Coefficient]

    @abc.abstractmethod
    def gradients(
        self, params: PyTree, coefficients: PyTree
    ) -> list[Callable[[State, PyTree], PyTree]]:
        """What is added to the gradient that the optimizer sees."""

    @abc.abstractmethod
    def shrinking(self, params: PyTree, coefficients: PyTree) -> dict[str, PyTree]:
        """The decay of the parameters, before the optimizer's step is added."""


class Coupled(WeightDecay):
    """`g ← g + strength · θ`: the gradient of an L2 penalty strength/2 · ‖θ‖²."""

    strength: Coefficient

    def __check_init__(self):
        check_number("Coupled(strength)", self.strength, 0.0, float("inf"))

    def gradients(self, params, coefficients):
        strength = spread("weight_decay", coefficients["weight_decay"], params)
        return [lambda state, _: jax.tree.map(jnp.multiply, strength, state.params)]

    def shrinking(self, params, coefficients):
        del params, coefficients
        return {}


class Decoupled(WeightDecay):
    """`θ ← θ − rate · strength · θ`, beside the optimizer's step (Loshchilov & Hutter 2019)."""

    strength: Coefficient

    def __check_init__(self):
        check_number("Decoupled(strength)", self.strength, 0.0, float("inf"))

    def gradients(self, params, coefficients):
        del params, coefficients
        return []

    def shrinking(self, params, coefficients):
        rate = spread("rate", coefficients["rate"], params)
        strength = spread("weight_decay", coefficients["weight_decay"], params)
        return {"weight_decay": jax.tree.map(lambda a, s: Lose(a * s), rate, strength)}


def shrinking(
    weight_decay: WeightDecay | None, params: PyTree, coefficients: PyTree
) -> dict[str, PyTree]:
    """The decays that weight decay adds to an optimizer's own."""
    return {} if weight_decay is None else weight_decay.shrinking(params, coefficients)

"""Weight decay: part of the gradient, or of the step."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import PyTree

from hindgrad.optimizers.base import Coefficient, as_prefix, check_number, spread, times
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
        strength = as_prefix("weight_decay", coefficients["weight_decay"], params)
        return [lambda state, _: times(strength, state.params)]

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
        given = [coefficients[name] for name in ("rate", "weight_decay")]
        alike = jax.tree.structure(given[0]) == jax.tree.structure(given[1])
        each = as_prefix if alike else spread
        rate = each("rate", given[0], params)
        strength = each("weight_decay", given[1], params)
        return {"weight_decay": jax.tree.map(lambda a, s: Lose(a * s), rate, strength)}


def shrinking(
    weight_decay: WeightDecay | None, params: PyTree, coefficients: PyTree
) -> dict[str, PyTree]:
    """The decays that weight decay adds to an optimizer's own."""
    return {} if weight_decay is None else weight_decay.shrinking(params, coefficients)

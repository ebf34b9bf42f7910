"""What is tuned, and how its hypergradients are taken."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from hindgrad import programs, trees
from hindgrad.adjoints import Adjoint
from hindgrad.adjoints.antithetic import Estimator
from hindgrad.adjoints.base import Hypergradient
from hindgrad.arguments import as_key
from hindgrad.objective import Objective
from hindgrad.training import as_adjoint


class Target(eqx.Module):
    """A function to be lowered, with its hypergradient."""

    function: eqx.AbstractVar[Any]

    @property
    @abc.abstractmethod
    def is_smoothed(self) -> bool:
        """Whether hypergradients are estimates for a smoothed objective. An outer step's value may
        then come from several runs: the answer's is that of a run of its own."""

    def value(self, hyper: PyTree, key: PRNGKeyArray | None) -> Float[Array, ""]:
        """The function alone."""
        return self.function(hyper, *(() if key is None else (key,)))

    @abc.abstractmethod
    def hypergradient(
        self, hyper: PyTree, key: PRNGKeyArray | None, carry: PyTree
    ) -> Hypergradient:
        """By the floats in `hyper`."""

    @abc.abstractmethod
    def first_carry(self, hyper: PyTree, key: PRNGKeyArray | None) -> PyTree:
        """What the first hypergradient is given."""


class OfFunction(Target):
    """Any function that `jax.grad` can differentiate."""

    function: Callable[..., Any]

    @property
    def is_smoothed(self):
        return False

    def hypergradient(self, hyper, key, carry):
        del carry
        value = lambda hyper: self.value(hyper, key)
        return Hypergradient(*eqx.filter_value_and_grad(value)(hyper))

    def first_carry(self, hyper, key):
        del hyper, key


class OfObjective(Target):
    """An `Objective`, differentiated by an adjoint."""

    function: Objective
    adjoint: Adjoint

    @property
    def is_smoothed(self):
        return isinstance(self.adjoint, Estimator)

    def hypergradient(self, hyper, key, carry):
        return self.function.hypergradient(hyper, key, adjoint=self.adjoint, carry=carry)

    def first_carry(self, hyper, key):
        run = self.function.scored(as_key("Objective", 0 if key is None else key))
        return self.adjoint.first_carry(run, trees.as_hyper(hyper))


def as_target(caller: str, objective: Callable[..., Any], adjoint: Adjoint | None) -> Target:
    """What `caller` was asked to lower.

    Raises `TypeError` if a function is given an adjoint.
    """
    checked = as_adjoint(adjoint)
    if isinstance(objective, Objective):
        return OfObjective(objective, checked)
    if adjoint is not None:
        raise TypeError(
            f"{caller}(adjoint=…) needs an Objective; a function chooses its runs' adjoint itself."
        )
    return OfFunction(objective)


@programs.compiled
def value_of(target: Target, hyper: PyTree, fixed: PyTree, key: PRNGKeyArray | None):
    """The value at the floats `hyper` and what is not tuned."""
    return target.value(eqx.combine(hyper, fixed), key)


@programs.compiled
def found_at(
    target: Target, hyper: PyTree, fixed: PyTree, key: PRNGKeyArray | None, carry: PyTree
) -> tuple[Hypergradient, Float[Array, ""]]:
    """The hypergradient at the floats `hyper`, and its norm."""
    found = target.hypergradient(eqx.combine(hyper, fixed), key, carry)
    return found, trees.norm(found.gradient)


@programs.compiled
def first_carry(target: Target, hyper: PyTree, fixed: PyTree, key: PRNGKeyArray | None) -> PyTree:
    """What the first hypergradient is given."""
    return target.first_carry(eqx.combine(hyper, fixed), key)

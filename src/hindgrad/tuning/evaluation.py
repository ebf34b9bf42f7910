"""The objective of a tuning, evaluated: by which adjoint, and with what is handed on."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from hindgrad import programs, trees
from hindgrad.adjoints import Adjoint, Evolution, PersistentEvolution
from hindgrad.adjoints.failure import reporting
from hindgrad.objective import Objective


class Evaluated(eqx.Module):
    """An objective, with the adjoint to differentiate it by."""

    objective: Callable[..., Any]
    adjoint: Adjoint | None

    def __call__(self, hyper, key, status, handed):
        args = () if key is None else (key,)
        if self.adjoint is None:
            return self.objective(hyper, *args)
        adjoint = reporting(self.adjoint.guessing(handed), status)
        return self._objective(hyper, *args, adjoint=adjoint)

    @property
    def is_smoothed(self) -> bool:
        """Whether hypergradients are estimates for a smoothed objective. An outer step's value may
        then come from several runs: the answer's is that of a run of its own."""
        return isinstance(self.adjoint, (Evolution, PersistentEvolution))

    @property
    def _objective(self) -> Objective:
        if not isinstance(self.objective, Objective):
            raise TypeError(
                "tune(adjoint=…) needs an Objective; a function chooses its runs' adjoint itself."
            )
        return self.objective

    def first_guess(self, hyper, key):
        """What the adjoint hands on, to begin with."""
        if self.adjoint is None:
            return None
        key = jax.random.key(0) if key is None else key
        return self.adjoint.first_guess(self._objective.scored(key), trees.as_hyper(hyper))

    def describe(self, status) -> str:
        """Why an adjoint failed."""
        return "" if self.adjoint is None else self.adjoint.describe(status)


class Found(NamedTuple):
    """What an outer step finds: a hypergradient, its norm, and what the adjoint tells."""

    value: Any
    grads: PyTree
    norm: Any
    status: Any
    handed: PyTree


def _call(objective, hyper, fixed, key, status, handed):
    return objective(eqx.combine(hyper, fixed), key, status, handed)


@programs.compiled
def value_of(objective, hyper, fixed, key):
    """The objective alone."""
    return _call(objective, hyper, fixed, key, jnp.zeros(3), None)


@programs.compiled
def value_and_hypergradient(objective, hyper, fixed, key, handed):
    """The objective and its hypergradient, with respect to the floats `hyper`."""
    value = lambda inputs: _call(objective, inputs[0], fixed, key, *inputs[1:])
    value, (grads, status, handed) = eqx.filter_value_and_grad(value)((hyper, jnp.zeros(3), handed))
    return Found(value, grads, trees.norm(grads), status, handed)

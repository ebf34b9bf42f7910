"""An optimizer as one run uses it."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array, Int, PyTree

from hindgrad import trees
from hindgrad.optimizers.base import Optimizer
from hindgrad.optimizers.moves import MovingOptimizer


class ClosedOptimizer(eqx.Module):
    """An optimizer, with what its functions close over made part of the pytree: cotangents reach
    that too."""

    coefficients: Callable[[PyTree, Int[Array, ""]], PyTree]
    """What it takes from the hyperparameters at step t, `(hyper, t)`."""
    move: Callable[..., PyTree]
    """The point where the gradient is taken, from (params, memory, coefficients)."""
    update: Callable[..., tuple[PyTree, PyTree]]
    """The (params, memory) after, from (gradient, memory, params, coefficients)."""
    moving: MovingOptimizer | None
    """The optimizer itself, if its step can be written as moves."""
    fault: str | None = eqx.field(static=True)
    """What is said if its derivative is not finite; None if it always is."""
    gradient_is_constant: bool = eqx.field(static=True)

    @staticmethod
    def of(
        optimizer: Optimizer, hyper: PyTree, start: Int[Array, ""], state: tuple[PyTree, PyTree]
    ) -> "ClosedOptimizer":
        """For a run from that state; `hyper` and `state` may be structs."""
        params, memory = state
        coefficients: Any = eqx.filter_eval_shape(optimizer.coefficients, hyper, start)
        return ClosedOptimizer(
            coefficients=trees.close(optimizer.coefficients, hyper, start),
            move=trees.close(optimizer.move, params, memory, coefficients),
            update=trees.close(optimizer.update, params, memory, params, coefficients),
            moving=optimizer if isinstance(optimizer, MovingOptimizer) else None,
            fault=optimizer.fault(optimizer.coefficients(hyper, start)),
            gradient_is_constant=optimizer.gradient_is_constant,
        )

"""An optimizer as one run uses it."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from hindgrad import errors, trees
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
    update_to: Callable[..., tuple[PyTree, PyTree]] | None
    """`update` whose result is known, the last argument: only its derivative is computed. None if
    the optimizer can't say what of it that needs."""
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
            update_to=_update_to(optimizer, (params, memory), coefficients),
            moving=optimizer if isinstance(optimizer, MovingOptimizer) else None,
            fault=optimizer.fault(optimizer.coefficients(hyper, start)),
            gradient_is_constant=optimizer.gradient_is_constant,
        )

    def watched_update(
        self, grads: PyTree, memory: PyTree, params: PyTree, coefficients: PyTree
    ) -> tuple[PyTree, PyTree]:
        """`update`, which raises if its derivative fails in forward mode."""
        given = (grads, memory, params, coefficients)
        if self.fault is None:
            return self.update(*given)
        return _watched(self.update, given, message=self.fault)


def _update_to(optimizer, state, coefficients):
    if not isinstance(optimizer, MovingOptimizer):
        return None
    if type(optimizer).update is not MovingOptimizer.update:
        return None  # it need not be what the moves make

    def update_to(grads, memory, params, coefficients, after):
        decays = optimizer.decays(params, coefficients)
        return optimizer.update_with(decays, grads, memory, params, coefficients, after)

    params, memory = state
    return trees.close(update_to, params, memory, params, coefficients, state)


@eqx.filter_custom_jvp
def _watched(update: Callable, given: PyTree, *, message: str) -> PyTree:
    """`update(*given)`, which raises if its derivative fails in forward mode."""
    del message
    return update(*given)


@_watched.def_jvp
def _watched_jvp(primals, tangents, *, message):
    def push(tangents):
        return eqx.filter_jvp(lambda update, given: update(*given), primals, tangents)

    after, moved = push(tangents)
    # What is not finite makes NaN of zeros. (A check of the tangents themselves would not be
    # linear in them: it could not be transposed for second derivatives.)
    _, still = push(jax.tree.map(jnp.zeros_like, tangents))
    grads, _, params, _ = primals[1]
    fine = trees.finite((grads, params, after[0]))
    failed = fine & ~trees.finite(still)
    return after, errors.raise_if(moved, failed, jnp.int32(0), [message])

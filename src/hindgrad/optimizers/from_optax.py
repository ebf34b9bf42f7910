"""Any optax transformation as an optimizer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from hindgrad.optimizers.base import Optimizer


class FromOptax(Optimizer):
    """See `from_optax`."""

    make: Callable[[PyTree], optax.GradientTransformation]

    def coefficients(self, hyper, t):
        del t
        return hyper

    def init(self, params, coefficients):
        return self.make(coefficients).init(params)

    def move(self, params, memory, coefficients):
        del memory, coefficients
        return params

    def update(self, grads, memory, params, coefficients):
        updates, memory = self.make(coefficients).update(grads, memory, params)
        return optax.apply_updates(params, updates), memory

    @property
    def fault(self):
        return _nan_at_zero_gradient

    @property
    def fault_message(self):
        return (
            "The derivative of the optax update is NaN at a coordinate whose gradient is exactly "
            "zero (a dead unit, a constant input): it takes the root of a second moment that is "
            "0. Pass eps_root to the optax optimizer, for instance optax.adam(…, eps_root=1e-12), "
            "or use hg.Adam, whose derivative exists there."
        )


def from_optax(make: Callable[[PyTree], optax.GradientTransformation]) -> FromOptax:
    """An optimizer from a function of the hyperparameters to an optax transformation.

        hg.from_optax(lambda hyper: optax.adamw(hyper["rate"], weight_decay=hyper["decay"]))

    Works with every adjoint that does not run training backwards. If the update's derivative
    becomes NaN at a coordinate whose gradient is exactly zero (about one optax optimizer in
    three), the backward pass raises `RuntimeError`, which names the cause and the cure.
    """
    if isinstance(make, optax.GradientTransformation):
        raise TypeError(
            "from_optax was given an optax transformation. Give it a function of the "
            "hyperparameters that returns one: from_optax(lambda hyper: optax.adam(hyper['rate']))."
        )
    return FromOptax(make)


def _nan_at_zero_gradient(grads: PyTree, cotangent: PyTree) -> Int[Array, ""]:
    """1 if the cotangent is NaN at zero gradients and nowhere else (if it is NaN elsewhere too,
    the run itself has diverged)."""
    nan_at_zero, nan_elsewhere = jnp.bool_(False), jnp.bool_(False)
    for g, c in zip(jax.tree.leaves(grads), jax.tree.leaves(cotangent), strict=True):
        nan = jnp.isnan(c)
        nan_at_zero |= jnp.any(nan & (g == 0))
        nan_elsewhere |= jnp.any(nan & (g != 0))
    return (nan_at_zero & ~nan_elsewhere).astype(jnp.int32)

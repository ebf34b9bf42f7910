"""Keeping coefficients (rates, decays) within their range while hyperparameters change."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from hindgrad import programs
from hindgrad.optimizers import Optimizer

HALVINGS = 12
"""A leaf's change is halved at most so many times; then the leaf stays as it is."""


def within_range(
    optimizer: Optimizer,
    old: PyTree,
    new: PyTree,
    whole: Callable[[PyTree], PyTree],
    t: Int[Array, ""],
    steps: int,
) -> PyTree:
    """`new`, with the change from `old` halved, leaf by leaf, as often as it takes for the
    coefficients of the `steps` steps from `t` on to be within their range."""
    if not optimizer.ranges:
        return new
    are_valid = lambda hyper: jnp.all(jnp.stack(_valid(optimizer, whole(hyper), t, steps)))
    olds, structure = jax.tree.flatten(old)
    news = list(jax.tree.leaves(new))
    for i, (a, b) in enumerate(zip(olds, news, strict=True)):

        def moved(share, a=a, b=b):
            return jnp.where(share == 1, b, a + share.astype(a.dtype) * (b - a))

        def is_out(carry, i=i, moved=moved):
            share, halvings = carry
            leaves = [*olds[:i], moved(share), *olds[i + 1 :]]
            return ~are_valid(jax.tree.unflatten(structure, leaves)) & (halvings < HALVINGS)

        halve = lambda carry: (carry[0] / 2, carry[1] + 1)
        share, halvings = jax.lax.while_loop(is_out, halve, (jnp.ones(()), jnp.int32(0)))
        news[i] = jnp.where(halvings == HALVINGS, a, moved(share))
    together = jax.tree.unflatten(structure, news)
    valid = are_valid(together)
    return jax.tree.map(lambda a, b: jnp.where(valid, b, a), old, together)


def out_of_range(optimizer: Optimizer, hyper: PyTree, t: int, steps: int) -> str:
    """Which coefficient is out of its range in the `steps` steps from `t` on, in words; empty if
    none is."""
    valid = programs.Compiled(_valid)(optimizer, hyper, jnp.int32(t), steps)
    for (name, (low, high)), is_valid in zip(optimizer.ranges.items(), valid, strict=True):
        if not is_valid:
            return f"a {name} outside of its range [{low:g}, {high:g})"
    return ""


def _valid(optimizer, hyper, t, steps) -> list[Bool[Array, ""]]:
    """Whether each coefficient that has a range is within it, at all steps."""

    def at(t):
        coefficients = optimizer.coefficients(hyper, t)
        return [
            jnp.all(jnp.stack([_inside(x, *bounds) for x in jax.tree.leaves(coefficients[name])]))
            if name in coefficients
            else jnp.bool_(True)
            for name, bounds in optimizer.ranges.items()
        ]

    # One step after the other: a coefficient may have a value for each element.
    each = jax.lax.map(at, t + jnp.arange(steps, dtype=jnp.int32))
    return [jnp.all(x) for x in each]


def _inside(x, low, high):
    return jnp.all((x >= low) & (x < high))

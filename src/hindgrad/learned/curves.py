"""Losses of held-out problems, step by step, with any optimizer."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from hindgrad import programs
from hindgrad.learned import flat, problems
from hindgrad.learned.base import LearnedOptimizer
from hindgrad.learned.problems import Family, Problems

COORDINATES = 2**18
"""How many coordinates are trained side by side; more are taken in turns."""


@programs.compiled
def learned_curves(
    optimizer: LearnedOptimizer,
    weights: PyTree,
    family: Family,
    key: PRNGKeyArray,
    *,
    count: int,
    steps: int,
) -> Float[Array, "problems {steps}+1"]:
    """The losses at θ_0 … θ_steps of the first `count` problems of a key."""

    def block(drawn):
        at = problems.begin(optimizer, drawn)
        step = optimizer.step
        return _curves(
            drawn, at.memory, lambda grads, memory, _: step(weights, grads, memory), steps
        )

    return _in_turns(block, family, key, count)


@programs.compiled
def optax_curves(
    optimizer: optax.GradientTransformation,
    family: Family,
    key: PRNGKeyArray,
    *,
    count: int,
    steps: int,
) -> Float[Array, "problems {steps}+1"]:
    """The same with an optax optimizer, for which every problem is one of its own."""

    def block(drawn):
        memory = jax.vmap(optimizer.init)(drawn.params)
        return _curves(drawn, memory, jax.vmap(optimizer.update), steps)

    return _in_turns(block, family, key, count)


@programs.compiled
def drawn_problems(
    family: Family, key: PRNGKeyArray, first: Int[Array, ""], *, count: int
) -> Problems:
    """`count` problems of a key, from the `first` on. Most of what compiles in the curves is the
    drawing: done here, it is done once for many optimizers."""
    return problems.draw(family, key, count, first)


@programs.compiled
def made_losses(
    make: Callable[..., optax.GradientTransformation],
    hyper: Sequence[Float[Array, ""]],
    drawn: Problems,
    *,
    at: tuple[int, ...],
) -> Float[Array, "problems at"]:
    """The losses at θ_t, for each t of the rising `at`, with the optimizer `make(*hyper)`;
    compiled once for all `hyper`."""
    optimizer = make(*hyper)
    memory = jax.vmap(optimizer.init)(drawn.params)
    curves = _curves(drawn, memory, jax.vmap(optimizer.update), at[-1])
    return curves[:, np.array(at)]


def _curves(drawn, memory, update, steps):
    def step(state, t):
        params, memory = state
        losses, grads = drawn.gradients(params, t)
        updates, memory = update(grads, memory, params)
        params = jax.tree.map(lambda p, u: p + u.astype(p.dtype), params, updates)
        return (params, memory), losses

    ts = jnp.arange(steps, dtype=jnp.int32)
    (params, _), losses = jax.lax.scan(step, (drawn.params, memory), ts)
    last = drawn.losses(params, jnp.int32(steps))
    return jnp.concatenate([losses, last[None]]).T


def _in_turns(block, family, key, count):
    """`block(problems)` for all of them, as many at a time as fit."""
    at_once = together(family, key, count)
    turns = -(-count // at_once)
    firsts = at_once * jnp.arange(turns, dtype=jnp.int32)
    curves = jax.lax.map(lambda i: block(problems.draw(family, key, at_once, i)), firsts)
    return curves.reshape(turns * at_once, -1)[:count]


def together(family: Family, key: PRNGKeyArray, count: int) -> int:
    """How many of `count` problems are trained side by side."""
    drawn = eqx.filter_eval_shape(problems.draw, family, key, 1)
    return max(1, min(count, COORDINATES // max(1, flat.size(drawn.params))))

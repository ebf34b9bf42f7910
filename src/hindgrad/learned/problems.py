"""Problems that an optimizer is learned on, drawn from a family, many side by side."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray, PyTree

from hindgrad import trees
from hindgrad.adjoints import Adjoint
from hindgrad.learned.base import LearnedOptimizer
from hindgrad.training import unroll

Loss = Callable[[PyTree, PRNGKeyArray], Float[Array, ""]]
"""`(params, key) -> loss`; the key is the step's own, for a minibatch or noise."""

Family = Callable[[PRNGKeyArray], tuple[PyTree, Loss]]
"""`key -> (params, loss)`: the problem of that key, where to start and what to lower."""


class Problems(eqx.Module):
    """Problems of a family side by side."""

    params: PyTree[Float[Array, "problems ..."]]
    """Where to start."""
    loss: Callable
    """The losses as one module: what differs between problems has an axis in front."""
    axes: PyTree
    keys: Key[Array, " problems"]

    def losses(self, params: PyTree, t: Array) -> Float[Array, " problems"]:
        """The loss of every problem at step t."""
        keys = jax.vmap(lambda key: jax.random.fold_in(key, t))(self.keys)
        call = lambda loss, params, key: loss(params, key)
        return eqx.filter_vmap(call, in_axes=(self.axes, 0, 0))(self.loss, params, keys)

    def gradients(self, params: PyTree, t: Array) -> tuple[Float[Array, " problems"], PyTree]:
        """The losses, and each one's gradient."""

        def total(params):
            losses = self.losses(params, t)
            return jnp.sum(losses), losses

        grads, losses = jax.grad(total, has_aux=True)(params)
        return losses, grads


def draw(family: Family, key: PRNGKeyArray, count: int, first: int | Array = 0) -> Problems:
    """`count` problems of a key, from the `first` on.

    Raises `ValueError` if the family gives no pair, params that are not floats, or a loss that is
    no scalar float or takes no key.
    """
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(first + jnp.arange(count))
    start = lambda key: trees.as_hyper(_problem(family, key)[0])
    params = eqx.filter_eval_shape(start, keys[0])
    _check(family, params, keys[0])

    def loss(key):
        return trees.close(_problem(family, key)[1], params, key)

    # What does not depend on the key, such as a data set, is there once for all problems.
    _, own = trees.dependence(lambda key: eqx.filter(loss(key), eqx.is_array), keys[0])
    axes = jax.tree.map(lambda own: 0 if own else None, own)
    losses = eqx.filter_vmap(loss, out_axes=axes)(keys)
    noise = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    return Problems(jax.vmap(start)(keys), losses, axes, noise)


def _problem(family, key):
    problem = family(jax.random.fold_in(key, 0))
    if not (isinstance(problem, tuple) and len(problem) == 2 and callable(problem[1])):
        raise ValueError(
            f"The family {family!r} gives {problem!r}; a pair (params, loss) is needed, of which "
            "loss is a function."
        )
    return problem


def _check(family, params, key):
    leaves = jax.tree.leaves(params)
    if not leaves or not all(map(_is_float, leaves)):
        raise ValueError(
            f"The family {family!r} starts from {_shapes(params)}; arrays of floats are needed, "
            "and nothing else. Keep other things in the loss."
        )

    def loss(params, key):
        loss = _problem(family, key)[1]
        if not _takes_two(loss):
            raise ValueError(
                f"The loss of the family {family!r} cannot be called as loss(params, key), with "
                "the step's own key for a minibatch or noise. Let it take both, and ignore the key "
                "if there is none."
            )
        return loss(params, key)

    value = eqx.filter_eval_shape(loss, params, key)
    if not _is_float(value) or value.shape != ():
        raise ValueError(
            f"The loss of the family {family!r} gives {_shapes(value)}; a scalar float array is "
            "needed."
        )


def _shapes(tree):
    return eqx.tree_pformat(tree, struct_as_array=True)


def _is_float(leaf):
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


def _takes_two(function):
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # a function that cannot be looked into
        return True
    return True


class Position(NamedTuple):
    """How far the problems are: parameters, the optimizer's memory, and the next step."""

    params: PyTree
    memory: PyTree
    t: Array


def begin(optimizer: LearnedOptimizer, problems: Problems) -> Position:
    """Before the first step."""
    return Position(problems.params, optimizer.begin(problems.params), jnp.int32(0))


def run(
    optimizer: LearnedOptimizer,
    weights: PyTree,
    problems: Problems,
    position: Position,
    steps: int,
    *,
    adjoint: Adjoint | None = None,
) -> tuple[Position, Float[Array, "steps problems"]]:
    """So many steps: where the problems are then, and their losses before each step,
    differentiable with respect to `weights` and `position`."""

    def step(state, inputs, k):
        weights, problems = inputs
        params, memory = state
        losses, grads = problems.gradients(params, position.t + k)
        if not optimizer.second_derivatives:
            losses, grads = _constant(losses, grads, params)
        updates, memory = optimizer.step(weights, grads, memory)
        params = jax.tree.map(lambda p, u: p + u.astype(p.dtype), params, updates)
        return (params, memory), losses

    state = (position.params, position.memory)
    (params, memory), losses = unroll(step, state, (weights, problems), steps, adjoint=adjoint)
    return Position(params, memory, position.t + steps), losses


def _constant(losses, grads, params) -> tuple[Any, Any]:
    """The gradients as constants, and the losses with these as their derivatives: no gradient is
    computed twice."""
    fixed = jax.lax.stop_gradient
    grads = fixed(grads)
    rise = jax.tree.map(
        lambda g, p: jnp.sum(g * (p - fixed(p)), axis=tuple(range(1, p.ndim))), grads, params
    )
    return fixed(losses) + sum(jax.tree.leaves(rise)), grads

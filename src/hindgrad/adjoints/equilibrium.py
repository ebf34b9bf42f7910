"""What holds where training ends: the system that `Implicit` differentiates."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
from optax.tree import norm

from hindgrad import trees
from hindgrad.adjoints.solvers import random_like
from hindgrad.dynamics import Dynamics
from hindgrad.gradient_training import GradientTraining


class Equilibrium(NamedTuple):
    """A system `f(unknowns, sources) = 0` that the end of a run solves.

    Of a training the unknowns are the parameters, and f is the gradient of the loss; with a model's
    state they are (params, its floats), and f is (the gradient, the floats − those after a step).
    Of any other step they are the state's floats, and f is the step less the state.
    """

    force: PyTree
    """f at the end; zero if it is an equilibrium."""
    matrix: Callable[[PyTree], PyTree]
    """The transpose of ∂f/∂unknowns, applied."""
    pull: Callable[[PyTree], PyTree]
    """The transpose of −∂f/∂sources, applied."""
    scale: Callable[[PyTree], PyTree]
    """From the unknowns' values to what f is large or small against."""
    parts: Callable[[PyTree], list[PyTree]] = lambda tree: [tree]
    """What of f, and of its scale, is compared by itself: numbers of one unit."""

    def restricted(self, mobile: PyTree) -> "Equilibrium":
        """The system of the elements that can move; the others are constants."""
        return self._replace(
            force=where(mobile, self.force),
            matrix=lambda u: jax.tree.map(jnp.where, mobile, self.matrix(where(mobile, u)), u),
            scale=lambda x: where(mobile, self.scale(where(mobile, x))),
        )

    def stationarity(self, start: PyTree, final: PyTree) -> Float[Array, ""]:
        """How far from equilibrium the end is: the force there, relative to what it would change by
        if the unknowns were moved by themselves, or by their initial values."""

        def ratio(force, *scales):
            force, scale = norm(force), jnp.maximum(*map(norm, scales))
            return jnp.where(force == 0, 0, force / jnp.where(scale == 0, 1, scale))

        compared = map(self.parts, (self.force, self.scale(start), self.scale(final)))
        return jnp.max(jnp.stack(list(map(ratio, *compared))))


def is_symmetric(dynamics: Dynamics, state: PyTree) -> bool:
    """Whether the system is that of the gradient alone."""
    return isinstance(dynamics, GradientTraining) and not _floats(state[2])


def unknowns(dynamics: Dynamics, state: PyTree) -> PyTree:
    """What the system determines, of a state."""
    if not isinstance(dynamics, GradientTraining):
        return eqx.filter(state, eqx.is_inexact_array)
    params, _, model = state
    return (params, eqx.filter(model, eqx.is_inexact_array)) if _floats(model) else params


def of(dynamics: Dynamics, wanted: PyTree, state: PyTree) -> Equilibrium:
    """The system that the end of the run solves."""
    if isinstance(dynamics, GradientTraining):
        return _of_gradient(dynamics, wanted, state)
    last = jnp.int32(dynamics.steps - 1)
    sources, rest = eqx.partition(dynamics, wanted)
    floats, fixed = eqx.partition(state, eqx.is_inexact_array)

    def step(floats, sources):
        after, _ = eqx.combine(sources, rest).step(eqx.combine(floats, fixed), last)
        return eqx.filter(after, eqx.is_inexact_array)

    after, pull = eqx.filter_vjp(step, floats, sources)
    minus = lambda a, b: jax.tree.map(jnp.subtract, a, b)
    matrix = lambda v: minus(v, pull(v)[0])
    return Equilibrium(minus(after, floats), matrix, lambda v: pull(v)[1], lambda floats: floats)


def _of_gradient(dynamics: Any, wanted: PyTree, state: PyTree) -> Equilibrium:
    params, _, model = state
    gradient = dynamics.gradient(wanted, (params, model), dynamics.start + dynamics.steps - 1)
    negative = lambda tree: jax.tree.map(jnp.negative, tree)
    if not _floats(model):
        matrix = lambda u: gradient.transpose(u, None)[0]
        pull = lambda u: negative(gradient.transpose(u, None)[1])
        return Equilibrium(gradient.values[0], matrix, pull, matrix)

    def transpose(u):
        of_params, of_floats = u
        d_params, d_sources, d_floats = gradient.transpose(of_params, None, negative(of_floats))
        return (d_params, jax.tree.map(jnp.add, d_floats, of_floats)), d_sources

    def scale(values):
        params, floats = values
        (curvature, _), _ = transpose((params, jax.tree.map(jnp.zeros_like, floats)))
        return curvature, floats

    before, after = (eqx.filter(m, eqx.is_inexact_array) for m in (model, gradient.model))
    force = gradient.values[0], jax.tree.map(jnp.subtract, before, after)
    matrix, pull = lambda u: transpose(u)[0], lambda u: negative(transpose(u)[1])
    return Equilibrium(force, matrix, pull, scale, list)


def mobile(dynamics: Dynamics, end: Equilibrium, start: PyTree, final: PyTree) -> PyTree:
    """Which of the unknowns' elements the run can move: all but those that the optimizer holds,
    whatever their gradient, those that a step moves by a constant (or not), and those that the
    system does not depend on."""
    first, last = unknowns(dynamics, start), unknowns(dynamics, final)
    responding = _responding(end, last)
    if not isinstance(dynamics, GradientTraining):
        return responding
    has_model = not is_symmetric(dynamics, final)
    of_params = (lambda tree: tree[0]) if has_model else (lambda tree: tree)
    params, memory, _ = final
    moved = jax.tree.map(
        lambda a, b, force, responds: (a != b) | (force != 0) | responds,
        *map(of_params, (first, last, end.force, responding)),
    )
    held = jax.tree.map(lambda p: jnp.ones_like(p, bool), params)
    for at in {0, dynamics.steps // 2, dynamics.steps - 1}:  # a schedule may begin or end at 0
        responds = _responds(dynamics, params, memory, of_params(end.force), at)
        held = jax.tree.map(lambda held, responds: held & ~responds, held, responds)
    moved = jax.tree.map(lambda moved, held: moved & ~held, moved, held)
    return (moved, responding[1]) if has_model else moved


def _responding(end: Equilibrium, like: PyTree) -> PyTree:
    """Where f changes if all unknowns and all sources do. Where it does not, f is a constant, and
    the value there at the end depends on nothing else; a sum of what the sources say is not so."""
    back = lambda u: (end.matrix(u), end.pull(u))
    along = random_like(jax.tree.map(jnp.asarray, back(like)))  # a zero may be NumPy's
    (change,) = jax.linear_transpose(back, like)(along)
    return jax.tree.map(lambda x: x != 0, change)


def _responds(dynamics, params, memory, grads, step):
    """Which parameters the optimizer moves otherwise if the gradient is another."""
    coefficients = dynamics.coefficients(dynamics.start + step)

    def after(grads):
        new = dynamics.optimizer.update(grads, memory, params, coefficients)
        return dynamics.optimizer.move(*new, coefficients)

    ones = jax.tree.map(jnp.ones_like, grads)
    _, tangent = jax.jvp(after, (grads,), (ones,))
    up, down = after(ones), after(jax.tree.map(jnp.negative, ones))  # steps by the sign alone
    return jax.tree.map(lambda t, a, b: (t != 0) | (a != b), tangent, up, down)


def moves(dynamics: Dynamics, state: PyTree, final: PyTree) -> Float[Array, ""] | Array:
    """Whether the optimizer changes parameters whose gradients are, and were, all zero."""
    if not isinstance(dynamics, GradientTraining):
        return jnp.bool_(False)
    params = final[0]
    # What training changed began as zeros, or as something like a count; a decay is among the rest.
    clear = lambda a, b: jnp.where(jnp.all(a == b), b, jnp.zeros_like(b))
    memory = jax.tree.map(clear, state[1], final[1])
    zeros = jax.tree.map(jnp.zeros_like, params)
    coefficients = dynamics.coefficients(dynamics.start + dynamics.steps - 1)
    after, _ = dynamics.optimizer.update(zeros, memory, params, coefficients)
    change = norm(jax.tree.map(jnp.subtract, after, params))
    return change > math.sqrt(trees.size(params)) * 1e-12 * (1 + norm(params))


def where(mobile: PyTree, tree: PyTree) -> PyTree:
    """The tree, with zeros where nothing moves."""
    return jax.tree.map(lambda m, x: jnp.where(m, x, 0), mobile, tree)


def _floats(tree):
    return jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))

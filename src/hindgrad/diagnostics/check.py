"""Is a hypergradient right? It is compared with finite differences."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact, PyTree

from hindgrad import programs, trees
from hindgrad.adjoints import Adjoint
from hindgrad.arguments import Key, Whole, as_key, as_keys, as_whole, floats_and_rest
from hindgrad.diagnostics.say import say

STEPS = np.geomspace(1e-1, 1e-4, 7)
"""Sizes of the finite differences, relative to each hyperparameter's own size."""
AGREES = 0.01
"""The relative difference up to which a hypergradient counts as right, beyond the error of the
finite difference itself."""
TOO_NOISY = 0.1
"""The relative error of a finite difference above which it says nothing."""


class Direction(NamedTuple):
    """The derivative along one random direction, twice."""

    hypergradient: float
    difference: float
    """By finite differences."""
    error: float
    """How far the finite difference itself is uncertain."""

    @property
    def verdict(self) -> str:
        """ "agrees", "disagrees" or "undecided"."""
        size = max(abs(self.hypergradient), abs(self.difference))
        apart = abs(self.hypergradient - self.difference)
        if not np.isfinite(apart):
            return "disagrees" if np.isfinite(self.difference) else "undecided"
        if apart <= AGREES * size + 3 * self.error:
            return "agrees" if self.error <= TOO_NOISY * size else "undecided"
        return "disagrees"


class Check(NamedTuple):
    """What `check` found."""

    directions: list[Direction]
    message: str

    @property
    def ok(self) -> bool:
        """Whether the hypergradient agrees in at least one direction and disagrees in none."""
        verdicts = [d.verdict for d in self.directions]
        return "agrees" in verdicts and "disagrees" not in verdicts


def check(
    objective: Callable[..., Any],
    hyper: PyTree,
    *,
    key: Key | None = None,
    adjoint: Adjoint | None = None,
    directions: Whole = 3,
    seed: Key = 0,
) -> Check:
    """Compares a hypergradient with finite differences in random directions; prints a verdict.

    Every direction changes all floating-point hyperparameters at once, each in proportion to its
    leaf's size. Central differences of seven sizes are taken and extrapolated; the size at which
    they change least is used, and that change is their error. In float32 they settle to about
    three digits: enough for a wrong formula, not for the last digits.

    **Arguments:**

    - `objective`: an `Objective`, or a function of `hyper` (of `(hyper, key)` if a key is given).
    - `hyper`: where to check.
    - `key`: the run's randomness, the same throughout.
    - `adjoint`: the adjoint to check, for an `Objective`.
    - `directions`: how many directions (no more than there are numbers to change); each costs 14
      runs.
    - `seed`: draws the directions.
    """
    directions = as_whole("check", "directions", directions)
    draw = as_key("check", seed, name="seed")
    args = as_keys("check", key)
    options = {} if adjoint is None else {"adjoint": adjoint}
    tuned, fixed = floats_and_rest("check", hyper)
    _, gradient = value_and_gradient(tuned, fixed, objective, args, options)
    value = lambda tuned: value_of(tuned, fixed, objective, args, options)
    found = []
    directions = min(directions, trees.size(tuned))
    for direction_key in jax.random.split(draw, directions):
        direction = _direction(tuned, direction_key)
        found.append(Direction(slope(gradient, direction), *_difference(value, tuned, direction)))
    result = Check(found, _describe(found))
    say(result.message)
    return result


def _call(tuned, fixed, objective, args, options):
    return objective(eqx.combine(tuned, fixed), *args, **options)


value_of = programs.compiled(_call)
"""The objective."""
value_and_gradient = programs.compiled(eqx.filter_value_and_grad(_call))
"""The objective, and its hypergradient with respect to the floats `tuned`."""


def slope(gradient: PyTree, direction: PyTree) -> float:
    """The derivative along a direction, which a gradient says; also by complex numbers, as JAX
    takes it."""
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    return float(sum(float(jnp.real(jnp.sum(g * d))) for g, d in pairs))


def _direction(tuned, key):
    leaves, structure = jax.tree.flatten(tuned)
    keys = jax.random.split(key, len(leaves))

    def draw(leaf: Inexact[Array, "..."], key):
        size = jnp.sqrt(jnp.mean(jnp.square(jnp.abs(leaf))))
        size = jnp.where(size > 0, size, 1).astype(leaf.dtype)
        return jax.random.normal(key, leaf.shape, leaf.dtype) * size

    return jax.tree.unflatten(structure, [draw(*pair) for pair in zip(leaves, keys, strict=True)])


def _difference(value, tuned, direction):
    """The derivative along a direction by extrapolated central differences, and its error."""

    def central(h):
        moved = lambda h: jax.tree.map(lambda x, d: x + h * d, tuned, direction)
        return (float(value(moved(h))) - float(value(moved(-h)))) / (2 * h)

    middle = value(tuned)
    rounding = float(jnp.finfo(middle.dtype).eps * jnp.abs(middle))
    slopes = np.array([central(float(h)) for h in STEPS])
    ratio = (STEPS[0] / STEPS[1]) ** 2
    extrapolated = (ratio * slopes[1:] - slopes[:-1]) / (ratio - 1)
    changes = np.nan_to_num(np.abs(np.diff(extrapolated)), nan=np.inf)
    best = int(np.argmin(changes))
    # Values that do not move, or all alike, may still move by less than their rounding.
    unseen = rounding / (2 * STEPS[0])
    return float(extrapolated[best + 1]), max(float(changes[best]), unseen)


def _describe(found):
    lines = [
        f"  along {i}: hypergradient {d.hypergradient: .6g}, finite difference "
        f"{d.difference: .6g} ± {d.error:.1g}: {d.verdict}"
        for i, d in enumerate(found, 1)
    ]
    verdicts = [d.verdict for d in found]
    if "disagrees" in verdicts:
        head = (
            "The hypergradient DISAGREES with finite differences. Either it is wrong (a "
            "stop_gradient, a custom derivative, an approximate adjoint, an integer or random "
            "choice that depends on the hyperparameters), or the objective is not smooth here."
        )
    elif "agrees" in verdicts:
        head = "The hypergradient agrees with finite differences."
    else:
        head = (
            "Undecided: the finite differences do not settle (rounding, or a chaotic run). Try "
            "float64, a shorter run or lower rates."
        )
    return "\n".join([head, *lines])

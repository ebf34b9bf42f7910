"""Schedules taken apart into what their numbers share, for tuning."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float

import hindgrad as hg
from hindgrad.apps.model import Hyper
from hindgrad.apps.table import Kind

Parts = dict[str, dict[str, Array]]
"""For each hyperparameter, parts whose sum it is."""

LEAST: dict[Kind, float] = {"classification": 3.0, "regression": 15.0}
TIMES = 5.0
"""A hypergradient of the log loss is a sign of chaotic training if its norm is beyond `LEAST`, and
beyond this multiple of what it is at the start. Ordinary ones are about .5 for classes, and .3 to
5 for quantities, whose loss can fall by orders; near the edge of chaos they grow to thousands, and
their direction means nothing."""


class Together(eqx.Module):
    """The hyperparameters of these parts.

    Every number of a schedule is the sum of what all numbers share, what its layer shares over
    the knots, what its knot shares over the layers, and its own. One hypergradient says little of
    a single number, but much of what many share: so that is learned faster, and with less noise,
    than the numbers would be one by one.

    A hypergradient beyond `limit` is made NaN, at which `hindgrad.tune` turns back.
    """

    limit: Float[ArrayLike, ""] = eqx.field(converter=jnp.float32, default=jnp.inf)

    def __call__(self, parts: Parts) -> Hyper:
        return together(_limited(parts, self.limit))


def of_parts(objective: hg.Objective, largest: float = math.inf) -> hg.Reparametrised:
    """The logarithm of an objective, as a function of parts of its hyperparameters."""
    return hg.Reparametrised(objective, before=Together(largest), after=jnp.log)


def limit(norm: float, kind: Kind) -> float:
    """From which norm on a hypergradient is refused, given that of the start."""
    return max(LEAST[kind], TIMES * norm)


@jax.custom_vjp
def _limited(parts: Parts, limit: Float[Array, ""]) -> Parts:
    del limit
    return parts


def _pull_limited(limit, cotangent):
    fine = optax.tree.norm(cotangent) <= limit
    return jax.tree.map(lambda c: jnp.where(fine, c, jnp.nan), cotangent), jnp.zeros_like(limit)


_limited.defvjp(lambda parts, limit: (parts, limit), _pull_limited)


def apart(hyper: Hyper) -> Parts:
    """Parts with this sum: to begin with, everything is the numbers' own."""
    parts = {}
    for name, value in hyper.items():
        parts[name] = {"all": jnp.zeros(()), "own": value}
        if value.ndim == 2:
            parts[name]["layer"] = jnp.zeros((1, value.shape[1]))
            parts[name]["knot"] = jnp.zeros((value.shape[0], 1))
    return parts


def together(parts: Parts) -> Hyper:
    """The sum of the parts."""
    return {name: jnp.asarray(sum(part.values())) for name, part in parts.items()}

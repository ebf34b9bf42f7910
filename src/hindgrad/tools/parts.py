"""Schedules taken apart into what their numbers share, for tuning."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

import hindgrad as hg
from hindgrad.tools.problem import Hyper

Parts = dict[str, dict[str, Array]]
"""For each hyperparameter, parts whose sum it is."""


LIMIT = 3.0
"""A hypergradient of the log loss beyond this norm tells of chaotic training. Ordinary ones are
about 0.5; near the edge of chaos they grow to thousands, and their direction means nothing."""


class Together(eqx.Module):
    """The logarithm of an objective, as a function of parts of its hyperparameters.

    Every number of a schedule is the sum of what all numbers share, what its layer shares over
    the knots, what its knot shares over the layers, and its own. One hypergradient says little of
    a single number, but much of what many share: so that is learned faster, and with less noise,
    than the numbers would be one by one.

    A hypergradient beyond `LIMIT` is made NaN, at which `hindgrad.tune` turns back.
    """

    objective: hg.Objective

    def __call__(self, parts: Parts, key: PRNGKeyArray) -> Float[Array, ""]:
        return jnp.log(self.objective(together(_limited(parts)), key))


@jax.custom_vjp
def _limited(parts: Parts) -> Parts:
    return parts


def _pull_limited(_, cotangent):
    norm = optax.tree.norm(cotangent)
    return (jax.tree.map(lambda c: jnp.where(norm <= LIMIT, c, jnp.nan), cotangent),)


_limited.defvjp(lambda parts: (parts, None), _pull_limited)


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

"""Problems in other units, so that a learned optimizer does not rely on those it was learned in."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from hindgrad.learned.problems import Family


class RandomlyScaled(eqx.Module):
    """The problems of a family with every coordinate in a unit of its own: loss(c · θ) from
    θ_0 / c, with c = exp(u), u uniform in [−spread, spread] (Lv, Jiang and Li 2017,
    section 4.2).

    Learn on it, and use what was learned on the family itself.

    **Arguments:**

    - `family`: the problems.
    - `spread`: the largest logarithm of a unit; in the authors' code 3 for perceptrons on MNIST
      and 1 for quadratics.
    """

    family: Family
    spread: float = 1.0

    def __call__(self, key: Any):
        params, loss = self.family(jax.random.fold_in(key, 0))
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))
        draw = lambda key, x: jnp.exp(
            jax.random.uniform(key, x.shape, minval=-self.spread, maxval=self.spread)
        ).astype(x.dtype)
        units = [draw(k, x) for k, x in zip(keys, leaves, strict=True)]
        units = jax.tree.unflatten(structure, units)
        start = jax.tree.map(lambda x, unit: x / unit, params, units)

        def scaled(params, key):
            return loss(jax.tree.map(lambda x, unit: x * unit, params, units), key)

        return start, scaled

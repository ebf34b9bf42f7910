"""Do the trained parameters change smoothly with the hyperparameters?"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from hindgrad import programs


@programs.compiled
def metasmoothness(first: PyTree, second: PyTree, third: PyTree) -> Float[Array, ""]:
    """The empirical metasmoothness of Engstrom et al. 2025 (arXiv 2503.13751), from the trained
    parameters A at z, z + hv and z + 2hv:

        sign(A(z + hv) − A(z))ᵀ diag(d ÷ |d|₁) sign(A(z + 2hv) − A(z + hv)), d = |A(z + 2hv) − A(z)|

    1 if every parameter goes on the way it began; about 0 if they go anywhere. NaN if a run is
    not finite.
    """
    signs, weights = jnp.zeros(()), jnp.zeros(())
    for a, b, c in zip(*map(jax.tree.leaves, (first, second, third)), strict=True):
        moved = jnp.abs(c - a)
        signs += jnp.sum(moved * jnp.sign(b - a) * jnp.sign(c - b))
        weights += jnp.sum(moved)
    return jnp.where(weights > 0, signs / jnp.where(weights > 0, weights, 1), 1.0) + 0 * weights

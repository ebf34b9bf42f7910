"""Division of whole numbers held in float64, the primitive under exact multiplication."""

import jax.numpy as jnp
from jaxtyping import Array, Float64

LARGEST = 2.0**52
"""Dividends lie within ± this."""


def divide(c: Float64[Array, "..."], n: Float64[Array, "..."]) -> tuple[Array, Array]:
    """⌊c / n⌋ and c mod n, exactly, for whole numbers |c| ≤ 2^52 and 1 ≤ n ≤ 2^28.

    Rounding moves the quotient by at most one, for it preserves order; a compiler that multiplies
    by the inverse instead moves it by at most one too. So one correction each way is enough.
    Float64 arithmetic, because integers of that size have no vector division, product or
    conversion on most processors.
    """
    q = jnp.floor(c / n)
    r = c - q * n
    q = jnp.where(r < 0, q - 1, jnp.where(r >= n, q + 1, q))
    return q, c - q * n

"""Decays as whole numbers of a tiny part of a bit, which add and subtract exactly."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64

from hindgrad import numerics

QUANTUM = 2.0**-50
"""The part of a bit that decays are counted in."""
SMALLEST = 2.0**-7
"""The smallest decay: its bits, and less than one more, still count exactly in float64."""


def bits_lost(kept: Float64[Array, "..."], lost: Float64[Array, "..."]) -> Float64[Array, "..."]:
    """How many bits a multiplication by a decay loses, log2(1 / decay), in quanta, rounded.

    The decay is given as what it keeps and what it loses, 1 − kept, so that one near 1 can be
    given to full relative precision. Rounding moves it by at most 4e-16.
    """
    kept, lost = numerics.apart(kept), numerics.apart(lost)
    near_one = lost < 0.25  # beyond, XLA's log1p is less accurate than its log
    logarithm = jnp.where(near_one, jnp.log1p(-lost), jnp.log(kept))
    return jnp.round(-logarithm / (np.log(2) * QUANTUM))


def kept(bits: Float64[Array, "..."]) -> Float64[Array, "..."]:
    """The decay that loses so many quanta."""
    return jnp.exp2(-bits * QUANTUM)


def lost(bits: Float64[Array, "..."]) -> Float64[Array, "..."]:
    """1 − that decay, to full relative precision."""
    return -jnp.expm1(numerics.apart(-bits * (np.log(2) * QUANTUM)))

"""A decay as a ratio of small whole numbers."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float64

LARGEST = 2.0**28
"""No denominator exceeds this."""
ITERATIONS = 40
"""Denominators grow at least like Fibonacci's numbers, so this many reach the largest."""


class Ratio(NamedTuple):
    """n / d, whole numbers in float64, 1 ≤ n ≤ d ≤ 2^28; elementwise."""

    n: Float64[Array, "..."]
    d: Float64[Array, "..."]

    @property
    def kept(self) -> Float64[Array, "..."]:
        """n / d: the decay."""
        return self.n / self.d

    @property
    def lost(self) -> Float64[Array, "..."]:
        """1 − n / d, to full relative precision."""
        return (self.d - self.n) / self.d

    @property
    def bits(self) -> Float64[Array, "..."]:
        """How many bits a multiplication by n / d loses: log2(d / n)."""
        return -jnp.log1p(-self.lost) / jnp.log(2.0)


def ratio(
    kept: Float64[Array, "..."], lost: Float64[Array, "..."], tolerance: Float64[Array, "..."]
) -> Ratio:
    """The simplest ratio (a convergent of the continued fraction) within `tolerance` of a decay.

    The decay is given as what it keeps and what it loses, 1 − kept, so that a decay near 1 can be
    given to full relative precision. Where no denominator up to 2^28 is within `tolerance`, the
    ratio is the nearest one.
    """
    near_one = lost < kept
    p, q = _convergent(jnp.where(near_one, lost, kept), tolerance)
    return Ratio(jnp.where(near_one, q - p, p), q)


def _convergent(x, tolerance):
    """p / q ≈ x in [0, 1/2]: Euclid's algorithm on (1, x), whose remainders are exact."""
    one, zero = jnp.ones_like(x), jnp.zeros_like(x)
    error = lambda p, q: jnp.abs(x - p / q)

    def body(_, carry):
        a, b, p, q, p_before, q_before = carry
        done = (b == 0) | (error(p, q) <= tolerance)
        safe = jnp.where(done, 1.0, b)
        whole = jnp.floor(a / safe)
        rest = jax.lax.rem(a, safe)
        # As much of the next convergent as the largest denominator allows; less than half of it
        # is worse than what there is.
        fits = jnp.minimum(whole, jnp.floor((LARGEST - q_before) / q))
        p_next, q_next = fits * p + p_before, fits * q + q_before
        cut = fits < whole
        better = ~cut | (error(p_next, jnp.maximum(q_next, 1)) < error(p, q))
        take = ~done & better
        carry = (
            jnp.where(done, a, b),
            jnp.where(done, b, jnp.where(cut, 0.0, rest)),
            jnp.where(take, p_next, p),
            jnp.where(take, q_next, q),
            jnp.where(take, p, p_before),
            jnp.where(take, q, q_before),
        )
        return carry

    # The convergents 1/0 and 0/1 begin; x ≤ 1/2, so the first remainder is 1 itself.
    _, _, p, q, _, _ = jax.lax.fori_loop(0, ITERATIONS, body, (one, x, zero, one, one, zero))
    return p, q

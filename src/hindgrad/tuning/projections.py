"""Euclidean projections onto bounds and one condition on all elements together, in O(n log n)."""

import abc
from dataclasses import dataclass
from typing import final

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

ROUNDING = 1e-6
"""How far, relatively, bounds may sum past a total before the set counts as empty."""


class Coupling(abc.ABC):
    """A condition on all elements of an array together."""

    @abc.abstractmethod
    def conflict(self, lower: np.ndarray, upper: np.ndarray) -> str | None:
        """Why no array within the bounds satisfies it, if none does."""

    @abc.abstractmethod
    def project(
        self, y: Float[Array, " n"], lower: Float[Array, " n"], upper: Float[Array, " n"]
    ) -> Float[Array, " n"]:
        """The nearest point within the bounds that satisfies it."""


@final
@dataclass(frozen=True)
class Total(Coupling):
    """Σ x = total."""

    total: float

    def conflict(self, lower, upper):
        slack = ROUNDING * self.total
        if lower.sum() > self.total + slack:
            return f"the lower bounds sum to {lower.sum():g}, more than the total {self.total:g}"
        if upper.sum() < self.total - slack:
            return f"the upper bounds sum to {upper.sum():g}, less than the total {self.total:g}"
        return None

    def project(self, y, lower, upper):
        return clip_to_total(y, lower, upper, self.total)


@final
@dataclass(frozen=True)
class AbsoluteTotal(Coupling):
    """Σ |x| ≤ radius."""

    radius: float

    def conflict(self, lower, upper):
        least = np.maximum(np.maximum(lower, -upper), 0).sum()
        if least > self.radius * (1 + ROUNDING):
            return (
                f"the bounds force the absolute values to sum to {least:g} at least, more than "
                f"the radius {self.radius:g}"
            )
        return None

    def project(self, y, lower, upper):
        return clip_to_absolute_total(y, lower, upper, self.radius)


@jax.jit
def clip_to_total(
    y: Float[Array, " n"],
    lower: Float[Array, " n"],
    upper: Float[Array, " n"],
    total: Float[ArrayLike, ""],
) -> Float[Array, " n"]:
    """The nearest x to y with lower ≤ x ≤ upper and Σ x = total.

    x = clip(y − μ, lower, upper) with one multiplier μ, and Σ x falls with μ, linearly between
    the values of μ at which an element meets a bound (Held, Wolfe & Crowder 1974; Brucker 1984).
    Those are sorted and bisected; between two of them, μ follows from the elements in between
    the bounds. Some bound must be finite.
    """
    meets = jnp.sort(jnp.concatenate([y - upper, y - lower]))
    meets = jnp.concatenate([jnp.array([-jnp.inf], y.dtype), meets, jnp.array([jnp.inf], y.dtype)])

    def excess(y, mu):
        return jnp.sum(jnp.clip(y - mu, lower, upper)) - total

    def bisect(_, bracket):
        first, last = bracket
        middle = (first + last + 1) // 2
        enough = excess(y, meets[middle]) >= 0
        return jnp.where(enough, middle, first), jnp.where(enough, last, middle - 1)

    bracket = jnp.int32(0), jnp.int32(2 * y.size)
    k, _ = jax.lax.fori_loop(0, meets.size.bit_length(), bisect, bracket)
    left, right = meets[k], meets[k + 1]
    free = (y - upper <= left) & (right <= y - lower)
    # From here on μ is counted from the end of its segment that is closer to the total: what is
    # small then keeps its digits.
    ends = jnp.stack([left, right])
    misses = jnp.stack([excess(y, left), excess(y, right)])
    y = y - ends[jnp.argmin(jnp.where(jnp.isfinite(ends), jnp.abs(misses), jnp.inf))]
    mu = _over_count(excess(y, 0.0), free)
    # Rounding may have bisected into the segment next to it: one Newton step more.
    mu = mu + _over_count(excess(y, mu), (lower < y - mu) & (y - mu < upper))
    return jnp.clip(y - mu, lower, upper)


def _over_count(value: Float[Array, ""], mask: Bool[Array, " n"]) -> Float[Array, ""]:
    """The value shared among the True, or 0 if there is none."""
    count = jnp.sum(mask, dtype=value.dtype)
    return jnp.where(count > 0, value / jnp.maximum(count, 1), 0)


@jax.jit
def clip_to_absolute_total(
    y: Float[Array, " n"],
    lower: Float[Array, " n"],
    upper: Float[Array, " n"],
    radius: Float[ArrayLike, ""],
) -> Float[Array, " n"]:
    """The nearest x to y with lower ≤ x ≤ upper and Σ |x| ≤ radius.

    x = clip(soft threshold(y, μ), lower, upper), μ ≥ 0. Mirrored to y ≥ 0 it is a clip of y − μ
    to bounds raised to 0, so that Σ |x| = radius is a matter of `clip_to_total` (Duchi et al.
    2008, for no bounds); elements forced to the other side of 0 are constant.
    """
    negative = y < 0
    high = jnp.where(negative, -lower, upper)
    low = jnp.clip(0.0, jnp.where(negative, -upper, lower), high)
    total = radius + 2 * jnp.sum(jnp.minimum(high, 0.0))
    size = clip_to_total(jnp.abs(y), low, high, total)
    boxed = jnp.clip(y, lower, upper)
    inside = jnp.sum(jnp.abs(boxed)) <= radius
    return jnp.where(inside, boxed, jnp.where(negative, -size, size))

"""Which values a schedule takes."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float


class Range(eqx.Module):
    """The values that a schedule takes, as a smooth and rising function of a free number."""

    @abc.abstractmethod
    def value(self, free: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The value at a free number."""

    @abc.abstractmethod
    def free(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The inverse of `value`; not finite outside of the range."""


class Real(Range):
    """Any number: the free number itself."""

    def value(self, free):
        return free

    def free(self, value):
        return value


class Positive(Range):
    """Numbers above 0: exp of the free number. For rates."""

    def value(self, free):
        return jnp.exp(free)

    def free(self, value):
        return jnp.log(value)


class Between(Range):
    """Numbers between two bounds, which are reached by rounding only: `low + (high − low)
    sigmoid(free)`. For decays; `Reversible(min_decay=low)` then always has room."""

    low: float = eqx.field(default=0.0, static=True, converter=float)
    high: float = eqx.field(default=1.0, static=True, converter=float)

    def __check_init__(self):
        if not -np.inf < self.low < self.high < np.inf:
            raise ValueError(
                f"Between({self.low}, {self.high}): two finite bounds are needed, the lower first."
            )

    def value(self, free):
        return self.low + (self.high - self.low) * jax.nn.sigmoid(free)

    def free(self, value):
        return jnp.log((value - self.low) / (self.high - value))


def free_numbers(range: Range, value: ArrayLike) -> Float[Array, "..."]:
    """The free numbers of some values; raises `ValueError` if one is not within the range."""
    value = jnp.asarray(value, jnp.result_type(float))
    free = range.free(value)
    if not isinstance(free, Tracer) and not np.isfinite(free).all():
        outside = np.asarray(value)[~np.isfinite(free)].flat[0]
        raise ValueError(f"The value {outside:g} is not within the schedule's {range}.")
    return free

"""Fixed-point numbers: whole multiples of a unit, which add, subtract and halve exactly.

Whole numbers are held in float64, exact up to 2^53, because most processors have vector
instructions for its arithmetic, rounding and conversion, and none for 64-bit integers'. Compiled
functions, so that each is traced once for all leaves of a shape.
"""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Float64

from hindgrad import numerics
from hindgrad.exact.decay import QUANTUM

LARGEST = 2.0**52
"""The leading digit lies within ± this, so that its sums are exact."""
BITS = 42
"""Fractional bits of the leading digit of numbers of scale 1, which lie within ±1,024."""
BASE = 2.0**24
"""What a further digit counts to: the whole numbers of a float32."""


class Fixed(eqx.Module):
    """A number `(high + low₁/2^24 + low₂/2^48 + …) · unit`.

    `high` is a whole number in ±2^52, the further digits are whole numbers in [0, 2^24). The
    unit is 2^−bits, or for numbers that decay 2^−bits · 2^(1 − drift): multiplying by a decay
    makes the unit smaller, until the drift reaches one bit and the number is halved instead.

    A number that leaves the range, or to which NaN is added, is stuck: from then on `high` is
    2^52 + t (−2^52 − t for NaN), with t the number given as the step at which it happened.
    """

    high: Float64[Array, "..."]
    low: tuple[Float32[Array, "..."], ...]
    drift: Float64[Array, "..."] | None
    """In quanta of `decay.QUANTUM`, a whole number; of the decay's shape."""
    bits: int = eqx.field(static=True)


def bits_for(scale: float) -> int:
    """The fractional bits of the leading digit of numbers of that scale, a power of two."""
    return BITS - round(math.log2(scale))


def encode(
    x: Float[Array, "..."], bits: int, digits: int, drift: Float64[Array, "..."] | None = None
) -> Fixed:
    """The nearest fixed-point number with so many digits beyond the leading one."""
    zero = jnp.zeros_like(x, jnp.float64)
    low = tuple(jnp.zeros_like(x, jnp.float32) for _ in range(digits))
    return add(Fixed(zero, low, drift, bits), x.astype(jnp.float64), 0)


@functools.partial(jax.jit, static_argnames="dtype")
def decode(fixed: Fixed, dtype: Any) -> Float[Array, "..."]:
    """The nearest number of that float type."""
    total = jnp.zeros_like(fixed.high)
    for low in reversed(fixed.low):
        total = (total + low.astype(jnp.float64)) * (1 / BASE)
    return ((fixed.high + total) * _unit(fixed)).astype(dtype)


@jax.jit
def add(fixed: Fixed, delta: Float64[Array, "..."], t: Any) -> Fixed:
    """`fixed + delta` at step `t`, with `delta` rounded to the last digit."""
    high, digits = _digits(delta, fixed)
    carry = jnp.zeros_like(high)
    sums = []
    for low, digit in zip(reversed(fixed.low), reversed(digits), strict=True):
        total = low.astype(jnp.float64) + digit + carry
        carry = jnp.where(total >= BASE, 1.0, 0.0)
        sums.append(total - carry * BASE)
    return _settle(fixed, fixed.high + high + carry, sums[::-1], t)


@jax.jit
def subtract(fixed: Fixed, delta: Float64[Array, "..."]) -> Fixed:
    """The inverse of `add`."""
    high, digits = _digits(delta, fixed)
    borrow = jnp.zeros_like(high)
    sums = []
    for low, digit in zip(reversed(fixed.low), reversed(digits), strict=True):
        total = low.astype(jnp.float64) - digit - borrow
        borrow = jnp.where(total < 0, 1.0, 0.0)
        sums.append((total + borrow * BASE).astype(jnp.float32))
    return _with(fixed, fixed.high - high - borrow, sums[::-1])


def shift_out(fixed: Fixed, base: Float64[Array, "..."]) -> tuple[Fixed, Float64[Array, "..."]]:
    """⌊fixed / base⌋ in units of the last digit, and the rest, in [0, base); `base` is a power
    of two up to 2^8. A stuck number stays as it is, and its rest is 0."""
    stuck = jnp.abs(fixed.high) >= LARGEST
    base, inverse = jnp.where(stuck, 1.0, base), jnp.where(stuck, 1.0, 1 / base)
    high = jnp.floor(fixed.high * inverse)
    rest = fixed.high - high * base
    lows = []
    for low in fixed.low:
        total = rest * BASE + low.astype(jnp.float64)
        digit = jnp.floor(total * inverse)
        rest = total - digit * base
        lows.append(digit.astype(jnp.float32))
    return _with(fixed, high, lows), rest


def shift_in(fixed: Fixed, base: Float64[Array, "..."], rest: Float64[Array, "..."]) -> Fixed:
    """The inverse of `shift_out`."""
    lows, carry = [], rest
    for low in reversed(fixed.low):
        total = low.astype(jnp.float64) * base + carry
        carry = jnp.floor(total * (1 / BASE))
        lows.append((total - carry * BASE).astype(jnp.float32))
    return _with(fixed, fixed.high * base + carry, lows[::-1])


def stuck_at(
    fixed: Fixed,
) -> tuple[Float64[Array, ""], Bool[Array, ""], Bool[Array, "..."]]:
    """The first step at which an element became stuck (infinity if none did), whether it was by
    NaN, and the elements that this is said of."""
    beyond = jnp.abs(fixed.high) - LARGEST
    step = jnp.min(jnp.where(beyond >= 0, beyond, jnp.inf), initial=jnp.inf)
    first = beyond == step
    by_nan = first & (fixed.high < 0)
    is_nan = jnp.any(by_nan)
    return step, is_nan, jnp.where(is_nan, by_nan, first)


def _unit(fixed):
    if fixed.drift is None:
        return 2.0**-fixed.bits
    return _power(-fixed.drift) * 2.0 ** (1 - fixed.bits)


def _power(drift):
    """2 to the drift: of arrays computed once, since in a loop that is merged with others a
    compiler may take another approximation."""
    power = jnp.exp2(drift * QUANTUM)
    return numerics.settled(power)[0] if power.ndim else power


def _digits(delta, like):
    """The digits of a number: the leading one, and as many further ones as `like` has."""
    if like.drift is None:
        rest = delta * 2.0**like.bits
    else:
        rest = delta * (_power(like.drift) * 2.0 ** (like.bits - 1))
    # Clamped so that no compiler fuses the product with the differences below, which would keep
    # bits of it that the product alone rounds off.
    rest = jnp.clip(rest, -4 * LARGEST, 4 * LARGEST)
    digits = []
    for _ in like.low:
        digit = jnp.floor(rest)
        rest = (rest - digit) * BASE
        digits.append(digit)
    high, *digits = [*digits, jnp.round(rest)]
    return high, digits


def _settle(before, high, lows, t):
    """The sum, or the stuck number if it is one."""
    was_stuck = jnp.abs(before.high) >= LARGEST
    is_within = jnp.abs(high) < LARGEST  # false for NaN
    mark = (LARGEST + jnp.asarray(t, jnp.float64)) * jnp.where(jnp.isnan(high), -1.0, 1.0)
    settled = jnp.where(was_stuck, before.high, jnp.where(is_within, high, mark))
    keep = is_within & ~was_stuck
    lows = [jnp.where(keep, low, 0.0).astype(jnp.float32) for low in lows]
    return _with(before, settled, lows)


def _with(fixed, high, lows):
    return Fixed(high, tuple(lows), fixed.drift, fixed.bits)

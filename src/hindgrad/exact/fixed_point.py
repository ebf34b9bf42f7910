"""Fixed-point numbers: whole multiples of a small unit, which add and subtract exactly."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Float64

from hindgrad.exact.division import LARGEST
from hindgrad.exact.division import divide as divide
from hindgrad.exact.ratio import Ratio

BITS = 42
"""Fractional bits of the leading digit of numbers of scale 1."""
RANGE = LARGEST / 2.0**BITS
"""Numbers of scale 1 lie within ± this."""
BASE = 2.0**24
"""What a further digit counts to: the whole numbers of a float32."""


class Fixed(eqx.Module):
    """A number `(high + low₁/2^24 + low₂/2^48 + …) · 2^−bits`.

    `high` is a whole number in ±2^52, the further digits are whole numbers in [0, 2^24).

    A number that leaves the range, or to which NaN is added, is stuck: from then on `high` is
    2^52 + t (−2^52 − t for NaN), with t the number given as the step at which it happened.
    """

    high: Float64[Array, "..."]
    low: tuple[Float32[Array, "..."], ...]
    bits: int = eqx.field(static=True)


def is_fixed(x: Any) -> bool:
    """Whether this is a `Fixed`, for `jax.tree.map`."""
    return isinstance(x, Fixed)


def bits_for(scale: float) -> int:
    """The fractional bits of the leading digit of numbers of that scale, a power of two."""
    return BITS - round(math.log2(scale))


def encode(x: Float[Array, "..."], bits: int, digits: int, t: Any = 0) -> Fixed:
    """The fixed-point number nearest below `x`, with so many further digits."""
    zero = Fixed(
        jnp.zeros(x.shape, jnp.float64),
        tuple(jnp.zeros(x.shape, jnp.float32) for _ in range(digits)),
        bits,
    )
    return add(zero, x.astype(jnp.float64), t)


def decode(fixed: Fixed, dtype: Any) -> Float[Array, "..."]:
    """The nearest number of that float type."""
    total = jnp.zeros_like(fixed.high)
    for low in reversed(fixed.low):
        total = (total + low.astype(jnp.float64)) * (1 / BASE)
    return ((fixed.high + total) * 2.0**-fixed.bits).astype(dtype)


def add(fixed: Fixed, delta: Float64[Array, "..."], t: Any) -> Fixed:
    """`fixed + delta` at step `t`, `delta` cut off at the last digit."""
    high, lows = _digits(delta, fixed)
    carry = jnp.zeros_like(high)
    sums = []
    for low, digit in zip(reversed(fixed.low), reversed(lows), strict=True):
        total = low.astype(jnp.float64) + digit + carry
        carry = jnp.where(total >= BASE, 1.0, 0.0)
        sums.append(total - carry * BASE)
    return _settle(fixed, fixed.high + high + carry, sums[::-1], t)


def subtract(fixed: Fixed, delta: Float64[Array, "..."]) -> Fixed:
    """The inverse of `add`."""
    high, lows = _digits(delta, fixed)
    borrow = jnp.zeros_like(high)
    sums = []
    for low, digit in zip(reversed(fixed.low), reversed(lows), strict=True):
        total = low.astype(jnp.float64) - digit - borrow
        borrow = jnp.where(total < 0, 1.0, 0.0)
        sums.append((total + borrow * BASE).astype(jnp.float32))
    return Fixed(fixed.high - high - borrow, tuple(sums[::-1]), fixed.bits)


def multiply(
    fixed: Fixed, word: Float64[Array, "..."], ratio: Ratio
) -> tuple[Fixed, Float64[Array, "..."]]:
    """`fixed · n / d`, and the word with the digit mod d that this would lose.

    Maclaurin, Duvenaud & Adams 2015, Algorithm 3: the digit mod d goes into the word, and a
    digit mod n comes out of it in its place. The result is off by less than d units of the last
    digit; the word grows by the factor d / n.
    """
    stuck = jnp.abs(fixed.high) >= LARGEST
    multiplied, after = exchange(fixed, word, ratio.n, ratio.d)
    keep = lambda old, new: jnp.where(stuck, old, new)
    return jax.tree.map(keep, fixed, multiplied), keep(word, after)


def exchange(
    fixed: Fixed, word: Float64[Array, "..."], n: Float64[Array, "..."], d: Float64[Array, "..."]
) -> tuple[Fixed, Float64[Array, "..."]]:
    """A digit mod d of the number for a digit mod n of the word; (d, n) undoes (n, d)."""
    high, rest = divide(fixed.high, d)
    quotients = []
    for low in fixed.low:
        quotient, rest = divide(rest * BASE + low.astype(jnp.float64), d)
        quotients.append(quotient)
    word, carry = divide(word * d + rest, n)
    lows = []
    for quotient in reversed(quotients):
        product = quotient * n + carry
        carry = jnp.floor(product * (1 / BASE))
        lows.append((product - carry * BASE).astype(jnp.float32))
    return Fixed(high * n + carry, tuple(lows[::-1]), fixed.bits), word


def divide_back(
    fixed: Fixed, word: Float64[Array, "..."], ratio: Ratio
) -> tuple[Fixed, Float64[Array, "..."]]:
    """The inverse of `multiply`."""
    return exchange(fixed, word, ratio.d, ratio.n)


def stuck_at(fixed: Fixed) -> tuple[Float64[Array, ""], Array]:
    """The first step at which an element became stuck (infinity if none did), and whether it
    was by NaN."""
    beyond = jnp.abs(fixed.high) - LARGEST
    step = jnp.min(jnp.where(beyond >= 0, beyond, jnp.inf))
    return step, jnp.any((beyond == step) & (fixed.high < 0))


def _digits(delta, like):
    """The digits of a number: the leading one, and as many further ones as `like` has."""
    scaled = delta * 2.0**like.bits
    high = jnp.floor(scaled)
    rest, lows = scaled - high, []
    for _ in like.low:
        digit = jnp.floor(rest * BASE)
        rest = rest * BASE - digit
        lows.append(digit)
    return high, lows


def _settle(before, high, lows, t):
    """The sum, or the stuck number if it is one."""
    was_stuck = jnp.abs(before.high) >= LARGEST
    is_within = jnp.abs(high) < LARGEST  # false for NaN
    mark = (LARGEST + t) * jnp.where(jnp.isnan(high), -1.0, 1.0)
    settled = jnp.where(was_stuck, before.high, jnp.where(is_within, high, mark))
    keep = is_within & ~was_stuck
    lows = tuple(jnp.where(keep, low, 0.0).astype(jnp.float32) for low in lows)
    return Fixed(settled, lows, before.bits)

"""The information buffer: what multiplications lose, a fraction of a bit at a time."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float64, Int32, UInt8

from hindgrad.exact import fixed_point
from hindgrad.exact.fixed_point import Fixed
from hindgrad.exact.ratio import Ratio

DIGIT = 8
"""Bits pushed at a time, and the most that one multiplication may lose."""
RESERVE = 6
"""Bits that stay in the word, so that what it holds remains nearly uniform."""
ROUNDING = 1e-6
"""How far sums of bits may be off, in digits."""
SMALLEST = 2.0**-DIGIT
"""The smallest decay that can be undone."""


class Buffer(eqx.Module):
    """What the multiplications of one leaf have lost so far, one lane per element.

    A lane's word grows by the factor d / n with every multiplication; whenever the fastest
    growing lane must have gained another 8 bits, all push their lowest 8 to a stack. Decays alone
    decide when. Without a stack what is pushed is lost: for a run that is not to be undone.
    """

    word: Float64[Array, "*shape"]
    filled: Float64[Array, ""]
    """Bits that the fastest growing lane's word holds."""
    stack: UInt8[Array, "rows *shape"] | None
    count: Int32[Array, ""]
    """Digits pushed."""


def rows_for(bits: float) -> int:
    """How many digits are pushed while a lane gains so many bits."""
    return max(0, math.floor((bits - RESERVE) / DIGIT + ROUNDING))


def empty(shape: tuple[int, ...], rows: int | None, memory: Any = None) -> Buffer:
    """A buffer for lanes of that shape, with room for so many digits; None for no stack."""
    stack = None if rows is None else jnp.zeros((rows, *shape), jnp.uint8)
    if stack is not None and memory is not None:
        stack = jax.device_put(stack, memory)
    return Buffer(jnp.zeros(shape, jnp.float64), jnp.float64(0), stack, jnp.int32(0))


def multiply(fixed: Fixed, buffer: Buffer, ratio: Ratio) -> tuple[Fixed, Buffer, Any]:
    """`fixed · n / d`, the buffer with what that lost, and whether a digit was pushed."""
    fixed, word = fixed_point.multiply(fixed, buffer.word, ratio)
    filled = buffer.filled + jnp.max(ratio.bits)
    pushed = filled >= RESERVE + DIGIT
    rest = jnp.floor(word * 2.0**-DIGIT)
    stack = buffer.stack
    if stack is not None and stack.shape[0]:
        digit = (word - rest * 2.0**DIGIT).astype(jnp.int32).astype(jnp.uint8)
        # Written at every step, since a `cond` would copy the stack under vmap.
        there = jax.lax.dynamic_index_in_dim(stack, buffer.count, keepdims=False)
        digit = jnp.where(pushed, digit, there)
        stack = jax.lax.dynamic_update_index_in_dim(stack, digit, buffer.count, 0)
    return (
        fixed,
        Buffer(
            word=jnp.where(pushed, rest, word),
            filled=filled - jnp.where(pushed, DIGIT, 0),
            stack=stack,
            count=buffer.count + pushed.astype(jnp.int32),
        ),
        pushed,
    )


def divide_back(fixed: Fixed, buffer: Buffer, ratio: Ratio, pushed: Any) -> tuple[Fixed, Buffer]:
    """The inverse of `multiply`."""
    count = buffer.count - pushed.astype(jnp.int32)
    word = buffer.word
    if buffer.stack is not None and buffer.stack.shape[0]:
        digit = jax.lax.dynamic_index_in_dim(buffer.stack, count, keepdims=False)
        word = jnp.where(pushed, word * 2.0**DIGIT + digit.astype(jnp.float64), word)
    fixed, word = fixed_point.divide_back(fixed, word, ratio)
    return fixed, eqx.tree_at(lambda b: (b.word, b.count), buffer, (word, count))

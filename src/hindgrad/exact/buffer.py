"""Multiplication by a decay, and the buffer for the bits that it would lose."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Float64, Int32, UInt8

from hindgrad.exact import fixed_point
from hindgrad.exact.decay import QUANTUM
from hindgrad.exact.fixed_point import Fixed

DIGIT = 8
"""Bits pushed at a time."""
RESERVE = 1
"""Bits by which a lane may be ahead of its share, since it gains whole bits only."""
ROUNDING = 1e-6
"""How far sums of bits may be off, in digits."""


class Buffer(eqx.Module):
    """The bits that the multiplications of one leaf would have lost so far, a lane per element.

    New bits go to the low end of a lane's word; whenever the lane with the smallest decays must
    have gained another 8, all lanes push their lowest 8 to a stack. Decays alone decide when.
    Without a stack what is pushed is lost: for a run that is not to be undone.
    """

    word: Float32[Array, "*shape"]
    filled: Float64[Array, ""]
    """Bits of the smallest decays so far, less those pushed; in quanta."""
    stack: UInt8[Array, "rows *shape"] | None
    count: Int32[Array, ""]
    """Digits pushed."""
    memory: Any = eqx.field(static=True, default=None)
    """Where the stack is; None for beside everything else."""


def rows_for(bits: float) -> int:
    """How many digits are pushed while the smallest decays lose so many bits."""
    return max(0, math.floor((bits - RESERVE) / DIGIT + ROUNDING))


def empty(like: Float[Array, "*shape"], rows: int | None, memory: Any = None) -> Buffer:
    """A buffer with a lane for each number, and room for so many digits; None for no stack."""
    stack = None
    if rows is not None:
        stack = jnp.broadcast_to(jnp.zeros_like(like, jnp.uint8), (rows, *like.shape))
    if stack is not None and memory is not None:
        stack = jax.device_put(stack, memory)
    return Buffer(jnp.zeros_like(like, jnp.float32), jnp.float64(0), stack, jnp.int32(0), memory)


@jax.jit
def multiply(
    fixed: Fixed, buffer: Buffer, bits: Float64[Array, "..."]
) -> tuple[Fixed, Buffer, Bool[Array, ""]]:
    """`fixed` times the decay that loses so many quanta, the buffer with those bits, and whether
    a digit was pushed.

    The number's unit shrinks by the decay. When its drift has reached whole bits, the number is
    divided by that power of two, and the rest goes into the buffer. (Maclaurin, Duvenaud & Adams
    2015, Algorithm 3, multiply the number at every step, by a ratio n/d: that needs two general
    divisions, and the result is off by up to d units.)
    """
    drift = _drift(fixed) + bits
    whole = jnp.floor(drift * QUANTUM)
    base = _power_of_two(whole)
    fixed, rest = fixed_point.shift_out(fixed, base)
    fixed = eqx.tree_at(lambda f: f.drift, fixed, drift - whole / QUANTUM)
    word = buffer.word.astype(jnp.float64) * base + rest
    filled = buffer.filled + jnp.max(bits, initial=0.0)
    pushed = filled * QUANTUM >= RESERVE + DIGIT
    older = jnp.floor(word * 2.0**-DIGIT)
    stack = buffer.stack
    if stack is not None and stack.shape[0]:
        digit = (word - older * 2.0**DIGIT).astype(jnp.int32).astype(jnp.uint8)
        # Written at every step, since a `cond` would copy the stack under vmap.
        digit = jnp.where(pushed, digit, _read(buffer, buffer.count))
        if buffer.memory is not None:
            digit = jax.device_put(digit, buffer.memory)
        stack = jax.lax.dynamic_update_index_in_dim(stack, digit, buffer.count, 0)
    buffer = Buffer(
        word=jnp.where(pushed, older, word).astype(jnp.float32),
        filled=filled - jnp.where(pushed, DIGIT / QUANTUM, 0),
        stack=stack,
        count=buffer.count + pushed.astype(jnp.int32),
        memory=buffer.memory,
    )
    return fixed, buffer, pushed


@jax.jit
def divide_back(
    fixed: Fixed, buffer: Buffer, bits: Float64[Array, "..."], pushed: Bool[Array, ""]
) -> tuple[Fixed, Buffer]:
    """The inverse of `multiply`."""
    count = buffer.count - pushed.astype(jnp.int32)
    word = buffer.word.astype(jnp.float64)
    if buffer.stack is not None and buffer.stack.shape[0]:
        digit = _read(buffer, count)
        word = jnp.where(pushed, word * 2.0**DIGIT + digit.astype(jnp.float64), word)
    # The drift before lay in [0, 1) bits, which tells how many whole bits were taken off.
    whole = jnp.maximum(jnp.ceil((bits - _drift(fixed)) * QUANTUM), 0.0)
    base = _power_of_two(whole)
    older = jnp.floor(word * (1 / base))  # exact: `base` is a power of two
    fixed = fixed_point.shift_in(fixed, base, word - older * base)
    fixed = eqx.tree_at(lambda f: f.drift, fixed, _drift(fixed) + (whole / QUANTUM - bits))
    buffer = eqx.tree_at(lambda b: (b.word, b.count), buffer, (older.astype(jnp.float32), count))
    return fixed, buffer


def _read(buffer, i):
    digit = jax.lax.dynamic_index_in_dim(buffer.stack, i, keepdims=False)
    return digit if buffer.memory is None else jax.device_put(digit, jax.memory.Space.Device)


def _power_of_two(whole):
    """Exactly; `exp2` rounds."""
    return jnp.left_shift(jnp.int32(1), whole.astype(jnp.int32)).astype(jnp.float64)


def _drift(fixed: Fixed) -> Any:
    return fixed.drift

"""Precision: exact arithmetic in float64, the user's functions in the user's own setting."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp


def wide() -> Any:
    """A context in which float64 exists, whatever the user's setting."""
    return jax.enable_x64(True)


def users_setting() -> bool:
    """Whether float64 is on for the user; to be asked outside of `wide`."""
    return bool(jax.config.read("jax_enable_x64"))


def setting(x64: bool) -> Any:
    """A context with the user's setting again: without it, `jax.random` draws other numbers."""
    return jax.enable_x64(x64)


def threads(count: int, name: str = "") -> ThreadPoolExecutor:
    """Threads with the precision of this one: JAX's setting is each thread's own, and in another
    one arrays are made in float32, and those in float64 are rounded to it."""
    enter = lambda x64: setting(x64).__enter__()
    here = (users_setting(),)
    return ThreadPoolExecutor(count, thread_name_prefix=name, initializer=enter, initargs=here)


def isolate(*trees: Any) -> Any:
    """The same values, across which XLA is asked not to move or merge operations, so that one
    computation gives the same bits in two programs. XLA need not obey: verify."""
    return jax.lax.optimization_barrier(trees)


def settled(*trees: Any) -> Any:
    """The same values, computed once: whatever reads them reads the same bits.

    What computes a value may be merged into each of its readers, and rounded otherwise in each.
    A loop is never merged, and what it computes (here: the same, twice) is not known before.
    """
    floats, others = eqx.partition(trees, eqx.is_inexact_array)
    again = lambda _, floats: jax.tree.map(apart, floats)
    return eqx.combine(jax.lax.fori_loop(0, 2, again, floats), others)


@jax.custom_jvp
def apart(x: Any) -> Any:
    """`x`, in a way that keeps what computes it from being fused with what it enters."""
    return jnp.where(x == x, x, jnp.nan)


@apart.defjvp
def _apart_jvp(primals, tangents):
    return apart(*primals), tangents[0]


def unseen_one(beside: Any) -> Any:
    """1 (NaN where that is NaN), which no compiler can tell from another number."""
    return jnp.where(beside == beside, jnp.ones_like(beside), jnp.nan)


def unseen_zero(beside: Any) -> Any:
    """Zero in float64, which no compiler can tell from another number."""
    return jnp.where(jnp.any(beside == beside), jnp.float64(0.0), jnp.float64(-0.0))

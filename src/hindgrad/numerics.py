"""Precision: exact arithmetic in float64, the user's functions in the user's own setting."""

from typing import Any

import jax


def wide() -> Any:
    """A context in which float64 exists, whatever the user's setting."""
    return jax.enable_x64(True)


def users_setting() -> bool:
    """Whether float64 is on for the user; to be asked outside of `wide`."""
    return bool(jax.config.read("jax_enable_x64"))


def setting(x64: bool) -> Any:
    """A context with the user's setting again: without it, `jax.random` draws other numbers."""
    return jax.enable_x64(x64)


def isolate(*trees: Any) -> Any:
    """The same values, across which XLA is asked not to move or merge operations, so that one
    computation gives the same bits in two programs. XLA need not obey: verify."""
    return jax.lax.optimization_barrier(trees)

"""Errors that a compiled program raises while it runs."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox.internal import unvmap_any, unvmap_max
from jax.core import Tracer
from jaxtyping import Array, Bool, Int, PyTree


class RunError(RuntimeError):
    """What went wrong while a compiled program ran."""


class SourceError(RunError):
    """What went wrong while batches were read."""


class _Latest:
    """The latest error raised by a callback, which JAX passes on as text within its own."""

    error: RunError | None = None


def raise_if(
    results: PyTree, failed: Bool[Array, ""], number: Int[Array, ""], messages: Sequence
) -> PyTree:
    """The results; using one of their floats raises `messages[number]` if `failed`.

    Under `vmap`, if any lane failed. One flag passes through the check and every float is
    selected by it, so that derivatives pass (Equinox's `error_if` sends all results through a
    branch, and shows its own text in place of the message outside of its `filter_jit`).
    """
    failed, number = unvmap_any(failed), unvmap_max(number)
    if not isinstance(failed, Tracer) and not isinstance(number, Tracer):
        if failed:
            raise RunError(messages[int(number)])
        return results

    def fail(number):
        with from_callback():
            raise RunError(messages[int(number)])

    passed = _passed(fail, failed, number)
    select = lambda x: jnp.where(passed, x, jnp.nan) if eqx.is_inexact_array(x) else x
    return jax.tree.map(select, results)


def _passed(fail, failed, number):
    """Whether all is well; if it is not, `fail(number)` is called."""
    fine = jax.ShapeDtypeStruct((), jnp.bool_)
    if jax.device_count() == 1:
        return jax.lax.cond(
            failed, lambda: jax.pure_callback(fail, fine, number), lambda: jnp.bool_(True)
        )

    # A pure callback runs on one device of one process, and the others wait for it for ever. This
    # one runs on every device, each of which knows that the run has failed.
    def fail_everywhere(failed, number):
        if failed:
            fail(number)

    jax.debug.callback(fail_everywhere, failed, number, partitioned=True)
    return ~failed


@contextmanager
def from_callback() -> Iterator[None]:
    """Within a callback: a `RunError` that is raised here reaches the user as it is."""
    try:
        yield
    except RunError as error:
        _Latest.error = error
        raise


def ours(error: Exception) -> Exception | None:
    """What is raised in place of JAX's error: the error of ours that it is about, or one that
    says what to use instead. None for any other."""
    if isinstance(error, TypeError):
        return _no_forward_mode() if "(jvp) to a custom_vjp" in str(error) else None
    latest = _Latest.error  # JAX 0.10 raises a JaxRuntimeError or a ValueError
    if latest is None or str(latest) not in str(error):
        return None
    return type(latest)(str(latest))  # without the stack within JAX


def _no_forward_mode():
    return ValueError(
        "Something is to be differentiated forwards that has a rule for the reverse mode only. If "
        "it is the run (by jax.jvp or jax.jacfwd), give adjoint=Forward(), without block. If it is "
        "a function in it (a jax.custom_vjp, through Forward()), use Stored() or Checkpointed(), "
        "or give that its rule by jax.custom_jvp."
    )


def _is_not_ours(record: Any) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], RunError))


# JAX logs the whole stack of an error within a callback before it raises it again.
for name in ("callback", "debugging"):
    logging.getLogger(f"jax._src.{name}").addFilter(_is_not_ours)

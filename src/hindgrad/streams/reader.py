"""What gives a step's batch on the host."""

import abc
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from hindgrad.errors import SourceError


class Reader(abc.ABC):
    """The batches of all steps, on the host. It may be asked for any step again, from any one
    thread at a time, and must give the same."""

    @property
    @abc.abstractmethod
    def spec(self) -> PyTree:
        """The structs of what a step gets: (data, index), the index None where it is not known."""

    @property
    def own_spec(self) -> PyTree:
        """The same of what this process reads of it."""
        return self.spec

    @abc.abstractmethod
    def read(self, t: int) -> PyTree:
        """What step `t` gets, as NumPy arrays, as far as this process reads it; raises
        `SourceError` where it cannot be had."""

    @abc.abstractmethod
    def check(self) -> None:
        """Raises `SourceError` if the source is not what it was at first."""

    @abc.abstractmethod
    def described(self) -> list[str]:
        """What must be the same for a call to go on with it."""


def as_arrays(name: str, row: PyTree) -> PyTree:
    """A row's or a batch's leaves as NumPy arrays.

    Raises `SourceError` for a leaf that is none.
    """
    return jax.tree_util.tree_map_with_path(lambda path, x: _as_array(name, path, x), row)


def _as_array(name, path, leaf):
    where = name + jax.tree_util.keystr(path)
    try:
        array = np.asarray(leaf)
    except Exception as error:  # whatever a foreign type may raise
        raise SourceError(
            f"{where} is {type(leaf).__name__}, which is no array: {error}"
        ) from error
    if not (array.dtype.kind in "biufc" or jnp.issubdtype(array.dtype, jnp.inexact)):
        raise SourceError(
            f"{where} is {leaf!r:.60} ({array.dtype}): numbers are needed. Make arrays of "
            "them first (in stream, by decode=)."
        )
    return array


def structs(arrays: PyTree) -> PyTree:
    """The structs of arrays, with the dtypes that they have in JAX, in the user's setting."""
    canonical = jax.dtypes.canonicalize_dtype
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, canonical(x.dtype)), arrays)


def cast(name: str, arrays: PyTree, spec: PyTree) -> PyTree:
    """Arrays in the dtypes of `spec`, the structs of one of them or of several stacked.

    Raises `SourceError` for a whole number beyond that dtype's range.
    """

    def convert(path, array, like):
        if array.dtype == like.dtype:
            return array
        if array.dtype.kind in "iu" and array.size:
            limits = np.iinfo(like.dtype)
            if array.min() < limits.min or array.max() > limits.max:
                raise SourceError(
                    f"{name}{jax.tree_util.keystr(path)} has whole numbers beyond {like.dtype}, "
                    f"which {array.dtype} becomes in JAX without jax.enable_x64."
                )
        return array.astype(like.dtype)

    return jax.tree_util.tree_map_with_path(convert, arrays, spec)


def check_like(name: str, found: PyTree, other: PyTree, first: str, remedy: str) -> None:
    """Raises `SourceError` if a row or batch has another structure, shape or dtype than the
    first."""
    if jax.tree.structure(found) != jax.tree.structure(other):
        raise SourceError(
            f"{name} is like {jax.tree.structure(found)}, and {first} like "
            f"{jax.tree.structure(other)}. {remedy}"
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(other), strict=True)
    for (path, a), b in pairs:
        if a.shape != b.shape or a.dtype != b.dtype:
            where = name + jax.tree_util.keystr(path)
            raise SourceError(
                f"{where} is {a.dtype}{list(a.shape)}, and in {first} {b.dtype}{list(b.shape)}. "
                f"{remedy}"
            )


def failed(name: str, error: Any) -> SourceError:
    """What is said where a source raised."""
    return SourceError(f"{name} could not be read: {type(error).__name__}: {error}")

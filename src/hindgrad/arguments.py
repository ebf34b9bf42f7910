"""What users pass, checked and brought into one form."""

import dataclasses
from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from hindgrad import trees

Whole = int | np.integer
"""A whole number, Python's or NumPy's."""
Key = PRNGKeyArray | Whole
"""A key or a seed."""


def as_whole(caller: str, name: str, value: Any, *, least: int = 1) -> int:
    """A whole number of Python's; raises `ValueError` for anything else, and below `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(
            f"{caller}({name}={value!r}): a whole number, at least {least}, is needed."
        )
    return int(value)


def whole(caller: str, name: str, *, least: int = 1) -> Callable[[Any], int]:
    """`as_whole` as the converter of a field."""
    return partial(as_whole, caller, name, least=least)


def whole_or_none(caller: str, name: str) -> Callable[[Any], int | None]:
    """The same, for a field that may be None."""
    return lambda value: None if value is None else as_whole(caller, name, value)


def as_folder(name: str, value: Any) -> Path:
    """The path of a folder; raises `ValueError` if it is none."""
    if not isinstance(value, (str, PathLike)):
        raise ValueError(f"{name}={value!r}: the path of a folder is needed.")
    return Path(value)


def as_key(caller: str, key: Any, *, name: str = "key") -> Any:
    """One key, from a key or a seed.

    Raises `TypeError` if it is neither, `ValueError` for an array of keys or a seed out of range.
    """
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        if not 0 <= key < 2**32:
            raise ValueError(
                f"{caller}({name}={key}): a seed goes from 0 to 2^32 − 1, as others mean another "
                "key with jax.enable_x64 on than off. Give such a seed, or a jax.random.key(…)."
            )
        return jax.random.key(int(key))
    try:
        shape = jnp.shape(jax.random.key_data(key))[:-1]
    except TypeError:
        raise TypeError(
            f"{caller}({name}={key!r}) is neither a key nor a seed: give jax.random.key(0), or a "
            "whole number."
        ) from None
    if shape:
        raise ValueError(
            f"{caller} was given an array of keys of shape {shape}; one key is needed. For "
            "several runs, jax.vmap over the keys."
        )
    return key


def as_keys(caller: str, key: Any) -> tuple[PRNGKeyArray, ...]:
    """The arguments of an objective beside `hyper`: a key, or none."""
    return () if key is None else (as_key(caller, key),)


def floats_and_rest(caller: str, hyper: PyTree) -> tuple[PyTree, PyTree]:
    """The hyperparameters' floats, and everything else in them, as `equinox.partition` gives both.

    Raises `ValueError` if there is no float.
    """
    floats, rest = eqx.partition(trees.as_hyper(hyper), eqx.is_inexact_array)
    if dataclasses.is_dataclass(hyper) and jax.tree_util.all_leaves([hyper]):
        raise ValueError(
            f"{caller} was given a {type(hyper).__name__}, of which JAX does not know that it "
            "holds numbers: take jax.tree_util.register_dataclass, an equinox.Module, or a dict."
        )
    if not trees.size(floats):
        raise ValueError(
            f"{caller} was given hyperparameters without a float among them: write a number as 1.0."
        )
    return floats, rest

"""Learned optimizers in files: the weights as safetensors, the architecture and notes with them."""

import dataclasses
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from hindgrad.files import read_arrays, write_arrays
from hindgrad.learned.base import LearnedOptimizer, View
from hindgrad.learned.partitioned import by_kind

FORMAT = "hindgrad learned optimizer"
VERSION = 1

SHIPPED = Path(__file__).parent / "weights"
"""Where the optimizers are that come with the package."""

SUFFIX = ".safetensors"

FUNCTIONS = {"by_kind": by_kind}


class Trained(NamedTuple):
    """A learned optimizer with its weights."""

    optimizer: LearnedOptimizer
    weights: PyTree
    notes: Mapping[str, Any]
    """What was noted when it was saved, such as what it was learned on."""

    def as_optax(self) -> optax.GradientTransformation:
        """The optimizer as optax knows optimizers."""
        return self.optimizer.as_optax(self.weights)


def save(
    path: str | Path,
    optimizer: LearnedOptimizer,
    weights: PyTree,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Writes a learned optimizer into a safetensors file, with its architecture and `notes`, which
    is what JSON can hold. Loaded again, it takes the same steps to the bit.

        hg.learned.save("mine.safetensors", optimizer, result.weights, {"learned on": "quadratics"})
        optimizer, weights, notes = hg.learned.load("mine.safetensors")

    Raises `ValueError` if the optimizer has parts that are not hindgrad's own, or if the weights
    are not float32 or do not belong to it.
    """
    path = Path(path)
    arrays = _named(weights)
    metadata = {
        "format": f"{FORMAT} {VERSION}",
        "optimizer": json.dumps(_encoded(optimizer, "the optimizer"), sort_keys=True),
        "notes": _notes(notes or {}),
    }
    expected = _named(_shapes(optimizer))
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise ValueError(
                f"The weights at {name} are {array.dtype}; a file holds float32. Convert them: "
                "jax.tree.map(lambda w: w.astype('float32'), weights)."
            )
    wrong = _difference(arrays, expected)
    if wrong:
        raise ValueError(
            f"The weights do not belong to {optimizer!r}: {wrong}. Give those that `fit` returned "
            "for this optimizer."
        )
    write_arrays(path, arrays, metadata)


def load(name_or_path: str | Path) -> Trained:
    """A learned optimizer from a file that `save` wrote, or one that comes with the package, by
    its name: "quadratic", "mlp".

        hg.learned.load("quadratic").as_optax()

    Raises `ValueError` if there is none of that name, or if the file is damaged or of another
    kind; `FileNotFoundError` if there is no such file.
    """
    path = _find(name_or_path)
    arrays, metadata = read_arrays(path)
    _check_version(path, metadata)
    try:
        optimizer = _decoded(json.loads(metadata["optimizer"]))
        notes = json.loads(metadata["notes"])
        shapes = _shapes(optimizer)
    except _UnknownPartError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:
        raise ValueError(f"{path}: the architecture in it is damaged ({error}).") from error
    wrong = _difference(arrays, _named(shapes))
    if wrong:
        raise ValueError(f"{path}: the weights are not those of the architecture in it: {wrong}.")
    names, structure = list(_named(shapes)), jax.tree.structure(shapes)
    weights = jax.tree.unflatten(structure, [jnp.asarray(arrays[name]) for name in names])
    return Trained(optimizer, weights, notes)


def known() -> dict[str, type]:
    """The classes that a file may ask for: hindgrad's own learned optimizers and views. Nothing
    else is ever made from one."""
    found, left = {}, [LearnedOptimizer, View]
    while left:
        cls = left.pop()
        left += cls.__subclasses__()
        own = cls.__module__.startswith(f"{__package__}.")
        if own and getattr(sys.modules[cls.__module__], cls.__name__, None) is cls:
            found[cls.__name__] = cls
    return {name: cls for name, cls in found.items() if not inspect.isabstract(cls)}


def shipped() -> list[str]:
    """The names of the optimizers that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob(f"*{SUFFIX}"))


def _find(name_or_path: str | Path) -> Path:
    if isinstance(name_or_path, str) and name_or_path in shipped():
        return SHIPPED / f"{name_or_path}{SUFFIX}"
    path = Path(name_or_path)
    if path.is_file():
        return path
    if len(path.parts) == 1 and not path.suffix:
        names = ", ".join(map(repr, shipped())) or "none"
        raise ValueError(
            f"There is no learned optimizer {str(path)!r}. Those that come with the package: "
            f"{names}. For one of your own, give the path of its file."
        )
    if path.exists():
        raise ValueError(f"{path} is no file. Give the path of one that `save` wrote.")
    raise FileNotFoundError(f"{path}: no such file.")


def _check_version(path: Path, metadata: Mapping[str, str]) -> None:
    name, _, version = metadata.get("format", "").rpartition(" ")
    if name != FORMAT:
        raise ValueError(
            f"{path}: a safetensors file, but no learned optimizer. Give one that "
            "hg.learned.save wrote."
        )
    if version != str(VERSION):
        raise ValueError(
            f"{path}: written in version {version} of the format, where this hindgrad reads "
            f"version {VERSION}. Load it with the hindgrad that wrote it, or a later one."
        )


class _UnknownPartError(ValueError):
    """A file asks for a part that hindgrad does not have."""


def _encoded(value: Any, where: str) -> Any:
    """A part of an optimizer as JSON can hold it, from which `_decoded` makes it again."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float) and np.isfinite(value):
        return value
    if isinstance(value, (list, tuple)):
        items = [_encoded(v, f"{where}[{i}]") for i, v in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {"dict": {name: _encoded(v, f"{where}[{name!r}]") for name, v in value.items()}}
    if isinstance(value, eqx.Module) and type(value) in known().values():
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        encoded = {name: _encoded(v, f"{where}'s {name}") for name, v in fields.items()}
        return {"class": type(value).__name__, "fields": encoded}
    for name, function in FUNCTIONS.items():
        if value is function:
            return {"function": name}
    raise ValueError(_refusal(value, where))


def _refusal(value: Any, where: str) -> str:
    instead = "save the weights alone, by numpy.savez, and keep your code"
    if inspect.isroutine(value):
        instead = "give labels as a tree of names, or None for by_kind"
    elif not isinstance(value, (eqx.Module, Callable)):
        instead = "use Python numbers, texts, tuples and dictionaries"
    return (
        f"Cannot save {where}, {value!r}: a file holds parts of hindgrad.learned only, never code. "
        f"Instead, {instead}."
    )


def _decoded(value: Any) -> Any:
    match value:
        case {"class": str(name), "fields": dict(fields)}:
            if name not in known():
                raise _UnknownPartError(
                    f"it needs {name!r}, which this hindgrad does not have. Load it with the "
                    "hindgrad that wrote it, or a later one."
                )
            return known()[name](**{name: _decoded(v) for name, v in fields.items()})
        case {"function": str(name)}:
            return FUNCTIONS[name]
        case {"tuple": list(items)}:
            return tuple(map(_decoded, items))
        case {"list": list(items)}:
            return list(map(_decoded, items))
        case {"dict": dict(items)}:
            return {name: _decoded(v) for name, v in items.items()}
        case None | bool() | int() | float() | str():
            return value
    raise ValueError(f"unknown: {value!r}")


def _notes(notes: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(notes), allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"save(notes={notes!r}): {error}. Give texts, finite numbers, lists and dictionaries."
        ) from error


def _shapes(optimizer: Any) -> PyTree:
    """What the weights look like, without any being made."""
    if not isinstance(optimizer, LearnedOptimizer):
        raise ValueError(f"{optimizer!r} is no learned optimizer")
    return eqx.filter_eval_shape(optimizer.weights, jax.random.key(0))


def _named(tree: PyTree) -> dict[str, Any]:
    """The arrays of a tree by their places, such as layers.0.matrix."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    asarray = lambda x: x if isinstance(x, jax.ShapeDtypeStruct) else np.asarray(x)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator=".")
    return {name(path): asarray(leaf) for path, leaf in leaves}


def _difference(arrays: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """In words, the first thing in which weights are not as they should be; empty if there is
    none."""
    for name in sorted({*arrays, *expected}):
        if name not in arrays:
            return f"{name} is missing"
        if name not in expected:
            return f"{name} is not needed"
        if arrays[name].shape != expected[name].shape:
            return f"{name} has shape {arrays[name].shape}, not {expected[name].shape}"
        if arrays[name].dtype != np.float32:
            return f"{name} is {arrays[name].dtype}, not float32"
    return ""

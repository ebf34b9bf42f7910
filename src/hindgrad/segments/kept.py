"""Where the positions and tapes of a run in segments are kept."""

import abc
import re
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PyTree

from hindgrad import numerics, several
from hindgrad.arguments import as_folder
from hindgrad.checkpoint import (
    Call,
    as_tree,
    check_same,
    held,
    implementation,
    numbered,
    orbax,
    targets,
    unreadable,
)
from hindgrad.files import as_json, read_json, write_json

WHOLE = re.compile(r"(position|tape|losses|way)-\d{6}")
"""The names of what is kept."""
CUT_SHORT = re.compile(WHOLE.pattern + r"\..+")
"""What a kill may leave of it."""


class Kept(abc.ABC):
    """Trees of arrays, each of a kind and with a number; to be used in a `with` block."""

    def __enter__(self) -> "Kept":
        return self

    def __exit__(self, *exception: object) -> None:
        del exception

    @abc.abstractmethod
    def numbers(self, kind: str) -> set[int]:
        """Which ones of a kind there are."""

    @abc.abstractmethod
    def save(self, kind: str, number: int, tree: PyTree) -> None:
        """Keeps a tree; it is there whole or not at all."""

    @abc.abstractmethod
    def load(self, kind: str, number: int, like: PyTree) -> PyTree:
        """A kept tree, which has the structure of `like` (arrays or structs)."""

    @abc.abstractmethod
    def drop(self, kind: str, number: int) -> None:
        """Forgets a tree, if it is there."""

    @property
    @abc.abstractmethod
    def where(self) -> str:
        """The place, in words."""

    @property
    @abc.abstractmethod
    def free(self) -> int | None:
        """The bytes that there is room for; None if that is not known."""


class _Shards(NamedTuple):
    """An array on several devices, of which each process has its own part."""

    shape: tuple[int, ...]
    sharding: jax.sharding.Sharding
    parts: dict[str, np.ndarray]
    """By their places; several devices may have the same."""

    @classmethod
    def of(cls, x: jax.Array) -> "_Shards":
        """That of an array."""
        found = {str(part.index): part for part in x.addressable_shards}
        return cls(x.shape, x.sharding, {i: np.asarray(part.data) for i, part in found.items()})

    def array(self) -> jax.Array:
        """The array, on its devices again."""
        places = self.sharding.addressable_devices_indices_map(self.shape)
        parts = [jax.device_put(self.parts[str(i)], device) for device, i in places.items()]
        return jax.make_array_from_single_device_arrays(self.shape, self.sharding, parts)


class InMemory(Kept):
    """Kept in the host's memory."""

    def __init__(self):
        self._trees: dict[tuple[str, int], dict[str, Any]] = {}

    def numbers(self, kind):
        return {number for name, number in self._trees if name == kind}

    def save(self, kind, number, tree):
        take = lambda x: _Shards.of(x) if isinstance(x, jax.Array) else x
        self._trees[kind, number] = {name: take(x) for name, x in numbered(tree).items()}

    def load(self, kind, number, like):
        give = lambda x: x.array() if isinstance(x, _Shards) else x
        saved = self._trees[kind, number]
        with numerics.wide():
            return _restored({name: give(x) for name, x in saved.items()}, like)

    def drop(self, kind, number):
        self._trees.pop((kind, number), None)

    @property
    def where(self):
        return "the host's memory"

    @property
    def free(self):
        return None


class OnDisk(Kept):
    """Kept in a directory, so that another call can go on; `call` gives what must be the same for
    that.

    Raises `ValueError` if it holds another call's, `RuntimeError` if another call is using it,
    `ModuleNotFoundError` if orbax is not installed. Of several processes each writes its own part
    of arrays, into a directory that all can read.
    """

    def __init__(self, directory: str | Path, call: Callable[[], Call], mesh: Mesh | None):
        self._mesh = mesh
        self._directory = as_folder("checkpoint", directory).absolute()
        self._inner = self._directory / "segments"
        self._given = call

    def __enter__(self):
        ocp = orbax()
        self._orbax: Any = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
        with ExitStack() as stack:
            stack.enter_context(held(self._directory, self._inner))
            stack.callback(self._orbax.close)
            call = Call(*as_json(self._given()))
            self._names = set(several.agreed(lambda: self._opened(call)))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception):
        self._stack.close()

    def numbers(self, kind):
        names = (name.rpartition("-") for name in self._names)
        return {int(number) for name, _, number in names if name == kind}

    def save(self, kind, number, tree):
        path = self._path(kind, number)
        self._orbax.save(path, numbered(tree), force=True)
        self._names.add(path.name)

    def load(self, kind, number, like):
        path = self._path(kind, number)
        try:
            metadata = self._orbax.metadata(path).item_metadata.tree
            target = targets(metadata, like, self._mesh)
            with numerics.wide():
                saved = self._orbax.restore(path, restore_args=jax.tree.map(self._how, target))
                return _restored(saved, like)
        except Exception as error:  # whatever a damaged file may make of orbax
            raise ValueError(unreadable(self._directory)) from error

    def drop(self, kind, number):
        path = self._path(kind, number)
        if path.name in self._names:  # under another name first, so that a kill leaves no half
            removed = path.with_name(f"{path.name}.dropped")
            several.agreed(lambda: shutil.rmtree(path.rename(removed)))
            self._names.remove(path.name)

    @property
    def where(self):
        return str(self._directory)

    @property
    def free(self):
        return several.agreed(lambda: shutil.disk_usage(self._inner).free)

    def _path(self, kind, number):
        return self._inner / f"{kind}-{number:06}"

    def _opened(self, call):
        """The names of what is kept, once what a kill has left is removed."""
        self._check_call(call)
        for path in self._inner.iterdir():
            if CUT_SHORT.fullmatch(path.name):
                shutil.rmtree(path)
        return [path.name for path in self._inner.iterdir() if WHOLE.fullmatch(path.name)]

    def _how(self, target):
        """How orbax is to read an array."""
        ocp = orbax()
        if isinstance(target, np.ndarray):
            return ocp.RestoreArgs(restore_type=np.ndarray)
        return ocp.ArrayRestoreArgs(restore_type=jax.Array, sharding=target.sharding)

    def _check_call(self, call):
        path = self._directory / "call.json"
        if not path.exists() and any(self._inner.iterdir()):
            raise ValueError(
                f"The checkpoint {self._directory} has a folder `segments` that is not from a call "
                "of hypergradient. Name another directory."
            )
        if not path.exists():
            write_json(path, call)
            return
        try:
            saved = Call(**dict(zip(Call._fields, read_json(path), strict=True)))
        except (TypeError, ValueError) as error:
            raise ValueError(unreadable(self._directory)) from error
        check_same(self._directory, saved, call)


def blank(like: PyTree) -> PyTree:
    """Arrays of zeros in place of the structs in `like`."""

    def zeros(x):
        if not isinstance(x, jax.ShapeDtypeStruct):
            return x
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jnp.zeros(x.shape, x.dtype)
        data = jax.eval_shape(jax.random.key_data, x)
        return jax.random.wrap_key_data(jnp.zeros(data.shape, data.dtype), impl=implementation(x))

    with numerics.wide():
        return jax.tree.map(zeros, like)


def _restored(saved, like):
    tree = as_tree(saved, like)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(like), strict=True):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise ValueError(f"{a.dtype}{list(a.shape)} in place of {b.dtype}{list(b.shape)}.")
    return tree

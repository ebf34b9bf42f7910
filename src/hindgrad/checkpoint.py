"""States of a long call kept in a directory, so that it survives a kill, and the check that another
call is the same and may go on from them."""

import hashlib
import math
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from hindgrad import placement, several
from hindgrad.arguments import as_folder
from hindgrad.files import as_json, locked

SECONDS_BETWEEN_SAVES = 5.0
"""The steps since the last save are quickly taken again, and come out the same."""

TOLERANCE = 1e-3
"""How far, relatively, numbers may be apart: another machine rounds otherwise."""

State = TypeVar("State", bound=Any)
"""A NamedTuple."""


class Call(NamedTuple):
    """What must be the same for a call to go on."""

    arguments: Mapping[str, Any]
    """Those that can be compared."""
    numbers: Mapping[str, Sequence[float]] = {}
    """Functions cannot be compared; what distinguishes them is the first numbers that they give."""
    devices: int = 1
    """On how many it runs. A call may go on on another number: that is said."""


def difference(saved: Call, call: Call) -> str | None:
    """The name of the first argument in which two calls differ, as they come back from JSON."""
    for name, value in call.arguments.items():
        if saved.arguments.get(name) != value:
            return name
    for name, numbers in call.numbers.items():
        others = saved.numbers.get(name, [])
        if len(others) != len(numbers) or not all(map(_is_close, others, numbers)):
            return name
    return None


def _is_close(a, b):
    return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=1e-12) or (a != a and b != b)


def described(value: Any) -> str:
    """An object in words that are the same in the next process."""
    return re.sub(r" at 0x[0-9a-f]+", "", eqx.tree_pformat(value, short_arrays=False))


def contents(tree: PyTree) -> list[str]:
    """What a tree holds: its structure, and each array's shape, dtype and a digest of its bytes."""
    return [described(jax.tree.structure(tree)), *map(_content, jax.tree.leaves(tree))]


def _content(leaf):
    if not eqx.is_array_like(leaf) or isinstance(leaf, (bool, int, float, complex)):
        return described(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = several.whole(leaf)
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return f"{array.dtype}{list(array.shape)} {digest[:16]}"


class Checkpoint:
    """A directory that keeps the two latest states of a call; with None, nothing is kept.

    `call` gives what must be the same for another call to go on from there. To be used in a `with`
    block, which holds the directory's lock. Raises `RuntimeError` if another call holds it,
    `ModuleNotFoundError` if orbax is not installed.
    """

    def __init__(self, directory: str | Path | None, call: Callable[[], Call]):
        is_kept = directory is not None
        self._directory = as_folder("checkpoint", directory).absolute() if is_kept else None
        self._given = call
        self._manager: Any = None

    def __enter__(self) -> "Checkpoint":
        with ExitStack() as stack:
            if self._directory is not None:
                self._open(self._directory, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def restore(
        self, begin: State, like: Callable[[dict[str, Any]], State], notes: Sequence[str]
    ) -> State:
        """The latest state that can be read, or `begin` if there is none.

        `notes` are the names of the fields that JSON can hold; the others are trees of arrays.
        `like` is given the notes, and the lengths of lists among the others, and returns a state
        with trees such as the kept one's.

        Raises `ValueError` if it is another call's, or if there are states but none can be read.
        """
        if self._manager is None:
            return begin
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                saved = self._read(step, notes=self._args.JsonRestore())
                call, noted = Call(**saved["call"]), saved["notes"]
            except Exception:  # whatever a damaged file may make of orbax
                continue
            check_same(self._states.parent, call, self._call)
            trees, _ = _apart(like(noted), notes)
            try:
                metadata = self._manager.item_metadata(step)["arrays"].tree
                target = targets(metadata, trees, placement.mesh_of((begin, trees)))
                arrays = self._read(step, arrays=self._args.StandardRestore(target))
                trees = as_tree(arrays, trees)
            except Exception:
                continue
            self._forget(newer_than=step)
            return type(begin)(**trees, **{name: noted[name] for name in notes})
        if steps:
            raise ValueError(unreadable(self._states.parent))
        return begin

    def save(self, step: int, state: Any, notes: Sequence[str], *, now: bool) -> None:
        """Saves a state; unless `now`, only if the last save is some seconds old."""
        if self._manager is None:
            return
        recently = lambda: time.monotonic() - self._saved < SECONDS_BETWEEN_SAVES
        if step == self._manager.latest_step() or (not now and several.agreed(recently)):
            return
        trees, noted = _apart(state, notes)
        arguments = self._args.Composite(
            arrays=self._args.StandardSave(numbered(trees)),
            notes=self._args.JsonSave({"call": self._call._asdict(), "notes": noted}),
        )
        self._manager.save(step, args=arguments, force=True)
        self._saved = time.monotonic()

    def _open(self, directory, stack):
        ocp = orbax()
        self._states = directory / "states"
        stack.enter_context(held(directory, self._states))
        self._call = Call(*as_json(self._given()))
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        handlers = {"arrays": ocp.StandardCheckpointHandler(), "notes": ocp.JsonCheckpointHandler()}
        self._manager = ocp.CheckpointManager(self._states, options=options, item_handlers=handlers)
        stack.callback(self._manager.close)
        self._args = ocp.args
        self._saved = time.monotonic()

    def _read(self, step, **item):
        (name,) = item
        return self._manager.restore(step, args=self._args.Composite(**item))[name]

    def _forget(self, newer_than):
        def remove():
            for step in self._manager.all_steps():
                if step > newer_than:
                    shutil.rmtree(self._states / str(step))

        several.agreed(remove)
        self._manager.reload()


@contextmanager
def held(directory: Path, inner: Path) -> Iterator[None]:
    """Makes a checkpoint's directory with one within, and keeps other calls out of it. Of several
    processes, the first does.

    Raises `ValueError` if it cannot be one, `RuntimeError` if another call holds it.
    """
    with ExitStack() as stack:
        several.agreed(lambda: stack.enter_context(_held(directory, inner)))
        yield


@contextmanager
def _held(directory, inner):
    try:
        inner.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(
            f"The checkpoint {directory} cannot be a directory, as {error.filename} is a file. "
            "Name another one."
        ) from error
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(directory))
        except BlockingIOError:
            raise RuntimeError(
                f"Another call is using the checkpoint in {directory}. Wait for its end, or name "
                "another directory."
            ) from None
        yield


def check_same(directory: Path, saved: Call, call: Call) -> None:
    """Raises `ValueError` if a checkpoint is another call's; warns if it goes on on another number
    of devices."""
    if name := difference(saved, call):
        raise ValueError(
            f"The checkpoint in {directory} belongs to a call with another `{name}`. Give the same "
            "arguments to go on with it, or another directory."
        )
    if saved.devices != call.devices:
        warnings.warn(
            f"The checkpoint is of a call on {saved.devices} devices, and goes on on "
            f"{call.devices}: sums over devices are rounded otherwise, and so are the results.",
            RuntimeWarning,
            stacklevel=2,
        )


def unreadable(directory: Path) -> str:
    """What is said of a damaged checkpoint."""
    return (
        f"The checkpoint in {directory} cannot be read: it is damaged, or another program's. "
        "Delete the directory to begin anew, or name another one."
    )


def orbax() -> Any:
    """Orbax; `ModuleNotFoundError` with what to install if it is missing."""
    try:
        import orbax.checkpoint  # slow to import, and most calls do without
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'checkpoint= needs orbax, which is not installed: pip install "hindgrad[checkpoint]".',
            name=error.name,
        ) from None
    return orbax.checkpoint


def _apart(state, notes):
    """A state's trees; and its notes, with the lengths of lists of trees."""
    trees = state._asdict()
    noted = {name: trees.pop(name) for name in notes}
    lengths = {name: len(value) for name, value in trees.items() if isinstance(value, list)}
    return trees, noted | lengths


def _names(tree):
    """Under what name each leaf is kept; None for what is not, such as empty arrays, which orbax
    refuses."""
    kept = lambda x: isinstance(x, (int, float)) or (hasattr(x, "dtype") and x.size > 0)
    return [f"{i:06}" if kept(x) else None for i, x in enumerate(jax.tree.leaves(tree))]


def numbered(tree: PyTree) -> dict[str, np.ndarray | Array]:
    """What of a tree is kept, by its place; arrays on several devices stay there."""
    data = lambda x: jax.random.key_data(x) if _is_key(x) else x
    whole = lambda x: x if placement.is_spread(x) else np.asarray(x)
    named = zip(_names(tree), jax.tree.leaves(tree), strict=True)
    return {name: whole(data(leaf)) for name, leaf in named if name}


def targets(metadata: Mapping[str, Any], like: PyTree, mesh: Mesh | None) -> dict[str, Any]:
    """As what orbax is to read what it kept, by its `metadata`: arrays are placed as those in
    `like` are; where those are not on several devices, as they were, on the axes of this mesh with
    the same names."""
    places = dict(zip(_names(like), map(_place, jax.tree.leaves(like)), strict=True))

    def target(name, kept):
        place, spec = places.get(name), getattr(kept.sharding, "partition_spec", None)
        if place is None and spec is not None and mesh is not None:
            place = placement.again(spec, mesh)
        if place is None:
            return np.empty(kept.shape, kept.dtype)
        return jax.ShapeDtypeStruct(kept.shape, kept.dtype, sharding=place)

    return {name: target(name, kept) for name, kept in metadata.items()}


def _place(x):
    """Where an array on several devices is; None for any other."""
    x = jax.random.key_data(x) if placement.is_spread(x) and _is_key(x) else x
    return x.sharding if placement.is_spread(x) else None


def as_tree(saved: Mapping[str, Any], like: PyTree) -> PyTree:
    """A tree like `like` (arrays or structs) of what `numbered` gave."""
    leaves, structure = jax.tree.flatten(like)
    named = zip(_names(like), leaves, strict=True)
    rest = lambda x: jnp.zeros(x.shape, x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x
    return jax.tree.unflatten(
        structure, [_as_leaf(saved[name], x) if name else rest(x) for name, x in named]
    )


def _as_leaf(saved, like):
    """As a JAX array again, since NumPy rounds some operations otherwise; as a key; as a number."""
    if isinstance(like, (int, float)):
        return type(like)(saved)
    array = jnp.asarray(saved)
    return jax.random.wrap_key_data(array, impl=implementation(like)) if _is_key(like) else array


def implementation(keys: Any) -> Any:
    """That of keys, or of a struct of keys."""
    found = []
    jax.eval_shape(lambda keys: found.append(jax.random.key_impl(keys)), keys)
    return found[0]


def _is_key(x):
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)

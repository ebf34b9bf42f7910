"""Arrays and notes kept in a directory, so that a long call survives a kill."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from hindgrad.tuning.call import Call, difference

SECONDS_BETWEEN_SAVES = 5.0
"""The steps since the last save are quickly taken again, and come out the same."""


class Snapshots:
    """A directory that keeps the two latest states of a call; with None, nothing is kept.

    `call` gives what must be the same for another call to go on from there. To be used in a `with`
    block, which holds the directory's lock. Raises `RuntimeError` if another call holds it.
    """

    def __init__(self, directory: str | Path | None, call: Callable[[], Call]):
        self._manager: Any = None
        if directory is None:
            return
        import orbax.checkpoint as ocp  # slow to import, and most calls do without

        self._directory = Path(directory).absolute()
        states = self._directory / "states"
        try:
            states.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(
                f"The checkpoint {self._directory} cannot be a directory, as {error.filename} is a "
                "file. Name another one."
            ) from error
        self._lock = _locked(self._directory)
        try:
            self._call = _plain(call()._asdict())
            options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
            self._manager = ocp.CheckpointManager(states, options=options)
        except BaseException:
            self._lock.close()
            raise
        self._args = ocp.args
        self._saved = time.monotonic()

    def __enter__(self) -> "Snapshots":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._manager is not None:
            self._manager.close()
            self._lock.close()

    def restore(self, like: Callable[[dict], PyTree]) -> tuple[PyTree, dict[str, Any]] | None:
        """The arrays and the notes of the latest state that can be read; None if there is none.
        `like(notes)` is a tree such as the arrays are in.

        Raises `ValueError` if it is another call's, or if there are states but none can be read.
        """
        steps = [] if self._manager is None else sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                saved = self._read(step, notes=self._args.JsonRestore())
                call, notes = saved["call"], saved["notes"]
            except Exception:  # whatever a damaged file may make of orbax
                continue
            if name := difference(call, self._call):
                raise ValueError(
                    f"The checkpoint in {self._directory} belongs to a call with another `{name}`. "
                    "Give the same arguments to go on with it, or another directory."
                )
            tree = like(notes)
            try:
                saved = self._read(step, arrays=self._args.StandardRestore(_numbered(tree)))
                arrays = _as_tree(saved, tree)
            except Exception:
                continue
            self._forget(newer_than=step)
            return arrays, notes
        if steps:
            raise ValueError(
                f"The checkpoint in {self._directory} cannot be read: it is damaged, or another "
                "program's. Delete the directory to begin anew, or name another one."
            )
        return None

    def save(self, step: int, arrays: PyTree, notes: dict[str, Any], *, now: bool) -> None:
        """Saves a state; unless `now`, only if the last save is some seconds old."""
        if self._manager is None:
            return
        recently = time.monotonic() - self._saved < SECONDS_BETWEEN_SAVES
        if (recently and not now) or step == self._manager.latest_step():
            return
        arguments = self._args.Composite(
            arrays=self._args.StandardSave(_numbered(arrays)),
            notes=self._args.JsonSave({"call": self._call, "notes": notes}),
        )
        self._manager.save(step, args=arguments, force=True)
        self._saved = time.monotonic()

    def _read(self, step, **item):
        (name,) = item
        return self._manager.restore(step, args=self._args.Composite(**item))[name]

    def _forget(self, newer_than):
        for step in self._manager.all_steps():
            if step > newer_than:
                shutil.rmtree(self._directory / "states" / str(step))
        self._manager.reload()


def _locked(directory):
    """The lock of a directory, held until it is closed, or its process ends."""
    lock = (directory / "lock").open("w")
    try:
        import fcntl
    except ImportError:  # Windows has none, and does without
        return lock
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise RuntimeError(
            f"Another call is using the checkpoint in {directory}. Wait for its end, or name "
            "another directory."
        ) from None
    return lock


def _plain(call):
    """As it comes back from JSON."""
    return json.loads(json.dumps(call))


def _names(tree):
    """Under what name each leaf is kept; None for what is not, such as empty arrays, which orbax
    refuses."""
    kept = lambda x: isinstance(x, (int, float)) or (hasattr(x, "dtype") and x.size > 0)
    return [f"{i:06}" if kept(x) else None for i, x in enumerate(jax.tree.leaves(tree))]


def _numbered(tree):
    data = lambda x: jax.random.key_data(x) if _is_key(x) else x
    named = zip(_names(tree), jax.tree.leaves(tree), strict=True)
    return {name: np.asarray(data(leaf)) for name, leaf in named if name}


def _as_tree(saved, like):
    leaves, structure = jax.tree.flatten(like)
    named = zip(_names(like), leaves, strict=True)
    return jax.tree.unflatten(
        structure, [_as_leaf(saved[name], x) if name else x for name, x in named]
    )


def _as_leaf(saved, like):
    """As a JAX array again, since NumPy rounds some operations otherwise; as a key; as a number."""
    if isinstance(like, (int, float)):
        return type(like)(saved)
    array = jnp.asarray(saved)
    return (
        jax.random.wrap_key_data(array, impl=jax.random.key_impl(like)) if _is_key(like) else array
    )


def _is_key(x):
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)

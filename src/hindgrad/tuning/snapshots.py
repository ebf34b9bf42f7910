"""Arrays and notes kept in a directory, so that a long call survives a kill."""

import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

SECONDS_BETWEEN_SAVES = 5.0
"""The steps since the last save are quickly taken again, and come out the same."""


class Snapshots:
    """A directory that keeps the latest state of a call; with None, nothing is kept.

    `call` is what must be the same for another call to go on from there. Raises `ValueError` if
    the directory holds the state of a call that differs.
    """

    def __init__(self, directory: str | Path | None, call: dict[str, Any]):
        self._manager: Any = None
        if directory is None:
            return
        import orbax.checkpoint as ocp  # slow to import, and most calls do without

        path = Path(directory).absolute()
        path.mkdir(parents=True, exist_ok=True)
        _check_same_call(path / "call.json", call)
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(path / "states", options=options)
        self._args = ocp.args
        self._saved = time.monotonic()

    def notes(self) -> dict[str, Any] | None:
        """The notes of the latest state; None if there is none."""
        if self._manager is None or (step := self._manager.latest_step()) is None:
            return None
        args = self._args.Composite(notes=self._args.JsonRestore())
        return self._manager.restore(step, args=args)["notes"]

    def arrays(self, like: PyTree) -> PyTree:
        """The arrays of the latest state, in a tree like this one."""
        args = self._args.Composite(arrays=self._args.StandardRestore(_numbered(like)))
        saved = self._manager.restore(self._manager.latest_step(), args=args)["arrays"]
        leaves, structure = jax.tree.flatten(like)
        # JAX arrays again: NumPy rounds some operations otherwise.
        arrays = [jnp.asarray(saved[name]) for name in sorted(saved)]
        return jax.tree.unflatten(structure, map(_as_key, arrays, leaves))

    def save(self, step: int, arrays: PyTree, notes: dict[str, Any], *, now: bool) -> None:
        """Saves a state; unless `now`, only if the last save is some seconds old."""
        if self._manager is None:
            return
        recently = time.monotonic() - self._saved < SECONDS_BETWEEN_SAVES
        if (recently and not now) or step == self._manager.latest_step():
            return
        arguments = self._args.Composite(
            arrays=self._args.StandardSave(_numbered(arrays)), notes=self._args.JsonSave(notes)
        )
        self._manager.save(step, args=arguments, force=True)
        self._saved = time.monotonic()

    def close(self) -> None:
        """Ends the saving."""
        if self._manager is not None:
            self._manager.close()


def _numbered(tree):
    data = lambda x: jax.random.key_data(x) if _is_key(x) else x
    return {f"{i:06}": np.asarray(data(leaf)) for i, leaf in enumerate(jax.tree.leaves(tree))}


def _as_key(array, like):
    if not _is_key(like):
        return array
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(like))


def _is_key(x):
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _check_same_call(path, call):
    if not path.exists():
        temporary = path.with_suffix(".part")
        temporary.write_text(json.dumps(call))
        temporary.replace(path)
        return
    saved = json.loads(path.read_text())
    for name, value in json.loads(json.dumps(call)).items():
        if saved.get(name) != value:
            raise ValueError(
                f"The checkpoint in {path.parent} belongs to a call with another `{name}`. Give "
                "the same arguments to go on with it, or another directory."
            )

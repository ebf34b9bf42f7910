"""The state of a tuning, and its saving so that it survives a kill."""

import json
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

SECONDS_BETWEEN_SAVES = 5.0
"""The steps since the last save are quickly taken again, and come out the same."""

Status = Literal["accepted", "not finite", "worse by far", "worse for long"]


class Record(NamedTuple):
    """One outer step."""

    step: int
    value: float
    """The objective at this step's hyperparameters."""
    norm: float
    """The Euclidean norm of the hypergradient there."""
    scale: float
    """By how much the optimizer's updates are scaled down so far."""
    status: Status
    """Whether the step that led here was accepted, or why it was undone."""
    reason: str = ""
    """What an exact adjoint said of a run that is not finite."""


class Point(NamedTuple):
    """An accepted point: hyperparameters, and what the optimizer made of the hypergradient."""

    hyper: PyTree
    updates: PyTree
    memory: PyTree


class State(NamedTuple):
    """All that an interrupted tuning needs to go on. `hyper` is the next to be evaluated."""

    hyper: PyTree
    best: PyTree
    total: PyTree
    """The sum of the iterates to be averaged."""
    accepted: list[Point]
    """The latest accepted points, to turn back to."""
    refuge: Point
    """A point from the best stretch so far, to turn back to from a long decline."""
    handed: PyTree
    """What the last hypergradient handed on to the next (see `Adjoint.first_guess`)."""
    refuge_values: list[float]
    """The values of that stretch; empty as long as there is none."""
    best_value: float
    summed: int
    """How many iterates `total` is the sum of."""
    scale: float
    history: list[Record]


NUMBERS = ("refuge_values", "best_value", "summed", "scale")


class Store:
    """A directory that keeps the latest state of a tuning; with None, nothing is kept."""

    def __init__(self, directory: str | Path | None, call: dict[str, Any]):
        self._manager: Any = None
        if directory is None:
            return
        import orbax.checkpoint as ocp  # slow to import, and most tunings do without

        path = Path(directory).absolute()
        path.mkdir(parents=True, exist_ok=True)
        _check_same_call(path / "call.json", call)
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(path / "states", options=options)
        self._args = ocp.args
        self._saved = time.monotonic()

    def restore(self, begin: State, point: Point) -> State:
        """The latest state saved, or `begin` if there is none; `point` gives points' structure."""
        if self._manager is None or (step := self._manager.latest_step()) is None:
            return begin
        args = self._args.Composite(notes=self._args.JsonRestore())
        notes = self._manager.restore(step, args=args)["notes"]
        like = begin._replace(accepted=[point] * notes["accepted"])
        args = self._args.Composite(arrays=self._args.StandardRestore(_arrays(like)))
        saved = self._manager.restore(step, args=args)["arrays"]
        structure = jax.tree.structure(_trees(like))
        # JAX arrays again: NumPy rounds some operations otherwise.
        leaves = [jnp.asarray(saved[name]) for name in sorted(saved)]
        arrays = jax.tree.unflatten(structure, leaves)
        history = [Record(*record) for record in notes["history"]]
        hyper, best, total, accepted, refuge, handed = arrays
        numbers = {name: notes[name] for name in NUMBERS}
        return State(hyper, best, total, accepted, refuge, handed, **numbers, history=history)

    def save(self, state: State, *, now: bool) -> None:
        """Saves the state; unless `now`, only if the last save is some seconds old."""
        if self._manager is None:
            return
        step, recently = len(state.history), time.monotonic() - self._saved < SECONDS_BETWEEN_SAVES
        if (recently and not now) or step == self._manager.latest_step():
            return
        notes: dict[str, Any] = {name: getattr(state, name) for name in NUMBERS}
        notes |= {"accepted": len(state.accepted), "history": state.history}
        self._manager.save(
            step,
            args=self._args.Composite(
                arrays=self._args.StandardSave(_arrays(state)), notes=self._args.JsonSave(notes)
            ),
            force=True,
        )
        self._saved = time.monotonic()

    def close(self) -> None:
        """Ends the saving."""
        if self._manager is not None:
            self._manager.close()


def _trees(state):
    return state.hyper, state.best, state.total, state.accepted, state.refuge, state.handed


def _arrays(state):
    leaves = jax.tree.leaves(_trees(state))
    return {f"{i:06}": np.asarray(leaf) for i, leaf in enumerate(leaves)}


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
                f"The checkpoint in {path.parent} belongs to a tuning with another `{name}`. Give "
                "the same arguments to go on with it, or another directory."
            )

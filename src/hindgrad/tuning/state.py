"""The state of a tuning, and how it is saved."""

from typing import Any, Literal, NamedTuple

from jaxtyping import PyTree

from hindgrad.tuning.snapshots import Snapshots

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


def restore(store: Snapshots, begin: State, point: Point) -> State:
    """The latest state saved, or `begin` if there is none; `point` gives points' structure."""
    like = lambda notes: _trees(begin._replace(accepted=[point] * notes["accepted"]))
    kept = store.restore(like)
    if kept is None:
        return begin
    arrays, notes = kept
    history = [Record(*record) for record in notes["history"]]
    numbers = {name: notes[name] for name in NUMBERS}
    return State(*arrays, **numbers, history=history)


def save(store: Snapshots, state: State, *, now: bool) -> None:
    """Saves the state; unless `now`, only if the last save is some seconds old."""
    notes: dict[str, Any] = {name: getattr(state, name) for name in NUMBERS}
    notes |= {"accepted": len(state.accepted), "history": state.history}
    store.save(len(state.history), _trees(state), notes, now=now)


def _trees(state):
    return state.hyper, state.best, state.total, state.accepted, state.refuge, state.handed

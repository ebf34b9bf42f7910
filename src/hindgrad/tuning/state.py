"""The state of a tuning, and how it is saved."""

from typing import Literal, NamedTuple

from jaxtyping import PyTree

from hindgrad.checkpoint import Checkpoint
from hindgrad.progress import Bar

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
    carry: PyTree
    """What the next hypergradient goes on from (see `Adjoint.hypergradient`)."""
    refuge_values: list[float]
    """The values of that stretch; empty as long as there is none."""
    best_value: float
    summed: int
    """How many iterates `total` is the sum of."""
    scale: float
    history: list[Record]


NOTES = ("refuge_values", "best_value", "summed", "scale", "history")
"""The fields that JSON can hold."""


def restore(store: Checkpoint, begin: State, point: Point) -> State:
    """The latest state saved, or `begin` if there is none; `point` gives points' structure."""
    like = lambda notes: begin._replace(accepted=[point] * notes["accepted"])
    state = store.restore(begin, like, NOTES)
    return state._replace(history=[Record(*record) for record in state.history])


def save(store: Checkpoint, state: State, *, now: bool) -> None:
    """Saves the state; unless `now`, only if the last save is some seconds old."""
    store.save(len(state.history), state, NOTES, now=now)


def show_record(bar: Bar, record: Record, best: float) -> None:
    """Brings the progress bar up to date; an undone step gets a line of its own."""
    if record.status != "accepted":
        bar.note(
            f"step {record.step}: {record.value:.4g} is {record.status}; turned back, rate halved"
        )
    bar.show(record.step + 1, f"value {record.value:.4g}, best {best:.4g}")

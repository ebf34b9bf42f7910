"""What real-time tuning gives."""

from typing import NamedTuple

import numpy as np
from jaxtyping import PyTree

ACCEPTED, NO_GRADIENT, UNDONE = 0, 1, 2
"""What became of a window: the hyperparameters were changed; they were not, as the hypergradient is
not finite, and tangents began anew; the training diverged, and both went back."""


class Trajectory(NamedTuple):
    """Where it began, and what happened at each change; the first axis of the other arrays is over
    the changes."""

    begin: PyTree
    """The hyperparameters at the start."""
    steps: np.ndarray
    """How many steps had been trained when the change was made, int [changes]."""
    hyper: PyTree
    """The hyperparameters with which training went on from there."""
    values: np.ndarray
    """The validation loss before the change, float [changes]."""
    status: np.ndarray
    """0 for a change made; 1 for none, as the hypergradient was not finite; 2 for a window that
    was undone, as training diverged."""


class Change(NamedTuple):
    """One change of the hyperparameters."""

    step: int
    """How many steps had been trained."""
    value: float
    """The validation loss before it."""
    status: int
    """As in `Trajectory`."""


class OnlineResult(NamedTuple):
    """What real-time tuning gives."""

    params: PyTree
    """The trained parameters."""
    state: PyTree
    """The optimizer's memory: what `Training(…, state=)` takes to go on."""
    hyper: PyTree
    """The hyperparameters after the last change (if that came at the end, nothing was trained with
    them)."""
    trajectory: Trajectory
    losses: np.ndarray
    """The training loss at every step, float [steps]."""
    message: str
    """In words: how often it changed, and what was undone."""
    model_state: PyTree = None
    """The model's own state at the end; None if it has none."""

"""When a step of a tuning is undone, and when a tuning is over."""

import numpy as np

from hindgrad.tuning.state import Record, Status

FAR = 3.0
"""A value is worse by far if it exceeds the recent ones' median by this many times their spread
and this many times the median's size."""
RECENT = 5
"""How many accepted steps count as recent; also how far back a tuning can turn."""
DECLINE = 0.25
"""Values are worse for long if all the recent ones exceed all those of the best stretch, and their
median exceeds its median by this share of its size."""


def recent_values(history: list[Record]) -> list[float]:
    """The latest accepted values, since the tuning last took refuge."""
    values = []
    for record in history:
        if record.status == "worse for long":
            values = []
        elif record.status == "accepted":
            values.append(record.value)
    return values[-RECENT:]


def is_lower(values: list[float], others: list[float]) -> bool:
    """Whether a stretch of values is better than another, of which there may be none."""
    return not others or bool(np.median(values) < np.median(others))


def judge(value: float, norm: float, recent: list[float], refuge_values: list[float]) -> Status:
    """What becomes of a step that led to this value, with a hypergradient of this norm."""
    if not (np.isfinite(value) and np.isfinite(norm)):
        return "not finite"
    if not recent:
        return "accepted"
    median, spread = np.median(recent), np.max(recent) - np.min(recent)
    if value - median > FAR * max(abs(median), spread):
        return "worse by far"
    window = [*recent, value][-RECENT:]
    if len(window) < RECENT or not refuge_values or min(window) <= max(refuge_values):
        return "accepted"
    size = abs(np.median(refuge_values))
    declined = np.median(window) - np.median(refuge_values) > DECLINE * size
    return "worse for long" if declined else "accepted"


def is_plateau(history: list[Record], patience: int | None) -> bool:
    """Whether the last `patience` accepted values are no lower than those before."""
    values = [r.value for r in history if r.status == "accepted"]
    if patience is None or len(values) < 2 * patience:
        return False
    return bool(np.median(values[-patience:]) >= np.median(values[-2 * patience : -patience]))

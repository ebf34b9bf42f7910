"""What was chosen for the baselines of `l2l-mlp`, as JSON can hold it."""

from typing import Any

import numpy as np

from hindgrad.learned.baselines import BASELINES, Trials, Tuned


def described(tuned: Tuned) -> dict[str, Any]:
    """What was chosen, as JSON can hold it."""
    trials = tuned.trials
    return {
        "name": tuned.name,
        "rate": tuned.rate,
        "decay": tuned.decay,
        "step": tuned.step,
        "at_edge": tuned.at_edge,
        "trials": {
            "hyper": trials.hyper.tolist(),
            "at": list(trials.at),
            "values": trials.values.tolist(),
            "seen": list(trials.seen),
        },
    }


def restored(found: dict[str, Any]) -> Tuned:
    """What `described` was given."""
    baseline = next(b for b in BASELINES if b.name == found["name"])
    saved = found["trials"]
    hyper, values = np.array(saved["hyper"]), np.array(saved["values"])
    trials = Trials(hyper, tuple(saved["at"]), values, tuple(saved["seen"]))
    return trials.best(baseline, found["step"])

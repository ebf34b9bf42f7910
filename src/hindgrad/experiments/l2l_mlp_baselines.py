"""Tuned baselines of `l2l-mlp`: their curves, and what was chosen as JSON can hold it."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from hindgrad.learned.baselines import BASELINES, Trials, Tuned
from hindgrad.learned.curves import drawn_problems, made_losses
from hindgrad.learned.problems import Family

AT_ONCE = 16
"""How many problems are trained side by side."""


def curves_of(
    tuned: Tuned, family: Family, key: PRNGKeyArray, problems: int, steps: int
) -> Float[np.ndarray, "problems times"]:
    """The losses at θ_0 … θ_steps of a key's first problems. The optimizer is compiled once for
    all of its rates."""
    at_once = min(AT_ONCE, problems)
    hyper = [jnp.float32(h) for h in (tuned.rate, tuned.decay) if h is not None]
    parts = []
    for first in range(0, problems, at_once):
        drawn = drawn_problems(family, key, jnp.int32(first), count=at_once)
        made = made_losses(tuned.baseline.make, hyper, drawn, at=tuple(range(steps + 1)))
        parts.append(np.asarray(made))
    return np.concatenate(parts)[:problems]


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

"""How much each row weighs: learned by hypergradient, and the opinion of networks beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from hindgrad import cost
from hindgrad.apps.clean.suspicion import (
    DIVISIONS,
    FOLDS,
    Cleaning,
    Learner,
    cleaning,
    learn,
    opinion,
)
from hindgrad.apps.work import Work
from hindgrad.progress import Bar
from hindgrad.tuning.tune import HELD_OUT_DRAWS


@dataclass(frozen=True)
class Rows:
    """A table's rows, and those of a trusted file after them."""

    x: np.ndarray
    """Features as a network takes them, [rows, features]."""
    y: np.ndarray
    trusted: np.ndarray
    """Which labels are known to be right."""
    groups: np.ndarray | None = None
    """Numbers of groups that no half and no fold divides, if there are any."""


def suspicion(
    rows: Rows,
    learner: Learner,
    *,
    steps_outer: int,
    repeats: int,
    seed: int,
    work: Work | None = None,
) -> dict[str, list]:
    """For each row the learned weight, the confidence of networks trained with the weights, and
    the class that they find likeliest.

    How many labels are right, the sum that the weights may have, is counted by networks trained
    on all rows alike: as many as agree with them. With `work`, the pieces are kept there, and a
    bar is shown.
    """
    kept = _not_kept if work is None else work.kept
    problem = cleaning(rows.x, rows.y, rows.trusted, learner, rows.groups)
    key = jax.random.key(seed)
    tune_cost = cost.tuning(steps_outer, HELD_OUT_DRAWS)
    total = (1 + DIVISIONS) * FOLDS + repeats * tune_cost
    with Bar(total, shown=None if work else False) as bar:
        bar.stage("a first opinion")
        budget = kept("budget", lambda: _budget(problem, rows, jax.random.fold_in(key, 0)))
        bar.done(FOLDS)
        learned = []
        for i in range(repeats):
            bar.stage(f"learning weights, {i + 1} of {repeats}")

            def weights(i=i):
                with bar.paused():
                    return learn(
                        problem,
                        budget=budget,
                        steps=steps_outer,
                        key=jax.random.fold_in(key, 2 + i),
                        checkpoint=None if work is None else work.folder / f"tuning-{i}",
                        progress=bar.shown,
                    ).tolist()

            learned.append(kept(f"weights-{i}", weights))
            bar.done(tune_cost)
        mean = np.mean(learned, axis=0)
        bar.stage("a second opinion")
        draw = jax.random.fold_in(key, 1)
        asked = kept("opinion", lambda: _asked(problem, mean, draw))
        bar.done(DIVISIONS * FOLDS)
    return {"learned": mean.tolist(), **asked}


def trust(rows: Rows, found: dict[str, list]) -> Float[np.ndarray, " rows"]:
    """What each row weighs in the end: the mean of the learned weight and the confidence; a label
    is suspicious below 1/2."""
    weights = (np.array(found["learned"]) + np.array(found["confidence"])) / 2
    return np.where(rows.trusted, 1.0, weights)


def _not_kept(name: str, compute: Callable[[], Any]) -> Any:
    del name
    return compute()


def _budget(problem: Cleaning, rows: Rows, key: jax.Array) -> float:
    likelier = opinion(problem, np.ones(len(rows.y)), key, 1).argmax(axis=1)
    return float(np.sum(rows.trusted | (likelier == rows.y)))


def _asked(problem: Cleaning, weights: np.ndarray, key: jax.Array) -> dict[str, list]:
    probabilities = opinion(problem, weights, key, DIVISIONS)
    own = probabilities[np.arange(len(probabilities)), np.asarray(problem.y)]
    return {"confidence": own.tolist(), "likelier": probabilities.argmax(axis=1).tolist()}

"""How much each row weighs: learned by hypergradient, and the opinion of networks beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from hindgrad import cost
from hindgrad.apps.clean.judges import (
    SHARES,
    Outside,
    evidence,
    outside,
    own_label,
)
from hindgrad.apps.clean.suspicion import (
    DIVISIONS,
    FOLDS,
    Cleaning,
    Learner,
    cleaning,
    learn,
    opinion,
)
from hindgrad.apps.engine import Engine
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


@dataclass(frozen=True)
class _Lesson:
    """How weights are learned, several times anew."""

    rows: Rows
    learner: Learner
    budget: float
    """What they may sum to."""
    steps_outer: int
    seed: int

    @property
    def problem(self) -> Cleaning:
        """What is learned."""
        rows = self.rows
        return cleaning(rows.x, rows.y, rows.trusted, self.learner, rows.groups)

    def weights(
        self, problem: Cleaning, number: int, work: Work | None, progress: bool | None
    ) -> list[float]:
        """Those of the time with this number."""
        return learn(
            problem,
            budget=self.budget,
            steps=self.steps_outer,
            key=jax.random.fold_in(jax.random.key(self.seed), 2 + number),
            checkpoint=None if work is None else work.folder / f"tuning-{number}",
            progress=progress,
        ).tolist()

    def elsewhere(self, number: int, work: Work) -> None:
        """The same in another process, unless they are there already."""
        work.kept(
            f"weights-{number}",
            lambda: self.weights(self.problem, number, work, progress=False),
        )


def suspicion(
    rows: Rows,
    learner: Learner,
    *,
    steps_outer: int,
    repeats: int,
    seed: int,
    work: Work | None = None,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """For each row the learned weight, the confidence of the judge in its label, and the class
    that the judge finds likeliest; who judges, and how many labels are wrong.

    Wrong labels are planted to see who finds them, and how little confidence they have; from that
    the others are counted. The weights may sum to the number of those that are right. With
    `work`, the pieces are kept there, and a bar is shown; the `engine` learns weights elsewhere.
    """
    kept = _not_kept if work is None else work.kept
    problem = cleaning(rows.x, rows.y, rows.trusted, learner, rows.groups)
    key = jax.random.key(seed)
    tune_cost = cost.tuning(steps_outer, HELD_OUT_DRAWS)
    total = (2 + DIVISIONS) * FOLDS + repeats * tune_cost
    with Bar(total, shown=None if work else False) as bar:
        bar.stage("a first opinion")
        first = kept("first", lambda: _first(problem, jax.random.fold_in(key, 0)))
        bar.done(2 * FOLDS)
        lesson = _Lesson(rows, learner, float(len(rows.y) - first["wrong"]), steps_outer, seed)
        if work is not None and engine is not None:
            with bar.paused():
                engine.compute([partial(lesson.elsewhere, i) for i in range(repeats)], work)
        learned = []
        for i in range(repeats):
            bar.stage(f"learning weights, {i + 1} of {repeats}")

            def weights(i=i):
                with bar.paused():
                    return lesson.weights(problem, i, work, bar.shown)

            learned.append(kept(f"weights-{i}", weights))
            bar.done(tune_cost)
        mean = np.mean(learned, axis=0)
        bar.stage("a second opinion")
        draw = jax.random.fold_in(key, 1)
        networks = kept("opinion", lambda: opinion(problem, mean, draw, DIVISIONS).tolist())
        bar.done(DIVISIONS * FOLDS)
    said = Outside(np.array(networks), np.array(first["forest"]))
    mixed = said.of(first["judge"])
    return {
        "learned": mean,
        "networks": own_label(said.networks, rows.y),
        "forest": own_label(said.forest, rows.y),
        "confidence": own_label(mixed, rows.y),
        "likelier": mixed.argmax(axis=1),
        **{name: first[name] for name in ("judge", "precision", "wrong")},
    }


def trust(rows: Rows, found: dict[str, Any]) -> Float[np.ndarray, " rows"]:
    """What each row weighs in the end, from 0 to 1: below 1/2 are as many as seem wrong.

    They are those with the lowest mean of the learned weight and the networks' confidence, or of
    the forest's confidence, or of both, as the judge is."""
    of_forest = SHARES[found["judge"]]
    mean = (1 - of_forest) * (found["learned"] + found["networks"]) / 2
    mean = mean + of_forest * found["forest"]
    middle = np.clip(_between(np.sort(mean[~rows.trusted]), found["wrong"]), 1e-9, 1 - 1e-9)
    scaled = np.where(mean < middle, mean / middle, 1 + (mean - middle) / (1 - middle)) / 2
    return np.where(rows.trusted, 1.0, np.clip(scaled, 0.0, 1.0))


def _between(values: Float[np.ndarray, " rows"], count: int) -> float:
    """What lies above so many of the sorted values."""
    ends = np.concatenate([[0.0], values, [1.0]])
    return float(ends[count] + ends[count + 1]) / 2


def _not_kept(name: str, compute: Callable[[], Any]) -> Any:
    del name
    return compute()


def _first(problem: Cleaning, key: jax.Array) -> dict[str, Any]:
    """What a random forest says, who judges, and how many labels are wrong."""
    draws = jax.random.split(key)
    given = outside(problem, draws[0])
    found = evidence(problem, given, draws[1])
    return {
        "judge": found.judge,
        "precision": found.precision,
        "wrong": found.wrong,
        "forest": given.forest.tolist(),
    }

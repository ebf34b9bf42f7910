"""Bayesian optimisation of a few scalars, which hypergradients are compared with."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import optuna

from hindgrad.apps.tune.studies import quiet_study

Point = dict[str, float]


class Tried(NamedTuple):
    """One training with these scalars."""

    point: Point
    value: float


class Answers(NamedTuple):
    """What a search gives as its best, twice."""

    early: Point
    """The best of the first `early` trials, by the one training that each had."""
    late: Point
    """The best of the finalists by their mean over further trainings."""


def search(
    value: Callable[[Point, int], float],
    start: Point,
    ranges: Mapping[str, tuple[float, float]],
    *,
    trials: int,
    finalists: int,
    further: int,
    seed: int,
    early: int = 1,
) -> Answers:
    """Lowers `value(point, draw)` within the ranges by Optuna's tree-structured Parzen estimator,
    which models the scalars jointly; `start` is the first trial. (Optuna's Gaussian processes need
    PyTorch.)

    Trial i has draw i; the best `finalists` of all trials get `further` more draws each. In all
    that takes `trials` + `finalists` · `further` values.
    """
    study = quiet_study(lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True))
    study.enqueue_trial(start)
    space: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(*limits) for name, limits in ranges.items()
    }
    tried: list[Tried] = []
    for i in range(trials):
        trial = study.ask(space)
        found = value(trial.params, i)
        found = found if np.isfinite(found) else 1e6  # a training that blew up
        study.tell(trial, found)
        tried.append(Tried(trial.params, found))
    best = sorted(tried, key=lambda t: t.value)[:finalists]
    again = range(trials, trials + further)
    means = [float(np.mean([value(t.point, i) for i in again])) for t in best]
    late = best[int(np.argmin(np.nan_to_num(means, nan=np.inf)))].point
    return Answers(min(tried[:early], key=lambda t: t.value).point, late)

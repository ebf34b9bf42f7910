"""Random search and TPE, by Optuna, with the same budget as tuning by hypergradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optuna
from jaxtyping import PRNGKeyArray

from hindgrad.apps.model import Hyper, Problem
from hindgrad.apps.tune.studies import distributions, quiet_study
from hindgrad.apps.tune.trials import mean_valid_loss, trials

Sampler = Literal["random", "TPE"]

RANGES = {
    "rate": (-5.0, 1.5),
    "decay": (-1.0, 4.0),
    "weight_decay": (-14.0, -3.0),
    "scale": (-1.5, 1.0),
}
"""Where the searches look: log rate, logit decay, log weight decay, log initial scale."""

FALL = "fall"
FALLS = (-4.0, 1.0)
"""And the log of the last rate ÷ the first, one number for all layers."""

TOGETHER = 4
"""Trials that are proposed together. It is fixed, so that the number of cores changes nothing."""

FINALISTS = 6
"""Candidates that are looked at again before one is chosen: one training is a noisy judge."""


@dataclass(frozen=True)
class Space:
    """What a search varies: four scalars, or four for each layer, and how the rate falls."""

    per_layer: bool
    layers: int
    knots: int

    @property
    def names(self) -> dict[str, tuple[float, float]]:
        """Each scalar's range."""
        each = {
            f"{name} {layer}": limits
            for name, limits in RANGES.items()
            for layer in range(self.layers)
        }
        return (each if self.per_layer else RANGES) | ({FALL: FALLS} if self.falls else {})

    @property
    def falls(self) -> bool:
        """Whether the schedule has more than one number."""
        return self.knots > 1

    def hyper(self, point: dict[str, float]) -> Hyper:
        """The hyperparameters at a point."""

        def layerwise(name):
            keys = [f"{name} {i}" if self.per_layer else name for i in range(self.layers)]
            return jnp.array([point[key] for key in keys], jnp.float32)

        values = {name: layerwise(name) for name in RANGES}
        for name in ("rate", "decay"):
            values[name] = jnp.tile(values[name], (self.knots, 1))
        if self.falls:
            values["rate"] += jnp.linspace(-0.5, 0.5, self.knots)[:, None] * point[FALL]
        return values

    def point(self, hyper: Hyper) -> dict[str, float]:
        """The point nearest to some hyperparameters."""
        means = {n: np.atleast_2d(np.asarray(hyper[n], np.float64)).mean(axis=0) for n in RANGES}
        if self.per_layer:
            raw = {f"{n} {i}": means[n][i] for n in RANGES for i in range(self.layers)}
        else:
            raw = {n: means[n].mean() for n in RANGES}
        if self.falls:
            first, *_, last = np.asarray(hyper["rate"], np.float64)
            raw[FALL] = (last - first).mean()
        return {key: float(np.clip(raw[key], *limits)) for key, limits in self.names.items()}


@dataclass(frozen=True)
class Found:
    """What a search found."""

    hyper: Hyper
    value: float
    """The validation loss by which it was chosen."""
    trainings: int
    """How many trainings it took in all."""
    incumbents: list[tuple[int, Hyper]]
    """What it would have answered after so many trainings, whenever that changed."""


def search(
    sampler: Sampler,
    space: Space,
    problem: Problem,
    start: Hyper,
    *,
    budget: int,
    draws: Sequence[PRNGKeyArray],
    key: PRNGKeyArray,
    advance: Callable[[int], None] = lambda _: None,
    begin: Callable[[Callable[[], optuna.samplers.BaseSampler]], optuna.Study] = quiet_study,
) -> Found:
    """Searches with a budget of `budget` trainings.

    Each trial is a training on a fresh draw, as each step of the tuning is; `start` is the first.
    A part of the budget goes to looking again at the best candidates, on `draws`, the very draws
    by which tuning chooses its answer. `begin` makes the study.
    """
    number = int(jax.random.randint(key, (), 0, 2**31 - 1))
    samplers = {
        "random": partial(optuna.samplers.RandomSampler, seed=number),
        "TPE": partial(
            optuna.samplers.TPESampler, seed=number, multivariate=True, constant_liar=True
        ),
    }
    study = begin(samplers[sampler])
    study.enqueue_trial(space.point(start))
    limits = distributions(space.names)
    finalists = min(FINALISTS, max(budget // 4, 0) // len(draws))
    explore = budget - finalists * len(draws)
    tried: list[tuple[float, Hyper]] = []
    incumbents: list[tuple[int, Hyper]] = []
    while len(tried) < explore:
        asked = [study.ask(limits) for _ in range(min(TOGETHER, explore - len(tried)))]
        hypers = [space.hyper(trial.params) for trial in asked]
        keys = [jax.random.fold_in(key, len(tried) + i) for i in range(len(asked))]
        results = trials(problem, hypers, keys)
        for trial, hyper, result in zip(asked, hypers, results, strict=True):
            study.tell(trial, min(result.valid_loss, 1e6))
            if not tried or result.valid_loss < min(value for value, _ in tried):
                incumbents.append((len(tried) + 1, hyper))
            tried.append((result.valid_loss, hyper))
        advance(len(asked))
    best = sorted(tried, key=lambda pair: pair[0])[: max(finalists, 1)]
    if finalists:
        again = [(mean_valid_loss(problem, hyper, draws), hyper) for _, hyper in best]
        best = sorted(again, key=lambda pair: pair[0])
        advance(finalists * len(draws))
    value, hyper = best[0]
    return Found(hyper, value, budget, [*incumbents, (budget, hyper)])

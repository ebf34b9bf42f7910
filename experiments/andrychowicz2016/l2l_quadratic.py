"""Learned optimizers on quadratics: the paper's LSTM, and a learned momentum that sees ratios.

Two optimizers are learned on ‖Wθ − y‖² with 10 parameters, for 100 steps, and compared on problems
that neither has seen with others at tuned rates, for 100 steps and beyond their horizon
(Andrychowicz et al. 2016, section 3.1 and figure 4).
"""

import time
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments.andrychowicz2016 import l2l_quadratic_report as report
from experiments.models import held_out
from experiments.runner import Pieces, Repeated, Results, finite
from hindgrad.apps.optimizers.recipes import PAPERS_QUADRATIC, QUADRATIC
from hindgrad.apps.report.optimizer_curves import summary
from hindgrad.learned.baselines import BASELINES, Baseline, tune_rate
from hindgrad.learned.curves import drawn_problems, learned_curves, made_losses
from hindgrad.progress import Bar as Line

ABOUT = (
    "Learned optimizers on quadratics, beside others at tuned rates. Andrychowicz et al. "
    "2016, *Learning to learn by gradient descent by gradient descent*, section 3.1."
)

RECIPES = {report.PAPERS: PAPERS_QUADRATIC, report.RELATIVE: QUADRATIC}

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)

CHOOSE = {"mean": np.mean, "median": np.median}
"""What is lowest at the best rate."""


@dataclass(frozen=True)
class Settings(Repeated):
    """Sizes. Each optimizer is learned anew with each seed, and each seed has held-out problems of
    its own."""

    iterations: tuple[int, int]
    """How many gradients the LSTM and the relative LSTM are learned by."""
    at: tuple[int, ...]
    """The steps that are reported."""
    tuned_at: int
    """The step at which the baselines' loss is lowest."""
    few: int
    """On how many held-out problems the optimizers are compared, and"""
    many: int
    """on how many more exactly."""
    validation: int
    """On how many others the baselines are tuned."""
    rates: tuple[float, ...]
    """Which are tried for the baselines, and"""
    decays: tuple[float, ...]
    """with these decays of momentum."""


def learn(settings: Settings, name: str, seed: int, kept: Pieces, line: Line) -> dict[str, Any]:
    """Learns an optimizer, and runs it on problems that it has not seen."""
    recipe, iterations = RECIPES[name], settings.iterations[list(RECIPES).index(name)]
    line.stage(f"seed {seed}: {name} learns")
    begin = time.perf_counter()
    with line.paused():
        result = recipe.fit(
            iterations=iterations,
            key=seed,
            checkpoint=kept.folder(f"checkpoint-{name}-{seed}"),
            progress=line.shown,
        )
    minutes = (time.perf_counter() - begin) / 60
    curves = learned_curves(
        recipe.optimizer,
        result.weights,
        recipe.family(),
        held_out(seed),
        count=settings.many,
        steps=max(settings.at),
    )
    line.done(iterations)
    curves = np.asarray(curves, np.float64)
    curves = np.where(np.isfinite(curves), curves, np.inf)
    return {"minutes": minutes, "message": result.message, **outcome(settings, curves)}


def outcome(settings: Settings, curves: Float[np.ndarray, "problems steps"]) -> dict[str, Any]:
    """What is kept of an optimizer's losses."""
    found: dict[str, Any] = {"curves": summary(curves).as_json()}
    for count in sorted({settings.few, settings.many}):
        losses = curves[:count, list(settings.at)]
        quantiles = np.quantile(losses, QUANTILES, axis=0, method="nearest")
        found[str(count)] = {
            "mean": [*map(finite, losses.mean(axis=0))],
            "median": [*map(finite, quantiles[QUANTILES.index(0.5)])],
            "quantiles": [[*map(finite, row)] for row in quantiles],
        }
    return found


def tune(settings: Settings, baseline: Baseline, line: Line) -> dict[str, Any]:
    """The rate (and decay) of a baseline with the lowest mean at the tuned step."""
    line.stage(f"{baseline.name} is tuned")
    begin = time.perf_counter()
    tuned = tune_rate(
        baseline,
        QUADRATIC.family(),
        jax.random.key(1024),
        steps=settings.tuned_at,
        problems=settings.validation,
        rates=settings.rates,
        decays=settings.decays if baseline.decays else None,
    )
    line.done(report.TUNING)
    minutes = (time.perf_counter() - begin) / 60
    return {"hyper": [tuned.rate, tuned.decay], "at_edge": tuned.at_edge, "minutes": minutes}


def compare(
    settings: Settings, baseline: Baseline, tuned: dict[str, Any], seed: int
) -> dict[str, Any]:
    """A tuned baseline on the held-out problems of a seed; and what no tuning can beat: for each
    reported step, the lowest mean and median of all rates and decays on these very problems, and
    the curves of the rate that is best in the mean at the tuned step."""
    begin = time.perf_counter()
    drawn = drawn_problems(QUADRATIC.family(), held_out(seed), jnp.int32(0), count=settings.many)

    def losses(hyper, at):
        made = [jnp.float32(h) for h in hyper if h is not None]
        found = np.asarray(made_losses(baseline.make, made, drawn, at=at), np.float64)
        return np.where(np.isfinite(found), found, np.inf)

    decays = settings.decays if baseline.decays else (None,)
    candidates = [(rate, decay) for rate in settings.rates for decay in decays]
    tried = np.stack([losses(hyper, settings.at) for hyper in candidates])
    best: dict[str, Any] = {}
    for count in {settings.few, settings.many}:
        chosen = {what: choose(tried[:, :count], axis=1) for what, choose in CHOOSE.items()}
        best[str(count)] = {what: [*map(finite, v.min(axis=0))] for what, v in chosen.items()}
    means = tried[:, :, settings.at.index(settings.tuned_at)].mean(axis=1)
    hindsight = candidates[int(np.argmin(means))]
    every = tuple(range(max(settings.at) + 1))
    return {
        **outcome(settings, losses(tuned["hyper"], every)),
        "best": best,
        "hindsight": {
            "hyper": hindsight,
            "curves": summary(losses(hindsight, every)).as_json(),
        },
        "minutes": (time.perf_counter() - begin) / 60,
    }


def run(settings: Settings, kept: Pieces, line: Line) -> Results:
    """Learns, tunes, and compares."""
    tuned = {
        b.name: kept(f"tuned-{b.name}", lambda b=b: tune(settings, b, line)) for b in BASELINES
    }
    seeds = []
    for seed in settings.each_seed():
        found = {
            name: kept(f"{name}-{seed}", lambda n=name, s=seed: learn(settings, n, s, kept, line))
            for name in RECIPES
        }
        for b in BASELINES:
            line.stage(f"seed {seed}: {b.name} is compared")
            found[b.name] = kept(
                f"{b.name}-{seed}", lambda b=b, s=seed: compare(settings, b, tuned[b.name], s)
            )
        seeds.append({"seed": seed, "optimizers": found})
    return {"tuned": tuned, "seeds": seeds}


def total(settings: Settings) -> int:
    """Gradients, and tunings as many as take as long."""
    return settings.seeds * sum(settings.iterations) + len(BASELINES) * report.TUNING


DEFAULT = Settings(
    iterations=(QUADRATIC.iterations, QUADRATIC.iterations),
    at=(10, 20, 50, 100, 200, 500),
    tuned_at=100,
    few=128,
    many=1024,
    validation=1024,
    rates=tuple(float(f"{r:.4g}") for r in np.logspace(-3, 0, 49)),
    decays=(0.5, 0.8, 0.9, 0.95, 0.97),
    seeds=1,
)

FULL = replace(DEFAULT, iterations=(20_000, 20_000), seeds=5)

SMALL = replace(
    DEFAULT,
    iterations=(4, 4),
    at=(5, 10, 100),
    few=8,
    many=16,
    validation=8,
    rates=(0.01, 0.03),
    decays=(0.9,),
    seeds=1,
)

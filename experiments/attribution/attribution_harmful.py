"""Removing the most harmful rows: does what attribution says hold on rows that nobody has seen?

A network is trained; the loss on validation rows is attributed to the training rows, and those
whose removal is foretold to lower it most are left out. Networks trained without them, from other
starts and in other orders, are judged on test rows: beside as many left out at random, by their
own loss, by their own margin averaged over the training (arXiv 2510.16211), and by `hindgrad
clean`. Once with the labels as they are, and once with some turned into another class.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import hindgrad as hg
from experiments.attribution import attribution_harmful_report as report
from experiments.attribution.rows import (
    Draw,
    by_attribution,
    by_clean,
    by_loss,
    by_margin,
    draw,
    judged,
    objective_of,
)
from experiments.attribution.shares import Shares, each, in_turn, redrawn
from experiments.runner import Results
from hindgrad.progress import Bar as Line

ABOUT = "Removing the most harmful rows: attribution beside margins, losses, `clean` and chance."


@dataclass(frozen=True)
class Settings(Shares):
    """Sizes, and how much is removed."""

    drop: float
    """The share of the training rows that is left out."""


def without(
    objective: hg.Objective,
    rows: Draw,
    worth: np.ndarray | None,
    count: int,
    seed: int,
    judges: int,
) -> dict[str, float]:
    """How networks do that were trained without the rows of the lowest worth."""
    gone = np.argsort(worth, kind="stable")[:count] if worth is not None else []
    weights = jnp.ones(len(rows.train)).at[np.asarray(gone, int)].set(0)
    found = judged(objective, weights, rows.test, seed, judges)
    return {**found, "flipped": int(rows.wrong[gone].sum())}


def run(settings: Settings, kept: Any, line: Line) -> Results:
    """All ways, for every share of wrong labels and every seed."""
    one = lambda flipped, seed: one_seed(settings, flipped, seed, kept, line)
    return each(settings, one)


def one_seed(
    settings: Settings, flipped: float, seed: int, kept: Any, line: Line
) -> list[dict[str, Any]]:
    """All ways on one draw."""
    rows = draw(settings, flipped, seed)
    objective, count = objective_of(settings, rows), round(settings.drop * settings.rows)
    keys = list(jax.random.split(jax.random.key(seed), settings.keys))
    chance = np.random.default_rng(seed).permutation(settings.rows).astype(float)
    ways: dict[str, Callable[[], np.ndarray | None]] = {
        report.ALL: lambda: None,
        report.CHANCE: lambda: chance,
        report.ATTRIBUTION: lambda: by_attribution(objective, rows, keys),
        report.LOSS: lambda: by_loss(objective, rows, keys),
        report.MARGIN: lambda: by_margin(settings, objective, rows, keys),
        report.CLEAN: lambda: by_clean(rows, seed),
    }

    def judge(way):
        return without(objective, rows, way(), count, seed, settings.judges)

    about = {"share": flipped, "seed": seed, "removed": count, "wrong": int(rows.wrong.sum())}
    about["redrawn"] = redrawn(rows)
    return in_turn({name: partial(judge, way) for name, way in ways.items()}, about, kept, line)


def total(settings: Settings) -> int:
    """In answers."""
    return len(settings.flipped) * settings.seeds * len(report.WAYS)


DEFAULT = Settings(
    seeds=5,
    data="digits",
    rows=1000,
    flipped=(0.0, 0.1),
    drop=0.05,
    hidden=32,
    steps=300,
    size=100,
    rate=0.3,
    keys=5,
    judges=5,
)
FULL = replace(DEFAULT, data="mnist", rows=5000, seeds=10)
SMALL = Settings(
    seeds=1,
    data="digits",
    rows=60,
    flipped=(0.2,),
    drop=0.1,
    hidden=4,
    steps=12,
    size=20,
    rate=0.3,
    keys=1,
    judges=1,
)

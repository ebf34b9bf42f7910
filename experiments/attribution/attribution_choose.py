"""Choosing rows: is a fifth of the data, chosen by attribution, better than a fifth by chance?

A network is trained on all rows, and ways to tell what a row is worth choose those to keep.
Networks trained anew on these alone, from other starts, are judged on test rows. Each way also
chooses class by class; attribution also in rounds, each of which leaves out a part of the rows and
asks again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from experiments.attribution import attribution_choose_report as report
from experiments.attribution.rows import (
    Draw,
    by_attribution,
    by_loss,
    by_margin,
    draw,
    judged,
    objective_of,
)
from experiments.attribution.shares import Shares, each, in_turn, redrawn
from experiments.runner import Results
from hindgrad.progress import Bar as Line

ABOUT = "Choosing a fifth of the rows: attribution beside losses, margins and chance."

Rows = Int[np.ndarray, " kept"]


@dataclass(frozen=True)
class Settings(Shares):
    """Sizes, and how much is chosen."""

    keep: float
    """The share of the training rows that is chosen."""
    rounds: int
    """In which attribution chooses, where it asks again."""

    @property
    def count(self) -> int:
        """How many rows are chosen."""
        return round(self.keep * self.rows)


def largest(worth: Float[np.ndarray, " rows"], count: int) -> Rows:
    """The rows that are worth most."""
    return np.sort(np.argsort(-worth, kind="stable")[:count])


def by_class(worth: Float[np.ndarray, " rows"], y: Int[np.ndarray, " rows"], count: int) -> Rows:
    """Of each class the rows that are worth most, so that its share stays as it is."""
    place = np.empty(len(y))
    for label in np.unique(y):
        of_label = np.flatnonzero(y == label)
        order = np.argsort(-worth[of_label], kind="stable")
        place[of_label[order]] = (np.arange(len(of_label)) + 0.5) / len(of_label)
    return largest(-place, count)


def in_rounds(settings: Settings, rows: Draw, keys: list[PRNGKeyArray]) -> Rows:
    """The rows that attribution keeps if each round leaves out the same share of what is left,
    class by class."""
    kept = np.arange(settings.rows)
    for number in range(settings.rounds):
        count = round(settings.rows * settings.keep ** ((number + 1) / settings.rounds))
        left = chosen(rows, kept)
        worth = by_attribution(objective_of(settings, left), left, keys)
        kept = kept[by_class(worth, np.asarray(left.train.y), count)]
    return kept


def chosen(rows: Draw, kept: Rows) -> Draw:
    """The same draw with these training rows alone."""
    new = rows.train[jnp.asarray(kept)], rows.wrong[kept], rows.pixels[kept]
    return eqx.tree_at(lambda rows: (rows.train, rows.wrong, rows.pixels), rows, new)


def trained_on(settings: Settings, rows: Draw, kept: Rows, seed: int) -> dict[str, float]:
    """How networks do that were trained on these rows alone, as many steps."""
    left = chosen(rows, kept)
    fitting = replace(settings, size=min(settings.size, len(kept)))
    given = objective_of(fitting, left), jnp.ones(len(kept)), rows.test
    found = judged(*given, seed, settings.judges)
    return {**found, "flipped": int(left.wrong.sum())}


def run(settings: Settings, kept: Any, line: Line) -> Results:
    """All ways, for every share of wrong labels and every seed."""
    one = lambda flipped, seed: one_seed(settings, flipped, seed, kept, line)
    return each(settings, one)


def one_seed(
    settings: Settings, flipped: float, seed: int, kept: Any, line: Line
) -> list[dict[str, Any]]:
    """All ways on one draw."""
    rows, count = draw(settings, flipped, seed), settings.count
    objective, y = objective_of(settings, rows), np.asarray(rows.train.y)
    keys = list(jax.random.split(jax.random.key(seed), settings.keys))
    chance = np.random.default_rng(seed).random(settings.rows)
    worth: dict[str, Callable[[], np.ndarray]] = {
        report.CHANCE: lambda: chance,
        report.EASY: lambda: by_loss(objective, rows, keys),
        report.HARD: lambda: -by_loss(objective, rows, keys),
        report.MARGIN: lambda: -np.abs(by_margin(settings, objective, rows, keys)),
        report.ATTRIBUTION: lambda: by_attribution(objective, rows, keys),
    }
    ways: dict[str, Callable[[], Rows]] = {report.ALL: lambda: np.arange(settings.rows)}
    ways |= {name: lambda of=of: largest(of(), count) for name, of in worth.items()}
    by_classes = {name: lambda of=of: by_class(of(), y, count) for name, of in worth.items()}
    ways |= {report.of_classes(name): way for name, way in by_classes.items()}
    ways[report.ROUNDS] = lambda: in_rounds(settings, rows, keys)
    judge = lambda way: trained_on(settings, rows, way(), seed)
    about = {"share": flipped, "seed": seed, "kept": count, "redrawn": redrawn(rows)}
    return in_turn({name: partial(judge, way) for name, way in ways.items()}, about, kept, line)


def total(settings: Settings) -> int:
    """In answers."""
    return len(settings.flipped) * settings.seeds * len(report.WAYS)


DEFAULT = Settings(
    seeds=5,
    data="digits",
    rows=1000,
    flipped=(0.0, 0.1),
    keep=0.2,
    rounds=4,
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
    keep=0.5,
    rounds=2,
    hidden=4,
    steps=12,
    size=20,
    rate=0.3,
    keys=1,
    judges=1,
)

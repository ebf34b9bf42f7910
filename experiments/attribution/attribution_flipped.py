"""Finding wrong labels: how well does what a row is worth tell right labels from wrong ones?

Some training labels are turned into another class. Rows are ranked by what attribution says of
them: the change of the validation loss without the row; the row's influence on its own loss; its
margin without itself, to first order. Beside that by their own loss after training, by their own
margin averaged over the training (arXiv 2510.16211), and by `hindgrad clean`. Judged by the area
under the curve (AUC), and by how many wrong labels are missed by one who looks at as many rows as
there are wrong ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree
from sklearn.metrics import roc_auc_score

import hindgrad as hg
from experiments.attribution import attribution_flipped_report as report
from experiments.attribution.rows import (
    ADJOINT,
    Draw,
    Sizes,
    by_attribution,
    by_clean,
    by_loss,
    by_margin,
    draw,
    losses,
    margins,
    objective_of,
)
from experiments.models import Examples
from experiments.runner import Results
from hindgrad.progress import Bar as Line

Measure = Callable[[PyTree, Examples], Float[Array, " rows"]]

ABOUT = "Finding wrong labels: attribution beside losses, margins and `clean`."


@dataclass(frozen=True)
class Settings(Sizes):
    """Sizes, and how many labels are wrong."""

    flipped: float
    """The share of training labels turned into another class."""
    groups: int
    """Of rows, each of which is one query about itself."""

    @property
    def models(self) -> dict[str, "Settings"]:
        """The settings of each model."""
        return {report.LINEAR: replace(self, hidden=0), report.NETWORK: self}


def by_itself(
    objective: hg.Objective, rows: Draw, keys: list[PRNGKeyArray], measure: Measure, groups: int
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """A measure of each row after training, and by how much it would change without that row.

    The measures of a group of rows are one query: what other rows of the group owe to a row is
    small beside what it owes to itself.
    """
    count = len(rows.train)
    group = np.random.default_rng(0).permutation(count) % groups

    def queries(params, *_):
        return jax.ops.segment_sum(measure(params, rows.train), jnp.asarray(group), groups)

    own, changes = [], []
    for key in keys:
        ones = jnp.ones(count)
        found = hg.attribute(objective, ones, queries, key=key, adjoint=ADJOINT)
        changes.append(found.removed[group, np.arange(count)])
        own.append(np.asarray(measure(objective.run(ones, key).params, rows.train)))
    return np.mean(own, axis=0), np.mean(changes, axis=0)


def judged(worth: Float[np.ndarray, " rows"], wrong: Bool[np.ndarray, " rows"]) -> dict[str, float]:
    """The AUC, and the share of the wrong labels that are not among as many of the lowest worth."""
    looked_at = np.argsort(worth, kind="stable")[: wrong.sum()]
    return {"auc": float(roc_auc_score(wrong, -worth)), "missed": float(np.mean(~wrong[looked_at]))}


def run(settings: Settings, kept: Any, line: Line) -> Results:
    """All models and ways, for every seed."""
    found = []
    for seed in settings.each_seed():
        for model in settings.models:
            found += one_seed(settings, model, seed, kept, line)
    return {"found": found}


def one_seed(
    settings: Settings, model: str, seed: int, kept: Any, line: Line
) -> list[dict[str, Any]]:
    """All ways with one model on one draw."""
    of_model = settings.models[model]
    rows = draw(of_model, settings.flipped, seed)
    objective = objective_of(of_model, rows)
    keys = list(jax.random.split(jax.random.key(seed), settings.keys))
    itself = lambda measure: by_itself(objective, rows, keys, measure, of_model.groups)
    ways: dict[str, Callable[[], np.ndarray]] = {
        report.REMOVAL: lambda: by_attribution(objective, rows, keys),
        report.INFLUENCE: lambda: -itself(losses)[1],
        report.WITHOUT: lambda: np.sum(itself(margins), axis=0),
        report.LOSS: lambda: by_loss(objective, rows, keys),
        report.MARGIN: lambda: by_margin(of_model, objective, rows, keys),
    }
    if model == report.NETWORK:  # it has a network of its own
        ways[report.CLEAN] = lambda: by_clean(rows, seed)
    judge = lambda way: judged(way(), rows.wrong)
    found = []
    for place, (name, way) in enumerate(ways.items()):
        one = kept(f"seed-{seed}/{place}-{model}", partial(judge, way))
        found.append({"model": model, "way": name, "seed": seed, **one})
        line.done(1)
    return found


def total(settings: Settings) -> int:
    """In rankings."""
    return settings.seeds * (2 * len(report.WAYS) - 1)


DEFAULT = Settings(
    seeds=3,
    data="mnist",
    rows=5000,
    flipped=0.1,
    groups=50,
    hidden=128,
    steps=500,
    size=100,
    rate=0.1,
    keys=2,
)
FULL = replace(DEFAULT, seeds=10, keys=10)
SMALL = Settings(
    seeds=1,
    data="digits",
    rows=120,
    flipped=0.1,
    groups=5,
    hidden=8,
    steps=60,
    size=50,
    rate=0.3,
    keys=1,
)

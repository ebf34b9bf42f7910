"""Removing the most harmful rows: does what attribution says hold on rows that nobody has seen?

A network is trained; the loss on validation rows is attributed to the training rows, and those
whose removal is foretold to lower it most are left out. Networks trained without them, from other
starts and in other orders, are judged on test rows: beside as many left out at random, by their
own loss, by their own margin averaged over the training (arXiv 2510.16211), and by `hindgrad
clean`. Once with the labels as they are, and once with some turned into another class.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree
from rich.console import Console

import hindgrad as hg
from experiments.attribution import attribution_harmful_report as report
from experiments.models import Examples, images
from experiments.runner import Repeated, Results
from hindgrad.apps import datasets
from hindgrad.apps.clean import command as clean
from hindgrad.apps.clean.settings import Clean
from hindgrad.progress import Bar as Line

ABOUT = "Removing the most harmful rows: attribution beside margins, losses, `clean` and chance."

ADJOINT = hg.Reversible()
UNSEEN = 10_000
"""Added to a seed for the keys that judge."""
LOOKS = 4
"""How often in a training the margin is taken."""


@dataclass(frozen=True)
class Settings(Repeated):
    """Sizes, and how much is removed."""

    data: str
    rows: int
    """Of the training; a third as many validate, all others test."""
    flipped: tuple[float, ...]
    """The shares of training labels turned into another class; each is a condition."""
    drop: float
    """The share of the training rows that is left out."""
    hidden: int
    steps: int
    size: int
    """Of a batch."""
    rate: float
    keys: int
    """Trainings over which each way averages."""
    judges: int
    """Trainings that judge each answer."""


class Draw(eqx.Module):
    """One draw of rows and wrong labels."""

    train: Examples
    valid: Examples
    test: Examples
    wrong: Bool[np.ndarray, " rows"]
    pixels: np.ndarray
    """Of the training rows, as images in their own units."""
    classes: int = eqx.field(static=True)


def draw(settings: Settings, flipped: float, seed: int) -> Draw:
    """Draws the rows, and gives a share of the training rows another label."""
    data, rng = datasets.load(settings.data), np.random.default_rng(seed)
    n, classes = settings.rows, len(data.classes)
    rows = rng.permutation(np.flatnonzero(data.train))
    train, valid, test = rows[:n], rows[n : n + n // 3], rows[n + n // 3 :]
    wrong = np.zeros(n, bool)
    wrong[rng.permutation(n)[: round(flipped * n)]] = True
    given = (data.y[train] + wrong * rng.integers(1, classes, n)) % classes
    parts = (images(data, part) for part in (train, valid, test))
    of_train, of_valid, of_test = parts
    of_train = Examples(of_train.x, jnp.asarray(given, jnp.int32))
    pixels = data.x[train].reshape(n, *(data.image or (-1,)))
    return Draw(of_train, of_valid, of_test, wrong, pixels, classes)


def logits(params: PyTree, x: Float[Array, "rows pixels"]) -> Float[Array, "rows classes"]:
    """Of a network with one hidden layer of tanh units."""
    hidden = jnp.tanh(x @ params["w1"] + params["b1"][None])
    return hidden @ params["w2"] + params["b2"][None]


def losses(params: PyTree, rows: Examples) -> Float[Array, " rows"]:
    """The cross-entropy of each row."""
    scores = logits(params, rows.x)
    picked = jnp.take_along_axis(scores, rows.y[:, None], 1)[:, 0]
    return jax.nn.logsumexp(scores, 1) - picked


def margins(params: PyTree, rows: Examples) -> Float[Array, " rows"]:
    """The logit of the given label above the largest other one."""
    scores = logits(params, rows.x)
    own = jax.nn.one_hot(rows.y, scores.shape[1], dtype=bool)
    others = jnp.max(jnp.where(own, -jnp.inf, scores), 1)
    return jnp.sum(jnp.where(own, scores, 0), 1) - others


def objective_of(settings: Settings, rows: Draw) -> hg.Objective:
    """The mean loss on the validation rows; a key draws the start and the order."""

    def loss(params, weights, batch):
        return jnp.mean(weights[batch.index] * losses(params, batch.data))

    def training(key):
        return hg.Training(
            loss,
            optimizer=hg.Momentum(settings.rate, decay=0.9),
            batches=hg.minibatches(rows.train, size=settings.size, key=key),
            steps=settings.steps,
        )

    def init(_, key):
        pixels = rows.train.x.shape[1]
        first, second = jax.random.split(key)
        return {
            "w1": jax.random.normal(first, (pixels, settings.hidden)) / pixels**0.5,
            "b1": jnp.zeros(settings.hidden),
            "w2": jax.random.normal(second, (settings.hidden, rows.classes)) / settings.hidden**0.5,
            "b2": jnp.zeros(rows.classes),
        }

    score = lambda params, *_: jnp.mean(losses(params, rows.valid))
    return hg.Objective(training, init=init, score=score)


def by_attribution(objective: hg.Objective, rows: Draw, keys: list[PRNGKeyArray]) -> np.ndarray:
    """By how much the validation loss would change without each row: low where it would fall."""
    queries = lambda params, *_: jnp.mean(losses(params, rows.valid))[None]
    ones = jnp.ones(len(rows.train))
    found = [hg.attribute(objective, ones, queries, key=key, adjoint=ADJOINT) for key in keys]
    return np.mean([one.removed[0] for one in found], axis=0)


def by_loss(objective: hg.Objective, rows: Draw, keys: list[PRNGKeyArray]) -> np.ndarray:
    """Minus each row's own loss after training on it."""
    ones = jnp.ones(len(rows.train))
    runs = [objective.run(ones, key) for key in keys]
    return -np.mean([np.asarray(losses(run.params, rows.train)) for run in runs], axis=0)


def by_margin(
    settings: Settings, objective: hg.Objective, rows: Draw, keys: list[PRNGKeyArray]
) -> np.ndarray:
    """Each row's own margin, averaged over the training."""
    ones, steps = jnp.ones(len(rows.train)), settings.steps
    looks = [steps * (i + 1) // LOOKS for i in range(LOOKS)]
    runs = [objective.run(ones, key, steps=look) for key in keys for look in looks]
    return np.mean([np.asarray(margins(run.params, rows.train)) for run in runs], axis=0)


def by_clean(rows: Draw, seed: int) -> np.ndarray:
    """The weights that `hindgrad clean` gives with its defaults, from the training rows alone."""
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "rows.npz", Path(folder) / "out"
        np.savez(file, x=rows.pixels, y=np.asarray(rows.train.y))
        clean.run(Clean(data=str(file), label="y", out=out, seed=seed), Console(quiet=True))
        return np.array(json.loads((out / "results.json").read_text())["weight"])


def judged(
    objective: hg.Objective,
    rows: Draw,
    worth: np.ndarray | None,
    count: int,
    seed: int,
    judges: int,
) -> dict[str, float]:
    """The test rows' loss and error of networks trained without the rows of the lowest worth."""
    weights = np.ones(len(rows.train), np.float32)
    gone = np.argsort(worth, kind="stable")[:count] if worth is not None else []
    weights[gone] = 0
    found = []
    for key in jax.random.split(jax.random.key(UNSEEN + seed), judges):
        params = objective.run(jnp.asarray(weights), key).params
        wrong = jnp.argmax(logits(params, rows.test.x), 1) != rows.test.y
        found.append((float(jnp.mean(losses(params, rows.test))), float(jnp.mean(wrong))))
    loss, error = np.mean(found, axis=0)
    return {"loss": float(loss), "error": float(error), "flipped": int(rows.wrong[gone].sum())}


def run(settings: Settings, kept: Any, line: Line) -> Results:
    """All ways, for every share of wrong labels and every seed."""
    found = []
    for flipped in settings.flipped:
        for seed in settings.each_seed():
            found += one_seed(settings, flipped, seed, kept, line)
    return {"found": found}


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
        return judged(objective, rows, way(), count, seed, settings.judges)

    about = {"share": flipped, "seed": seed, "removed": count, "wrong": int(rows.wrong.sum())}
    learned = len(rows.train.y) + len(rows.valid.y)
    about |= {"redrawn": len(rows.test.y) / learned}
    found = []
    for place, (name, way) in enumerate(ways.items()):
        one = kept(f"{place}-{flipped}-{seed}", partial(judge, way))
        found.append({"way": name, **about, **one})
        line.done(1)
    return found


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
FULL = Settings(**{**vars(DEFAULT), "data": "mnist", "rows": 5000, "seeds": 10})
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

"""How well hypergradients foretell retraining, beside what people use instead.

Once for one run: rows are removed at random, everything else stays as it was, and the linear
datamodelling score (LDS) says how well each way foretold the order in which the queries change.
Once for the learning algorithm, in the protocol of the dattri benchmark (Deng et al. 2024): halves
of the rows, each trained on from another start and in another order.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

import hindgrad as hg
from experiments.attribution import attribution_lds_report as report
from experiments.attribution import influence
from experiments.attribution.networks import Convolutional, Dense
from experiments.attribution.trained import (
    Draw,
    Model,
    changes,
    draw,
    objective_of,
    of_subsets,
    ones,
    params,
)
from experiments.runner import BySeed, Results
from hindgrad.attribution import ranks
from hindgrad.progress import Bar as Line

ABOUT = "What foretells retraining: hypergradients beside influence functions, TRAK and TracIn."

CHECKPOINTS = 5
"""Of TracIn, at equal distances."""
UNSEEN = 10_000
"""Added to a seed for the keys of what is to be foretold."""


@dataclass(frozen=True, kw_only=True)
class Settings(BySeed):
    """Sizes."""

    models: tuple[Model, ...]
    benchmarked: int
    """So many of them, the first, are judged by halves too."""
    queries: int
    runs: int
    """Retrainings of each kind."""
    drop: float
    """The share of the rows that each does without, in one run."""
    dimensions: int
    """To which TRAK projects."""
    iterations: int
    """Of conjugate gradients, at most."""
    keys: int
    """Trained models over which the ways are averaged, by halves."""


Way = Callable[[Settings, Draw, PRNGKeyArray], Float[np.ndarray, "queries rows"]]
"""By how much the queries would change without each row, of the model that a key trains."""


def by_hypergradient(_: Settings, rows: Draw, key: PRNGKeyArray) -> np.ndarray:
    """Through the whole training, exactly."""
    objective = objective_of(rows)
    return hg.attribute(objective, ones(rows), objective.score, key=key).removed


def by_influence(settings: Settings, rows: Draw, key: PRNGKeyArray) -> np.ndarray:
    """Influence functions."""
    how = {"damping": rows.model.damping, "iterations": settings.iterations}
    return influence.influence_functions(*_trained(rows, key), **how)


def by_trak(settings: Settings, rows: Draw, key: PRNGKeyArray) -> np.ndarray:
    """TRAK."""
    random = jax.random.fold_in(key, settings.dimensions)
    return influence.trak(*_trained(rows, key), key=random, dimensions=settings.dimensions)


def by_tracin(_: Settings, rows: Draw, key: PRNGKeyArray) -> np.ndarray:
    """TracIn over checkpoints."""
    steps = [rows.model.steps * (i + 1) // CHECKPOINTS for i in range(CHECKPOINTS)]
    return influence.tracin(
        rows.model.network.logits,
        [params(rows, key, steps=count) for count in steps],
        rows.train,
        rows.queries,
    )


def by_products(_: Settings, rows: Draw, key: PRNGKeyArray) -> np.ndarray:
    """Products of gradients, of the trained model."""
    logits, last, *parts = _trained(rows, key)
    return influence.tracin(logits, [last], *parts)


def by_chance(_: Settings, rows: Draw, key: PRNGKeyArray) -> np.ndarray:
    """Nothing is known."""
    shape = len(rows.queries), len(rows.train)
    return np.asarray(jax.random.normal(key, shape), np.float64)


WAYS: dict[str, Way] = {
    report.HYPERGRADIENT: by_hypergradient,
    report.INFLUENCE: by_influence,
    report.TRAK: by_trak,
    report.TRACIN: by_tracin,
    report.PRODUCTS: by_products,
    report.CHANCE: by_chance,
}


def _trained(rows, key):
    return rows.model.network.logits, params(rows, key), rows.train, rows.queries


def removals(rows: Draw, drop: float, runs: int, seed: int) -> Bool[np.ndarray, "runs rows"]:
    """Which rows each retraining does without."""
    random, count = np.random.default_rng(seed), len(rows.train)
    gone = np.zeros((runs, count), bool)
    for row in gone:
        row[random.choice(count, round(drop * count), replace=False)] = True
    return gone


def run(settings: Settings, kept: Any, line: Line) -> Results:
    """All ways for every model and seed, in one run and by halves."""
    models, single, halved = [], [], []
    for seed in settings.each_seed():
        for place, model in enumerate(settings.models):
            rows = draw(model, settings.queries, seed)
            about = {"model": model.name, "seed": seed}
            keep = partial(_kept, kept, f"seed-{seed}/{model.name}")
            line.stage(f"{model.name}, seed {seed}")
            models.append(about | keep("training", partial(training, rows, seed)))
            single += [about | one for one in in_one_run(settings, rows, seed, keep, line)]
            if place < settings.benchmarked:
                halved += [about | one for one in by_halves(settings, rows, seed, keep, line)]
    return {"models": models, "single": single, "halved": halved}


def _kept(kept, folder, name, compute):
    """A piece, with the processor's seconds for it."""

    def timed():
        begun = time.process_time()
        found = compute()
        return {"seconds": time.process_time() - begun, **found}

    return kept(f"{folder}/{name}", timed)


def training(rows: Draw, seed: int) -> dict[str, Any]:
    """How long a plain training takes, and how good the trained model is."""
    begun, logits = time.process_time(), rows.model.network.logits
    last = jax.block_until_ready(params(rows, jax.random.key(seed)))
    seconds = time.process_time() - begun
    right = lambda part: jnp.argmax(logits(last, part.x), 1) == part.y
    parts = {"trained": rows.train, "test": rows.test}
    shares = {name: float(jnp.mean(right(part))) for name, part in parts.items()}
    return {"seconds": seconds, **shares}


def in_one_run(settings: Settings, rows: Draw, seed: int, keep: Any, line: Line) -> list[dict]:
    """How well each way foretells removals from one run."""
    key, gone = jax.random.key(seed), removals(rows, settings.drop, settings.runs, seed)
    truth = lambda: {"changes": changes(rows, gone, key).tolist()}
    happened = np.array(keep("one-run", truth)["changes"])

    def score(way):
        return scored(gone @ way(settings, rows, key).T.astype(np.float64), happened, seed)

    found = []
    for place, (name, way) in enumerate(WAYS.items()):
        found.append({"way": name, **keep(f"one-run-{place}", partial(score, way))})
        line.done(1)
    return found


def by_halves(settings: Settings, rows: Draw, seed: int, keep: Any, line: Line) -> list[dict]:
    """How well each way, averaged over trained models, foretells trainings on halves."""
    gone = removals(rows, 0.5, settings.runs, seed)
    keys = jax.random.split(jax.random.key(seed), settings.keys)
    truth = lambda: {"values": of_subsets(rows, ~gone, jax.random.key(UNSEEN + seed)).tolist()}
    happened = np.array(keep("halves", truth)["values"])

    def foretold(name, key):
        if name == report.AGAIN:
            return of_subsets(rows, ~gone, key)
        return gone @ WAYS[name](settings, rows, key).T.astype(np.float64)

    def score(name):
        each = [foretold(name, key) for key in keys]
        alone = [ranks.spearman(one, happened).mean() for one in each]
        of_all = scored(np.mean(each, axis=0), happened, seed)
        return {**of_all, "alone": float(np.mean(alone))}

    found = []
    for place, name in enumerate(report.BY_HALVES):
        found.append({"way": name, **keep(f"halves-{place}", partial(score, name))})
        line.done(1)
    return found


def scored(
    foretold: Float[np.ndarray, "runs queries"],
    happened: Float[np.ndarray, "runs queries"],
    seed: int,
) -> dict[str, float]:
    """The LDS with its bootstrap interval."""
    low, high = ranks.interval(foretold, happened, np.random.default_rng(seed))
    return {"lds": float(ranks.spearman(foretold, happened).mean()), "low": low, "high": high}


def total(settings: Settings) -> int:
    """In answers."""
    halves = settings.benchmarked * len(report.BY_HALVES)
    return settings.seeds * (len(settings.models) * len(WAYS) + halves)


LOGISTIC = Model(
    name="logistic regression",
    network=Dense(()),
    data="mnist",
    rows=5000,
    steps=1000,
    rate=0.2,
    damping=0.01,
)
MLP = Model(
    name="MLP",
    network=Dense((128, 64)),
    data="mnist",
    rows=5000,
    steps=500,
    rate=0.1,
    damping=0.03,
)
CONVOLUTIONAL = Model(
    name="convolutions",
    network=Convolutional((8, 16)),
    data="cifar10",
    rows=1500,
    steps=300,
    rate=0.1,
    damping=0.03,
)
DEFAULT = Settings(
    seeds=2,
    models=(LOGISTIC, MLP, CONVOLUTIONAL),
    benchmarked=2,
    queries=20,
    runs=50,
    drop=0.01,
    dimensions=512,
    iterations=10,
    keys=3,
)
FULL = replace(DEFAULT, seeds=5, queries=100, runs=100, dimensions=2048, iterations=50, keys=20)
SMALL = Settings(
    seeds=1,
    models=(
        Model(
            name="dense",
            network=Dense((6,)),
            data="digits",
            rows=60,
            steps=12,
            size=20,
            rate=0.1,
            damping=0.01,
        ),
        Model(
            name="convolutions",
            network=Convolutional((2,)),
            data="digits",
            rows=40,
            steps=6,
            size=20,
            rate=0.1,
            damping=0.01,
        ),
    ),
    benchmarked=1,
    queries=3,
    runs=4,
    drop=0.1,
    dimensions=8,
    iterations=3,
    keys=2,
)

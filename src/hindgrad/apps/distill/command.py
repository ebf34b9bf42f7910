"""`hindgrad distill`: learns few examples to train on instead of a whole data set."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from sklearn.cluster import KMeans

from hindgrad.apps.console import say
from hindgrad.apps.distill import outputs as distill_outputs
from hindgrad.apps.distill.distillation import (
    BATCH,
    RATES,
    Distillation,
    Hyper,
    Learner,
    Parts,
    Rows,
    accuracies,
    constant_rate,
    learn,
)
from hindgrad.apps.distill.settings import Distill
from hindgrad.apps.model import center_and_scale, weights
from hindgrad.apps.settings import ArgumentError, check_positions, check_room, identity
from hindgrad.apps.table import Table, check_classes, read_as_asked
from hindgrad.apps.work import Work, timed
from hindgrad.progress import Bar

ROUNDS = 3
"""The examples are learned in so many rounds, after each of which the validation rows choose."""

DRAWS = 5
"""Fresh initialisations that everything is tested on."""

NOISE = 0.3
"""Standard deviations of noise on the real rows that judge while learning. Without it, the examples
of a small data set fit its rows too closely."""

LENGTHS = (1, 4, 16)
"""Multiples of --steps that a constant-rate training on few examples may last."""

LENGTHS_ALL = (100, 300, 1000)
"""Steps that a training on all rows may last."""

SEARCH = 30
"""What the search for a constant rate counts as, in outer steps."""


@dataclass(frozen=True)
class Prepared:
    """A table divided and standardised, with what undoes the standardisation."""

    parts: Parts
    names: list[str]
    """What the numbers are called that a row becomes."""
    mean: np.ndarray
    scale: np.ndarray
    """A number in the table is `mean + scale · x` here; both [numbers]."""
    varies: np.ndarray


def run(settings: Distill, console: Console) -> None:
    """Runs the command: prints the outcome, and where everything is."""
    work = Work.of(settings)
    table = read_as_asked(settings)
    check_classes(table, "distill")
    sizes = (table.encoder.width, *settings.layers, len(table.classes))
    check_room(4 * weights(sizes) + settings.steps * len(sizes), "--hidden and --steps")
    check_positions(settings.steps * LENGTHS[-1], BATCH)
    prepared = prepare(settings, table)
    _check_counts(settings, table, prepared)
    call = identity(settings) | {"fingerprint": table.fingerprint()}

    def compute() -> dict[str, Any]:
        say(console, table.notes)
        return {"call": call, **_results(settings, table, prepared, work)}

    results = work.results(
        call,
        compute,
        lambda folder, results: distill_outputs.write(folder, results, table),
        report=partial(say, console),
    )
    distill_outputs.show(results, settings.out, console)


def prepare(settings: Distill, table: Table) -> Prepared:
    """Draws the parts, class by class, and standardises by the rows that are not for testing."""
    rows = divide(table.y, settings.test, settings.valid, settings.seed, table.groups)
    pool = np.concatenate(rows[:2])
    numbers, standard = center_and_scale(table, pool)
    varies = np.ptp(numbers[pool], axis=0) > 0
    x = standard.features(numbers)
    parts = [Rows(jnp.asarray(x[r]), jnp.asarray(table.y[r])) for r in rows]
    return Prepared(Parts(*parts), table.encoder.names, standard.mean, standard.std, varies)


def divide(
    y: np.ndarray, test: float, valid: float, seed: int, groups: np.ndarray | None = None
) -> list[np.ndarray]:
    """Row numbers to learn from, to choose by and to test on. Each class has its shares, and at
    least one row in each part if it has three; or groups [rows] are whole in one part."""
    rng = np.random.default_rng(seed)
    if groups is not None:
        return _divided(groups, test, valid, rng)
    parts: list[list[np.ndarray]] = [[], [], []]
    for c in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == c))
        aside = max(1, round(test * len(rows)))
        chosen = max(1, round(valid * len(rows)))
        aside = max(0, min(aside, len(rows) - 2))
        chosen = min(chosen, len(rows) - 1 - aside)
        for part, piece in zip(
            parts,
            (rows[aside + chosen :], rows[aside : aside + chosen], rows[:aside]),
            strict=True,
        ):
            part.append(piece)
    return [np.concatenate(part) for part in parts]


def _divided(
    groups: np.ndarray, test: float, valid: float, rng: np.random.Generator
) -> list[np.ndarray]:
    """Groups in random order: the first test, the next are chosen by, the others learned from."""
    present = rng.permutation(np.unique(groups))
    counts = np.array([np.count_nonzero(groups == group) for group in present])
    middle = np.cumsum(counts) - counts / 2
    tested = np.clip(np.count_nonzero(middle < test * len(groups)), 1, len(present) - 2)
    chosen = np.count_nonzero(middle < (test + valid) * len(groups)) - tested
    chosen = np.clip(chosen, 1, len(present) - 1 - tested)
    bounds = [present[tested + chosen :], present[tested : tested + chosen], present[:tested]]
    return [np.flatnonzero(np.isin(groups, part)) for part in bounds]


@dataclass
class _Job:
    """One distillation, whose pieces are kept, each with the seconds that it took."""

    settings: Distill
    prepared: Prepared
    learner: Learner
    work: Work
    bar: Bar
    seconds: float = 0.0

    def __post_init__(self):
        self.parts = self.prepared.parts
        self.present = np.unique(np.asarray(self.parts.train.y))
        self.y = jnp.asarray(np.repeat(self.present, self.settings.per_class), jnp.int32)
        self.key = jax.random.key(self.settings.seed)
        self.fresh = jax.random.split(jax.random.fold_in(self.key, 1), DRAWS)

    def kept(self, name: str, compute: Callable[[], Any]) -> Any:
        """The piece of that name."""
        piece = self.work.kept(name, timed(lambda: {"found": compute()}))
        self.seconds += piece["seconds"]
        return piece["found"]


def _results(settings: Distill, table: Table, prepared: Prepared, work: Work) -> dict[str, Any]:
    """Everything that the outputs are made of."""
    sizes = (table.encoder.width, *settings.layers, len(table.classes))
    learner = Learner(sizes, settings.steps)
    with Bar(4 * SEARCH + settings.steps_outer) as bar:
        job = _Job(settings, prepared, learner, work, bar)
        bar.stage("training on centres and on random examples")
        centres = job.kept("centres", lambda: _centres(job))
        others = job.kept("others", lambda: _others(job, centres))
        bar.done(2 * SEARCH)
        learned = _learned(job, centres, others.pop("rate"))
        bar.stage("training on all rows")
        everything = job.kept("all", lambda: _all(job))
        bar.done(2 * SEARCH)
    hyper = learned.pop("hyper")
    test = learned.pop("test")
    return {
        "data": {
            "name": table.name,
            "classes": list(table.classes),
            "label": table.label,
            "notes": list(table.notes),
            "features": len(table.features),
            "rows": {name: len(part.y) for name, part in job.parts._asdict().items()},
        },
        "training": {
            "hidden": list(settings.layers),
            "steps": settings.steps,
            "decay": learner.decay,
            "rates": np.exp(np.array(hyper["log_rate"])).tolist(),
        },
        "examples": {
            "x": hyper["x"],
            "y": np.asarray(job.y).tolist(),
            "names": prepared.names,
            "mean": prepared.mean.tolist(),
            "scale": prepared.scale.tolist(),
        },
        "arms": {"learned": _arm(test, None, settings.steps), **others, "all": everything},
        **learned,
        "minutes": job.seconds / 60,
    }


def _centres(job: _Job) -> list:
    """The centres that k-means finds in each class; for one, the mean."""
    x, y = map(np.asarray, job.parts.train)
    means = KMeans(job.settings.per_class, random_state=job.settings.seed)
    found = [means.fit(x[y == c]).cluster_centers_ for c in job.present]
    return np.concatenate(found).tolist()


def _random(job: _Job, rng: np.random.Generator) -> Rows:
    """Random rows to learn from, as many of each class."""
    train = job.parts.train
    y, n = np.asarray(train.y), job.settings.per_class
    drawn = [rng.choice(np.flatnonzero(y == c), n, replace=False) for c in job.present]
    rows = np.concatenate(drawn)
    return Rows(train.x[rows], train.y[rows])


def _others(job: _Job, centres: list) -> dict[str, Any]:
    """What random examples and the centres give, each at the rate and length that suit them, and
    the rate that suits the centres for a training as long as that on the learned examples."""
    lengths = tuple(job.learner.steps * multiple for multiple in LENGTHS)
    search = lambda sets: constant_rate(
        job.learner, sets, job.parts, job.fresh, rates=RATES, lengths=lengths
    )
    rng = np.random.default_rng(job.settings.seed)
    way, test, _ = search([_random(job, rng) for _ in range(DRAWS)])
    found: dict[str, Any] = {"random": _arm(test, way.rate, way.steps)}
    way, test, best = search([Rows(jnp.asarray(centres, jnp.float32), job.y)] * DRAWS)
    return found | {"centres": _arm(test, way.rate, way.steps), "rate": best[0]}


def _all(job: _Job) -> dict[str, Any]:
    """What all rows to learn from give, at the rate and length that suit them."""
    sets, keys = [job.parts.train], job.fresh[:1]
    way, test, _ = constant_rate(
        job.learner, sets, job.parts, keys, rates=RATES[1:-1], lengths=LENGTHS_ALL
    )
    return _arm(test, way.rate, way.steps)


def _learned(job: _Job, centres: list, rate: float) -> dict[str, Any]:
    """The examples of the round that is best on the validation rows, and how they test."""
    settings, parts, bar = job.settings, job.parts, job.bar
    varies = jnp.asarray(job.prepared.varies)
    problem = Distillation(parts.train, job.y, varies, NOISE, job.learner)
    key = jax.random.fold_in(job.key, 2)
    judges = jax.random.split(jax.random.fold_in(key, ROUNDS), DRAWS)
    layers = len(job.learner.sizes) - 1
    hyper = {
        "x": jnp.asarray(centres, jnp.float32),
        "log_rate": jnp.full((settings.steps, layers), jnp.log(rate)),
    }
    rounds: list[dict[str, Any]] = []
    bounds = np.linspace(0, settings.steps_outer, ROUNDS + 1).astype(int)
    for i, steps in enumerate(np.diff(bounds).tolist()):
        bar.stage(f"learning examples, round {i + 1} of {ROUNDS}")

        def one(i=i, steps=steps, hyper=hyper):
            with bar.paused():
                result = learn(
                    problem,
                    hyper,
                    parts.valid,
                    steps=steps,
                    key=jax.random.fold_in(key, i),
                    checkpoint=job.work.folder / f"learning-{i}",
                    progress=bar.shown,
                )
            return {
                "hyper": {name: np.asarray(v).tolist() for name, v in result.hyper.items()},
                "losses": result.losses,
                "valid": float(accuracies(problem, result.hyper, parts.valid, judges).mean()),
                "how": result.message,
            }

        rounds.append(job.kept(f"round-{i}", one))
        hyper = _as_arrays(rounds[-1]["hyper"])
        bar.done(steps)
    best = max(rounds, key=lambda each: each["valid"])
    return {
        "hyper": best["hyper"],
        "test": accuracies(problem, _as_arrays(best["hyper"]), parts.test, job.fresh),
        "losses": [loss for each in rounds for loss in each["losses"]],
        "valid": [each["valid"] for each in rounds],
        "how": [each["how"] for each in rounds],
    }


def _as_arrays(hyper: dict[str, list]) -> Hyper:
    return {name: jnp.asarray(values, jnp.float32) for name, values in hyper.items()}


def _arm(test: Any, rate: float | None, steps: int) -> dict[str, Any]:
    return {"accuracy": np.asarray(test, float).tolist(), "rate": rate, "steps": steps}


def _check_counts(settings: Distill, table: Table, prepared: Prepared) -> None:
    y = np.asarray(prepared.parts.train.y)
    classes, counts = np.unique(y, return_counts=True)
    if counts.min() < settings.per_class:
        name = table.classes[classes[counts.argmin()]]
        raise ArgumentError(
            f"--per-class {settings.per_class} is more than the {counts.min()} rows of class "
            f"'{name}' that are there to learn from; lower it."
        )

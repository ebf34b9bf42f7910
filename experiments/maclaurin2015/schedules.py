"""Learned schedules (Maclaurin et al. 2015, section 3.1): 1,608 hyperparameters of one training.

A network on MNIST is trained for 100 steps. Rate and momentum decay at every step, of the weights
and of the biases of each layer, and the initial scales of these eight groups are tuned by the
hypergradient. First as the authors did it, by the training loss. Then so that one can tell what it
is good for: by the loss on validation images, with one seed or fresh ones, with a number for each
step or few of them, beside Bayesian optimisation of three scalars; and judged on the test images,
by trainings with seeds of their own.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from experiments import models, runner
from experiments.maclaurin2015 import schedules_report as report
from experiments.maclaurin2015.schedules_problem import Form, Problem, initialiser, natural
from experiments.maclaurin2015.schedules_tuning import (
    ADJOINT,
    RANGES,
    authors_adam,
    clipped_adam,
    tune_fixed,
    tune_fresh,
)
from experiments.runner import Kept, Repeated, Results
from experiments.search import Point, search
from hindgrad.cost import HYPERGRADIENT
from hindgrad.progress import Bar as Line
from hindgrad.schedules import Between, Piecewise, Spline
from hindgrad.tuning.tune import TuneResult

ABOUT = (
    "1,608 learned hyperparameters of one training: rate and momentum decay at every step, "
    "for each layer's weights and biases, and initial scales. Maclaurin et al. 2015, "
    "*Gradient-based hyperparameter optimization through reversible learning*, section 3.1."
)

CHOOSING = 3 * 5
"""Trainings by which `hg.tune` chooses its answer, where seeds are fresh."""
JUDGING, SEARCHING = 10_000, 20_000
"""The numbers of the first seeds by which answers are judged, and of those that the search uses;
the tuning's begin at 0."""


@dataclass(frozen=True)
class Settings(Repeated):
    """Sizes, and where the hyperparameters begin."""

    data: str
    rows: int
    """Examples for training; as many are for validation, and for the test."""
    hidden: tuple[int, ...]
    batch: int
    steps: int
    log_rate: float
    log_scale: float
    decays: tuple[float, ...]
    """The authors' starts; the first one is the comparison's."""
    steps_outer: int
    rate_authors: float
    """Of the authors' outer optimizer."""
    repeats_authors: int
    """How many times each of their tunings is run,"""
    draws: int
    """and how many trainings tell how a start does."""
    rate_outer: float
    """Of our outer optimizer at its first step; it falls to a tenth."""
    knots: int
    """Numbers of a schedule that has few."""
    early: int
    """Trainings of the authors' Bayesian optimisation."""
    finalists: int
    """A search with as many trainings as a tuning looks at so many points again,"""
    further: int
    """so many times each."""
    judged: int
    """Trainings that tell how an answer does."""

    @property
    def fixed_cost(self) -> int:
        """Trainings that a tuning with one seed is worth,"""
        return HYPERGRADIENT * self.steps_outer

    @property
    def fresh_cost(self) -> int:
        """and one with fresh seeds."""
        return self.fixed_cost + CHOOSING

    def start(self, decay: float) -> Point:
        """The three scalars at the start."""
        return {"log_rate": self.log_rate, "decay": decay, "log_scale": self.log_scale}


def each_step(settings: Settings) -> Form:
    """A number for each step, as in the paper: 1,608 in all."""
    return _form(settings, Piecewise, settings.steps)


def few_knots(settings: Settings) -> Form:
    """Splines: 56 numbers in all, if three for each."""
    return _form(settings, Spline, settings.knots)


def _form(settings, kind, knots):
    decay = kind(knots, settings.steps, Between(0.0, 1.0))
    return Form(kind(knots, settings.steps), decay, len(settings.hidden) + 1)


def keys_from(key: PRNGKeyArray, first: int, count: int) -> list[PRNGKeyArray]:
    """Keys of consecutive numbers."""
    return [jax.random.fold_in(key, first + i) for i in range(count)]


class Way(NamedTuple):
    """What is tuned by the training loss."""

    name: str
    form: Form
    decay: float
    optimizer: optax.GradientTransformation


def by_training_loss(
    settings: Settings, problem: Problem, way: Way, key: PRNGKeyArray
) -> dict[str, Any]:
    """One tuning as the authors did it: by the training loss, each outer step with its own seed."""
    begin = time.monotonic()
    form = way.form
    start = form.start(**settings.start(way.decay))
    result = runner.tune(
        problem.objective(form, problem.split.train),
        start,
        way.optimizer,
        steps=settings.steps_outer,
        key=key,
        adjoint=ADJOINT,
        average=1 / settings.steps_outer,  # of the last iterate alone
    )
    keys = keys_from(key, JUDGING, settings.judged)
    return {
        "outer": [record.value for record in result.history],
        "how": result.message,
        "learned": natural(form, result.hyper),
        "before": problem.judge(form, start, keys).means(),
        "after": problem.judge(form, result.hyper, keys).means(),
        "minutes": (time.monotonic() - begin) / 60,
    }


def authors(settings: Settings, init: Callable, kept: Kept, line: Line) -> Results:
    """Their experiment: each start with their optimizer; and the first one with few numbers and
    our optimizer."""
    split = models.in_order(settings.data, settings.rows, settings.rows, settings.rows)
    problem = Problem(split, init, settings.batch, settings.steps)
    form, theirs = each_step(settings), authors_adam(settings.rate_authors)
    ways = [Way(report.THEIRS, form, decay, theirs) for decay in settings.decays]
    ours = clipped_adam(settings.rate_outer, settings.steps_outer)
    ways.append(Way(report.OURS, few_knots(settings), settings.decays[0], ours))
    starts, runs = {}, {}
    for decay in settings.decays:
        keys = keys_from(jax.random.key(settings.seed), JUDGING, settings.draws)
        hyper = form.start(**settings.start(decay))
        measure = lambda h=hyper, k=keys: _starts(problem, form, h, k)
        starts[f"{decay:g}"] = kept(f"authors/start-{decay:g}", measure)
    for way in ways:
        found = []
        for seed in range(settings.seed, settings.seed + settings.repeats_authors):
            line.stage(f"by the training loss, seed {seed}: {way.name}, decay {way.decay:g}")
            key = jax.random.key(seed)
            tune = lambda w=way, k=key: by_training_loss(settings, problem, w, k)
            found.append(kept(f"authors/{way.name}-{way.decay:g}-{seed}", tune))
            line.done(settings.steps_outer)
        runs[f"{way.name} {way.decay:g}"] = found
    return {"starts": starts, "runs": runs}


def _starts(problem, form, hyper, keys):
    begin = time.monotonic()
    found = problem.judge(form, hyper, keys).all()
    return {**found, "minutes": (time.monotonic() - begin) / 60}


TUNINGS: Mapping[str, tuple[Callable[[Settings], Form], Callable[..., TuneResult]]] = {
    report.EACH_FIXED: (each_step, tune_fixed),
    report.EACH_FRESH: (each_step, tune_fresh),
    report.FEW_FIXED: (few_knots, tune_fixed),
    report.FEW_FRESH: (few_knots, tune_fresh),
}


def by_validation_loss(
    settings: Settings, problem: Problem, name: str, key: PRNGKeyArray
) -> dict[str, Any]:
    """One tuning by the validation loss."""
    begin = time.monotonic()
    make_form, tune = TUNINGS[name]
    form = make_form(settings)
    start = form.start(**settings.start(settings.decays[0]))
    objective = problem.objective(form, problem.split.valid)
    result = tune(objective, start, key, settings.rate_outer, settings.steps_outer)
    return {
        "numbers": sum(np.size(leaf) for leaf in jax.tree.leaves(start)),
        "trainings": settings.fixed_cost if tune is tune_fixed else settings.fresh_cost,
        "outer": [record.value for record in result.history],
        "how": result.message,
        "learned": natural(form, result.hyper),
        **_judged(settings, problem, form, result.hyper, key),
        "minutes": (time.monotonic() - begin) / 60,
    }


def _judged(settings, problem, form, hyper, key):
    """By fresh seeds, and by the one that `tune_fixed` tunes with."""
    fresh = problem.judge(form, hyper, keys_from(key, JUDGING, settings.judged)).means()
    return {"judged": fresh, "own": problem.judge(form, hyper, [key]).means()}


def by_search(settings: Settings, problem: Problem, seed: int) -> dict[str, dict[str, Any]]:
    """The start, and what Bayesian optimisation finds early and late."""
    begin = time.monotonic()
    form, key = each_step(settings), jax.random.key(seed)

    def value(point, draw):
        keys = keys_from(key, SEARCHING + draw, 1)
        return float(problem.judge(form, form.start(**point), keys).valid[0])

    start = settings.start(settings.decays[0])
    found = search(
        value,
        start,
        RANGES,
        early=settings.early,
        trials=settings.fresh_cost - settings.finalists * settings.further,
        finalists=settings.finalists,
        further=settings.further,
        seed=seed,
    )
    costs = {report.START: 0, report.EARLY: settings.early, report.LATE: settings.fresh_cost}
    minutes = (time.monotonic() - begin) / 60
    return {
        name: {
            "numbers": len(point),
            "trainings": costs[name],
            "point": point,
            **_judged(settings, problem, form, form.start(**point), key),
            "minutes": minutes * costs[name] / settings.fresh_cost,
        }
        for name, point in (
            (report.START, start),
            (report.EARLY, found.early),
            (report.LATE, found.late),
        )
    }


def comparison(settings: Settings, init: Callable, kept: Kept, line: Line) -> Results:
    """All ways, on several draws of the images."""
    runs = []
    for seed in settings.each_seed():
        rows = settings.rows
        drawn = models.split(settings.data, rows, rows, rows, seed)
        problem = Problem(drawn, init, settings.batch, settings.steps)
        line.stage(f"seed {seed}: Bayesian optimisation")
        arms = kept(f"seed-{seed}/search", lambda p=problem, s=seed: by_search(settings, p, s))
        line.done(settings.steps_outer)
        for name in TUNINGS:
            line.stage(f"seed {seed}: {name}")
            key = jax.random.key(seed)
            tune = lambda n=name, p=problem, k=key: by_validation_loss(settings, p, n, k)
            arms[name] = kept(f"seed-{seed}/{name}", tune)
            line.done(settings.steps_outer)
        runs.append({"seed": seed, "arms": arms})
    return {"runs": runs}


def run(settings: Settings, kept: Kept, line: Line) -> Results:
    """Both parts."""
    inputs, classes = models.in_order(settings.data, 1, 1, 1).train.x.shape[1], 10
    init = initialiser((inputs, *settings.hidden, classes))
    return {
        "authors": authors(settings, init, kept, line),
        "comparison": comparison(settings, init, kept, line),
    }


def total(settings: Settings) -> int:
    """Outer steps; a search counts as many as a tuning."""
    tunings = settings.repeats_authors * (len(settings.decays) + 1)
    return settings.steps_outer * (tunings + settings.seeds * (len(TUNINGS) + 1))


DEFAULT = Settings(
    data="mnist",
    rows=10_000,
    hidden=(50, 50, 50),
    batch=200,
    steps=100,
    log_rate=-1.0,
    log_scale=-3.0,
    decays=(0.5, 0.9),
    steps_outer=50,
    rate_authors=0.04,
    repeats_authors=2,
    draws=30,
    rate_outer=0.2,
    knots=3,
    early=95,
    finalists=6,
    further=5,
    judged=5,
    seeds=3,
)
"""The paper's own sizes."""

FULL = DEFAULT

SMALL = replace(
    DEFAULT,
    data="digits",
    rows=150,
    hidden=(),
    batch=20,
    steps=6,
    decays=(0.5,),
    steps_outer=3,
    repeats_authors=1,
    draws=3,
    early=3,
    finalists=1,
    further=2,
    judged=2,
    seeds=1,
)

"""When is a hypergradient meaningless? (Maclaurin, Duvenaud & Adams 2015, section 4, "Chaos").

A network is trained with each of many learning rates: its loss, and the derivative of that with
respect to the log rate. Up to some rate both are smooth; beyond it the derivative is exact, and
says nothing about what a step along it would do. Then `hg.diagnose` looks for that edge from a few
runs, and `hg.tune` starts beyond it: by the exact hypergradient and by smoothed ones.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

import hindgrad as hg
from experiments import models, runner
from experiments.maclaurin2015 import chaos_report as report
from experiments.models import Examples, Layers, nll
from experiments.runner import Kept, Repeated, Results, finite
from hindgrad import programs
from hindgrad.apps import datasets
from hindgrad.progress import Bar as Line

ABOUT = (
    "When is a hypergradient meaningless? Loss and hypergradient over the learning rate. "
    "Maclaurin, Duvenaud and Adams 2015, *Gradient-based hyperparameter optimization through "
    "reversible learning*."
)

PIECE = 50
"""So many rates are kept at a time."""

NEIGHBOURS = 8
"""So many runs around an answer tell how good it is; a single one is a matter of luck."""


@dataclass(frozen=True)
class Settings(Repeated):
    """Sizes and ranges; the authors' own unless said otherwise. Only the tunings above the edge are
    repeated."""

    data: str
    rows: int
    """The first ones of the training set; pixels are divided by the largest, and that is all."""
    widths: tuple[int, ...]
    batch: int
    """The rows are gone through in order, batch by batch."""
    steps: int
    decay: float
    log_scale: float
    """Of the initial weights and biases, which are Gaussian."""
    low: float
    high: float
    """The range of log rates, and"""
    values: int
    """how many of them, equally far from each other."""
    above: float
    """The log rate from which the tunings begin, with one for each of so many"""
    windows: int
    """of the run."""
    trainings: int
    """What each of them may cost."""
    rate_outer: float
    """Adam's."""
    pairs: int
    """Of `Evolution`."""
    pairs_persistent: int
    window: int
    """Of `PersistentEvolution`, in steps."""
    spread: float
    """Of both, in log rate."""

    def costs(self) -> dict[str, float]:
        """What an outer step costs, in trainings."""
        persistent = 2 * self.pairs_persistent * self.window / self.steps
        return {
            report.EXACT: 4.0,
            report.EVOLUTION: 2.0 * self.pairs + 1,
            report.PERSISTENT: persistent,
        }

    def adjoint(self, arm: str, seed: int) -> hg.Adjoint:
        if arm == report.EVOLUTION:
            return hg.Evolution(self.pairs, spread=self.spread, key=seed)
        if arm == report.PERSISTENT:
            pairs, window = self.pairs_persistent, self.window
            return hg.PersistentEvolution(pairs, window=window, spread=self.spread, key=seed)
        return hg.Reversible()


class InOrder(eqx.Module):
    """Batches one after the other, and again from the beginning."""

    data: Examples
    size: int = eqx.field(static=True)

    def __call__(self, t: Int[Array, ""]) -> Examples:
        begin = t % (len(self.data.y) // self.size) * self.size
        cut = lambda rows: jax.lax.dynamic_slice_in_dim(rows, begin, self.size)
        return jax.tree.map(cut, self.data)


def images(settings: Settings) -> Examples:
    """The training rows, not centred."""
    found = datasets.load(settings.data)
    return models.images(found, np.flatnonzero(found.train)[: settings.rows])


def weights(settings: Settings, seed: int, inputs: int, classes: int) -> Layers:
    """The initial ones; with seed 0 the authors' own numbers (NumPy's old generator, which drew
    as many for the velocities, which are zero, before)."""
    sizes = list(itertools.pairwise((inputs, *settings.widths, classes)))
    random = np.random.RandomState(seed)
    random.randn(sum((a + 1) * b for a, b in sizes))
    draw = lambda *shape: jnp.asarray(
        random.randn(*shape) * np.exp(settings.log_scale), jnp.float32
    )
    return [{"w": draw(a, b), "b": draw(b)} for a, b in sizes]


class Score(eqx.Module):
    """The loss on all rows, or a function of it."""

    data: Examples
    of: Callable[[Array], Array] = eqx.field(static=True)

    def __call__(self, params: Layers, hyper: PyTree, key: Any) -> Float[Array, ""]:
        del hyper, key
        return self.of(nll(params, self.data))


class Rate(eqx.Module):
    """From {"log_rate": a number, or one for each of equal windows of the run}."""

    steps: int = eqx.field(static=True)

    def __call__(self, hyper: PyTree, t: Int[Array, ""]) -> Float[Array, ""]:
        values = hyper["log_rate"]
        if jnp.ndim(values) == 0:
            return jnp.exp(values)
        return hg.schedules.Piecewise(len(values), self.steps)(values, t)


def _loss(params, hyper, batch):
    del hyper
    return nll(params, batch)


def objective(
    settings: Settings, seed: int, of: Callable[[Array], Array] = jnp.asarray
) -> hg.Objective:
    """The score of training with these hyperparameters; its functions are the same each time, so
    that what is compiled for one serves the next."""
    data = images(settings)
    training = hg.Training(
        _loss,
        optimizer=hg.Momentum(Rate(settings.steps), settings.decay),
        batches=InOrder(data, settings.batch),
        steps=settings.steps,
    )
    start = weights(settings, seed, data.x.shape[1], len(np.unique(data.y)))
    return hg.Objective(training, init=start, score=Score(data, of))


def log_rates(settings: Settings) -> np.ndarray:
    return np.linspace(settings.low, settings.high, settings.values)


def one_by_one(settings: Settings, kept: Kept, line: Line) -> dict[str, Any]:
    """Loss and hypergradient at each log rate, by `Reversible`. Where a run leaves the range of
    its numbers, or its gradient that of floats, there is None."""
    loss = objective(settings, settings.seed)
    value = lambda log_rate, status: loss(
        {"log_rate": log_rate}, adjoint=hg.Reversible(failure=hg.failures.Report(status))
    )
    program = jax.jit(jax.value_and_grad(value, (0, 1)))

    def piece(rates):
        began, found = time.monotonic(), {"loss": [], "gradient": [], "left": []}
        for rate in rates:
            loss, (gradient, status) = program(jnp.float32(rate), jnp.zeros(3))
            found["loss"].append(finite(loss))
            found["gradient"].append(finite(gradient))
            found["left"].append(hg.Reversible().describe(status))
            line.done(1)
        return found | {"seconds": time.monotonic() - began}

    line.stage("loss and hypergradient at each rate")
    rates = log_rates(settings)
    pieces = [
        kept(f"rates/{begin}", lambda b=begin: piece(rates[b : b + PIECE]))
        for begin in range(0, len(rates), PIECE)
    ]
    joined = {name: [x for p in pieces for x in p[name]] for name in ("loss", "gradient", "left")}
    return joined | {"minutes": sum(p["seconds"] for p in pieces) / 60}


def edge(settings: Settings) -> dict[str, Any]:
    """What `diagnose` says, from a few runs that begin at the lowest rate."""
    began, reach = time.monotonic(), settings.high - settings.low
    found = hg.diagnose(
        objective(settings, settings.seed),
        {"log_rate": settings.low},
        along={"log_rate": 1.0},
        reach=reach,
        adjoint=hg.Reversible(),
    )
    place = None if found.edge is None else settings.low + found.edge
    minutes = (time.monotonic() - began) / 60
    return {"edge": place, "message": found.message, "minutes": minutes}


def above_the_edge(settings: Settings, seed: int, arm: str) -> dict[str, Any]:
    """Tunes a log rate for each window of the run, from above the edge."""
    began = time.monotonic()
    # Above the edge, the loss itself goes over five orders of magnitude.
    tuned = objective(settings, seed, jnp.log)
    start = {"log_rate": jnp.full(settings.windows, settings.above)}
    noise = jax.random.normal(jax.random.key(seed), (NEIGHBOURS, settings.windows))
    score = lambda hyper: float(_around(tuned, hyper["log_rate"][None] + settings.spread * noise))
    result = runner.tune(
        tuned,
        start,
        optax.adam(settings.rate_outer),
        steps=max(1, int(settings.trainings / settings.costs()[arm])),
        adjoint=settings.adjoint(arm, seed),
        key=seed,
        choose=score,
    )
    return {
        "cost": settings.costs()[arm],
        "start": score(start),
        "answer": result.value,
        "itself": float(tuned(result.hyper)),
        "values": [finite(r.value) for r in result.history],
        "norms": [finite(r.norm) for r in result.history],
        "turned_back": sum(r.status != "accepted" for r in result.history),
        "log_rate": np.asarray(result.hyper["log_rate"]).tolist(),
        "message": result.message,
        "seconds": time.monotonic() - began,
    }


@programs.compiled
def _around(tuned: hg.Objective, log_rates: Float[Array, "runs windows"]) -> Float[Array, ""]:
    """The mean objective of several runs; those that diverge are left out."""
    return jnp.nanmean(jax.lax.map(lambda rates: tuned({"log_rate": rates}), log_rates))


def run(settings: Settings, kept: Kept, line: Line) -> Results:
    """The whole experiment."""
    rates = one_by_one(settings, kept, line)
    line.stage("diagnose looks for the edge")
    found = {"rates": rates, "edge": kept("edge", lambda: edge(settings))}
    found["above"] = {arm: [] for arm in settings.costs()}
    for seed in settings.each_seed():
        for arm, runs in found["above"].items():
            line.stage(f"above the edge, seed {seed}: {arm}")
            compute = lambda s=seed, a=arm: above_the_edge(settings, s, a)
            runs.append(kept(f"above/{arm}-{seed}", compute))
            line.done(settings.trainings // 4)
    return found


def total(settings: Settings) -> int:
    """Hypergradients, or as many trainings as take as long."""
    return settings.values + len(settings.costs()) * settings.seeds * (settings.trainings // 4)


DEFAULT = Settings(
    data="mnist",
    rows=1000,
    widths=(200, 50),
    batch=250,
    steps=50,
    decay=0.9,
    log_scale=-2.0,
    low=0.5,
    high=2.5,
    values=1000,
    above=2.2,
    windows=5,
    trainings=200,
    rate_outer=0.05,
    pairs=4,
    pairs_persistent=8,
    window=25,
    spread=0.1,
    seeds=3,
)

FULL = replace(DEFAULT, trainings=1000, seeds=5)

SMALL = replace(
    DEFAULT,
    data="digits",
    rows=100,
    widths=(8,),
    batch=50,
    steps=6,
    high=12.0,
    values=4,
    windows=2,
    trainings=10,
    pairs=1,
    pairs_persistent=2,
    window=3,
    seeds=1,
)

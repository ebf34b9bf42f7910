"""Learned optimizers beside tuned ones, on problems that neither has seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from hindgrad.apps.datasets import DataError, load
from hindgrad.apps.images import examples, images
from hindgrad.apps.report.optimizer_curves import summary
from hindgrad.apps.settings import ArgumentError
from hindgrad.apps.work import Work, finite, timed
from hindgrad.learned import learned_curves
from hindgrad.learned.baselines import BASELINES, RATES, Tuned, tune_rate, tuned_curves
from hindgrad.learned.classifiers import MLPs, small_normal
from hindgrad.learned.families import LogisticRegression, Quadratics, Rosenbrock
from hindgrad.learned.problems import Family
from hindgrad.learned.store import Trained
from hindgrad.progress import Bar

LEARNED = "learned"
"""What the learned optimizer is called in tables and pictures."""

MARKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
"""Steps that a table shows, as far as a training goes."""

COLUMNS = 5
"""How many of them."""

COARSE = RATES[::2]

SIDE = 8
"""Pixels a side of the images for convolutional networks, if theirs can be averaged so."""

ACTIVATIONS: dict[str, Callable] = {
    "sigmoid": jax.nn.sigmoid,
    "tanh": jax.numpy.tanh,
    "relu": jax.nn.relu,
}


@dataclass(frozen=True)
class Comparison:
    """What is compared, and how thoroughly."""

    trained: Trained
    family: Family
    steps: int
    problems: int
    """How many problems are compared on."""
    tuning: int
    """How many the rates are tuned on."""
    seed: int
    rates: Sequence[float] = RATES
    decays: Sequence[float] | None = None
    """For momentum and Nesterov; those that `tune_rate` tries unless given."""

    @property
    def at(self) -> list[int]:
        """The steps in the table."""
        return [*[step for step in MARKS if step < self.steps], self.steps][-COLUMNS:]

    def key(self, number: int) -> Any:
        """A key that learning did not use."""
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(self.seed), 2**31), number)

    def run(self, work: Work, bar: Bar) -> dict[str, Any]:
        """For each optimizer its curve, and mean, median and rate by step, in pieces that `work`
        keeps; `bar` counts the pieces, `PIECES` in all."""
        bar.stage(f"training {self.problems:,} problems with the learned optimizer")
        found = {LEARNED: work.kept("learned", timed(self._learned))}
        bar.done(1)
        for baseline in BASELINES:
            bar.stage(f"tuning {baseline.name} on {self.tuning:,} problems")
            tune = lambda b=baseline: self._baseline(b, bar)
            found[baseline.name] = work.kept(baseline.name, timed(tune))
            bar.done(1)
        return found

    def _learned(self) -> dict[str, Any]:
        optimizer, weights, _ = self.trained
        curves = learned_curves(
            optimizer, weights, self.family, self.key(1), count=self.problems, steps=self.steps
        )
        whole = summary(curves)
        at = {str(step): self._at(whole, step) for step in self.at}
        return {"curve": whole.as_json(), "at": at, "note": ""}

    def _baseline(self, baseline, bar: Bar) -> dict[str, Any]:
        with bar.paused():
            tuned = tune_rate(
                baseline,
                self.family,
                self.key(0),
                steps=self.steps,
                problems=self.tuning,
                rates=self.rates,
                decays=self.decays if baseline.decays else None,
                at=self.at,
                progress=bar.shown,
            )
        each = {step: tuned.at(step) for step in self.at}
        distinct = {(t.rate, t.decay): t for t in each.values()}
        curves = tuned_curves(
            list(distinct.values()),
            self.family,
            self.key(1),
            count=self.problems,
            steps=self.steps,
        )
        found = {pair: summary(c) for pair, c in zip(distinct, curves, strict=True)}
        at = {}
        for step, t in each.items():
            at[str(step)] = self._at(found[t.rate, t.decay], step, t)
        note = tuned.message if tuned.at_edge else ""
        return {"curve": found[tuned.rate, tuned.decay].as_json(), "at": at, "note": note}

    def _at(self, whole, step: int, tuned: Tuned | None = None) -> dict[str, Any]:
        values = {name: finite(getattr(whole, name)[step]) for name in whole._fields}
        rate, decay = (None, None) if tuned is None else (tuned.rate, tuned.decay)
        return {**values, "rate": rate, "decay": decay}


PIECES = 1 + len(BASELINES)


def family(
    name: str,
    *,
    size: int | None = None,
    hidden: int | None = None,
    layers: int | None = None,
    activation: str | None = None,
    data: str | None = None,
    batch: int | None = None,
) -> Family:
    """The problems of that name.

    Raises `ArgumentError` if the data do not fit, `DataError` if they are not to be had.
    """
    match name:
        case "quadratic":
            return Quadratics(size or 10)
        case "rosenbrock":
            return Rosenbrock(size or 2)
        case "logistic":
            return _logistic(data)
        case "mlp":
            units = (hidden or 20,) * (1 if layers is None else layers)
            unit = ACTIVATIONS[activation or "sigmoid"]
            known = _named(examples, data or "mnist")
            return MLPs(
                known, hidden=units, activation=unit, batch=batch or 128, initial=small_normal
            )
        case _:
            return _convnets(data or "cifar10", size, batch or 64)


def _logistic(data: str | None) -> Family:
    if data is None:
        return LogisticRegression()
    rows = _named(examples, data)
    return LogisticRegression((rows.x, rows.y), classes=rows.classes)


def _convnets(data: str, size: int | None, batch: int) -> Family:
    from hindgrad.learned.convnets import ConvNets

    shape = _named(load, data).image
    if shape is None:
        raise ArgumentError(f"--data {data}: these are no images; name other data.")
    side = size or (SIDE if shape[0] % SIDE == 0 else shape[0])
    try:
        pictures, _ = images(data, size=side)
        halvings = max(n for n in range(4) if side % 2**n == 0)
        return ConvNets(pictures, (8,) * halvings, kernel=3, batch=batch)
    except ValueError as error:
        raise ArgumentError(f"--data {data} --size {side}: {error}") from error


def _named(read: Callable, name: str) -> Any:
    try:
        return read(name)
    except DataError as error:
        raise ArgumentError(f"--data {name}: {error}") from error

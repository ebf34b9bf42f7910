"""Learned optimizers on small networks: the paper's LSTM, and what later work adds.

The problems are perceptrons on MNIST, from fresh weights, with the loss of a minibatch. Optimizers
with a network on every coordinate are learned on cheap ones on the digits, at a tenth of the cost;
that with a network on every array on MNIST itself. They are compared with others at tuned rates, on
networks as learned on and on others (Andrychowicz et al. 2016, section 3.2; Lv, Jiang and Li 2017
for `RNNProp` and random scaling).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from experiments.andrychowicz2016 import l2l_mlp_report as report
from experiments.runner import Pieces, Repeated, Results
from hindgrad import learned
from hindgrad.apps import images
from hindgrad.apps.optimizers.recipes import falling_adam
from hindgrad.apps.report.optimizer_curves import summary
from hindgrad.learned.baselines import BASELINES, Trials, Tuned, tune_rate, tuned_curves
from hindgrad.learned.classifiers import small_normal
from hindgrad.learned.problems import Family
from hindgrad.progress import Bar as Line

ABOUT = (
    "Optimizers learned on small networks on MNIST, against others at tuned rates, on these "
    "and on other networks. Andrychowicz et al. 2016, *Learning to learn by gradient descent by "
    "gradient descent*, section 3.2."
)


@dataclass(frozen=True)
class Task:
    """A kind of network that optimizers are compared on."""

    name: str
    layers: Callable[[int], tuple[int, ...]]
    """The hidden layers, by the number of units of those learned on."""
    activation: Callable
    long: bool = False
    """Whether it is trained for as many steps as optimizers learn, or half of them."""


BASE = "as learned"
TASKS = (
    Task(BASE, lambda units: (units,), jax.nn.sigmoid, long=True),
    Task("twice the units", lambda units: (2 * units,), jax.nn.sigmoid),
    Task("two layers", lambda units: (units, units), jax.nn.sigmoid),
    Task(report.RELU, lambda units: (units,), jax.nn.relu),
)


def _as_they_are(family: Family) -> Family:
    return family


@dataclass(frozen=True)
class Learner:
    """An optimizer, and on what form of the problems it learns."""

    optimizer: learned.LearnedOptimizer
    problems: Callable[[Family], Family] = _as_they_are
    rate: float = 1e-3
    """Of the Adam that learns it, which falls along half a cosine."""
    windows: int = 1
    """Through how many windows of the settings' length each gradient goes."""
    measure: Callable | None = None
    """What of the losses is lowered."""


LEARNERS = {
    "SpectralLSTM": Learner(learned.SpectralLSTM(), rate=3e-3, windows=2, measure=jnp.log),
    "LSTM": Learner(learned.CoordinateLSTM()),
    "RNNProp": Learner(learned.RNNProp()),
    "RNNProp, scaled": Learner(learned.RNNProp(), learned.RandomlyScaled),
    "MomentumMLP": Learner(learned.MomentumMLP(), rate=6e-4),
}


@dataclass(frozen=True)
class Settings(Repeated):
    """Sizes. Each optimizer is learned anew with each seed."""

    data: str
    units: int
    batch: int
    """Examples in a training step."""
    steps: int
    """How long a problem is trained."""
    unroll: int
    learned_on: int
    """Problems at a time."""
    at: tuple[int, ...]
    """The steps that are reported."""
    tasks: tuple[str, ...]
    baselines: tuple[str, ...]
    learners: tuple[str, ...]
    cheap: tuple[int, ...]
    """For each learner, how many gradients on the digits, and"""
    whole: tuple[int, ...]
    """on the data themselves."""
    evaluations: int
    """Held-out problems by which the best weights are chosen."""
    rates: tuple[float, ...]
    """Those tried for each baseline,"""
    decays: tuple[float, ...]
    """with these decays of momentum,"""
    validation: int
    """on so many problems."""
    problems: int
    """How many the optimizers are compared on."""

    @property
    def middle(self) -> int:
        """Half of the steps: what the paper learns, and compares other networks at."""
        return self.steps // 2


class Data:
    """The families of problems."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.rows = images.examples(settings.data)

    def task(self, task: Task) -> Family:
        """The problems that optimizers are compared on."""
        layers = task.layers(self.settings.units)
        return learned.MLPs(self.rows, layers, task.activation, self.settings.batch, small_normal)

    def cheap(self) -> Family:
        """The same on the digits, whose pixels are multiplied so that they sum to as much: how far
        one step of all weights moves a unit goes with that sum."""
        digits = images.examples("digits")
        brighter = jnp.mean(self.rows.x.sum(axis=1)) / jnp.mean(digits.x.sum(axis=1))
        rows = learned.Examples(brighter * digits.x, digits.y, digits.classes)
        units, batch = (self.settings.units,), self.settings.batch
        return learned.MLPs(rows, units, batch=batch, initial=small_normal)


def learn(
    settings: Settings, name: str, data: Data, folder: Path, seed: int, line: Line
) -> tuple[PyTree, dict[str, Any]]:
    """The weights of one optimizer, and how the learning went. `folder` keeps what an interrupted
    run goes on from."""
    learner, i = LEARNERS[name], settings.learners.index(name)
    begin, weights, history = time.perf_counter(), None, []
    families = {"cheap": data.cheap(), "whole": data.task(TASKS[0])}
    stages = {"cheap": settings.cheap[i], "whole": settings.whole[i]}
    for stage, iterations in stages.items():
        if not iterations:
            continue
        family = families[stage]
        line.stage(f"{name} learns on {stage} problems")
        rate = learner.rate if weights is None else learner.rate / 3
        with line.paused():
            result = learned.fit(
                learner.optimizer,
                learner.problems(family),
                held_out=family,
                weights=weights,
                steps=settings.steps,
                unroll=min(learner.windows * settings.unroll, settings.steps),
                batch=settings.learned_on,
                iterations=iterations,
                outer=falling_adam(iterations, rate),
                key=jax.random.fold_in(jax.random.key(seed), i),
                measure=learner.measure,
                evaluations=settings.evaluations,
                every=max(1, iterations // 8),
                checkpoint=folder / stage,
                progress=line.shown,
            )
        weights = result.weights
        history += [[stage, e.iteration, e.value] for e in result.history]
        line.done(iterations)
    minutes = (time.perf_counter() - begin) / 60
    return weights, {"minutes": minutes, "history": history}


def tune(settings: Settings, family: Family, near: dict[str, Tuned], steps: int) -> list[Tuned]:
    """Every baseline at its best rate (and decay) for each of the reported steps, by problems of
    their own; `near` has those of another task, from which to look no further than ten times."""
    tuned = []
    for baseline in (b for b in BASELINES if b.name in settings.baselines):
        rates, decays = settings.rates, settings.decays if baseline.decays else ()
        if baseline.name in near:
            found = near[baseline.name]
            rates = [r for r in rates if found.rate / 10.1 < r < found.rate * 10.1]
            decays = () if found.decay is None else (found.decay,)
        tuned.append(
            tune_rate(
                baseline,
                family,
                key_of(settings, 0),
                steps=steps,
                problems=settings.validation,
                rates=rates,
                decays=decays,
                at=[t for t in settings.at if t <= steps],
                first=min(2, settings.validation),
            )
        )
    return tuned


def described(tuned: Tuned) -> dict[str, Any]:
    """What was chosen, as JSON can hold it."""
    chosen = {key: getattr(tuned, key) for key in ("name", "rate", "decay", "step", "at_edge")}
    trials = {key: np.asarray(value).tolist() for key, value in vars(tuned.trials).items()}
    return chosen | {"trials": trials}


def restored(found: dict[str, Any]) -> Tuned:
    """What `described` was given."""
    baseline = next(b for b in BASELINES if b.name == found["name"])
    saved = found["trials"]
    arrays = {key: np.array(saved[key]) for key in ("hyper", "values")}
    trials = Trials(**arrays, at=tuple(saved["at"]), seen=tuple(saved["seen"]))
    return trials.best(baseline, found["step"])


def key_of(settings: Settings, number: int):
    """Of the problems for tuning (0), and of those that optimizers are compared on (1)."""
    return jax.random.fold_in(jax.random.key(settings.seed), 1_000 + number)


def compare_baselines(
    settings: Settings, task: Task, family: Family, base: dict[str, Tuned]
) -> dict[str, Any]:
    """The baselines on one task: tuned on it for each reported step ("own"), and with what was
    best on the base task ("base")."""
    begin = time.perf_counter()
    steps = settings.steps if task.long else settings.middle
    tuned = {t.name: t for t in tune(settings, family, base, steps)}
    tuning = (time.perf_counter() - begin) / 60
    begin, own, known = time.perf_counter(), {}, {}
    key = key_of(settings, 1)

    def curves(found: Tuned) -> dict[str, Any]:
        which = (found.name, found.rate, found.decay)
        if which not in known:
            count = settings.problems
            (losses,) = tuned_curves([found], family, key, count=count, steps=steps)
            known[which] = summary(losses).as_json()
        return described(found) | known[which]

    for name, found in tuned.items():
        wanted = [t for t in settings.at if t <= steps]
        own[name] = {str(t): curves(found.at(t)) for t in wanted}
    base = base or {name: found.at(settings.middle) for name, found in tuned.items()}
    found = {name: curves(t) for name, t in base.items()}
    running = (time.perf_counter() - begin) / 60
    return {"own": own, "base": found, "minutes": {"tuning": tuning, "running": running}}


def compare_learned(
    settings: Settings, task: Task, family: Family, name: str, weights: list[PyTree]
) -> dict[str, Any]:
    """A learned optimizer on one task, with the weights of every seed, taken together."""
    begin = time.perf_counter()
    curves = [
        np.asarray(
            learned.learned_curves(
                LEARNERS[name].optimizer,
                w,
                family,
                key_of(settings, 1),
                count=settings.problems,
                steps=settings.steps if task.long else settings.middle,
            )
        )
        for w in weights
    ]
    minutes = (time.perf_counter() - begin) / 60
    return summary(np.concatenate(curves)).as_json() | {"minutes": minutes}


def run(settings: Settings, kept: Pieces, line: Line) -> Results:
    """Tunes, learns and compares."""
    data, tasks, base = Data(settings), {}, {}
    chosen = [task for task in TASKS if task.name in settings.tasks]
    for task in chosen:
        line.stage(f"tuning the baselines on networks {task.name}")
        found = kept(
            f"baselines-{_file(task.name)}",
            lambda t=task, b=base: compare_baselines(settings, t, data.task(t), b),
        )
        line.done(settings.problems * len(settings.baselines))
        base = base or {name: restored(tuned) for name, tuned in found["base"].items()}
        tasks[task.name] = {"baselines": found, "learned": {}}
    learning: dict[str, Any] = {}
    for name in settings.learners:
        learning[name], weights = learn_all(settings, name, data, kept, line)
        for task in chosen:
            line.stage(f"{name} on networks {task.name}")
            tasks[task.name]["learned"][name] = kept(
                f"{_file(name)}-{_file(task.name)}",
                lambda t=task, n=name, w=weights: compare_learned(settings, t, data.task(t), n, w),
            )
            line.done(settings.problems)
    return {"learning": learning, "tasks": tasks}


def learn_all(
    settings: Settings, name: str, data: Data, kept: Pieces, line: Line
) -> tuple[dict[str, Any], list[PyTree]]:
    """How the learning went by seed, and the weights of each."""
    how, weights = {}, []
    for seed in settings.each_seed():
        folder = kept.folder(f"{_file(name)}-{seed}")
        path = folder / "weights.safetensors"

        def learn_and_save(seed=seed, folder=folder, path=path):
            found, how = learn(settings, name, data, folder, seed, line)
            learned.save(path, LEARNERS[name].optimizer, found)
            return how

        how[str(seed)] = kept(f"learned-{_file(name)}-{seed}", learn_and_save, arrays=path)
        weights.append(learned.load(path).weights)
    return how, weights


def _file(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


def total(settings: Settings) -> int:
    """Gradients of learning, and problems that optimizers are tuned and compared on."""
    learning = settings.seeds * (sum(settings.cheap) + sum(settings.whole))
    optimizers = len(settings.baselines) + len(settings.learners)
    compared = len(settings.tasks) * optimizers * settings.problems
    return learning + compared


DEFAULT = Settings(
    data="mnist",
    units=20,
    batch=128,
    steps=200,
    unroll=50,
    learned_on=2,
    at=(20, 50, 100, 200),
    tasks=tuple(task.name for task in TASKS),
    baselines=tuple(baseline.name for baseline in BASELINES),
    learners=("SpectralLSTM", "MomentumMLP", "LSTM", "RNNProp", "RNNProp, scaled"),
    cheap=(0, 480, 2_000, 500, 500),
    whole=(300, 0, 0, 0, 0),
    evaluations=8,
    rates=tuple(np.logspace(-3, 1, 25).tolist()),
    decays=(0.8, 0.9, 0.95),
    validation=32,
    problems=32,
    seeds=1,
)

FULL = replace(
    DEFAULT,
    cheap=(0, 2_000, 2_000, 2_000, 2_000),
    whole=(1_000, 2_000, 500, 500, 500),
    learned_on=4,
    evaluations=16,
    rates=tuple(np.logspace(-3, 1, 41).tolist()),
    decays=(0.5, 0.8, 0.9, 0.95, 0.99),
    validation=1024,
    problems=128,
    seeds=3,
)

SMALL = replace(
    DEFAULT,
    data="digits",
    units=3,
    batch=16,
    steps=4,
    unroll=2,
    at=(2, 4),
    tasks=(BASE, report.RELU),
    baselines=("Adam",),
    learners=("RNNProp, scaled",),
    cheap=(2,),
    whole=(0,),
    evaluations=2,
    rates=(0.001, 0.1, 10.0),
    decays=(0.9,),
    validation=2,
    problems=2,
)

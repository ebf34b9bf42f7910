"""Learned optimizers on convolutional networks: one LSTM for each kind of parameter.

Optimizers are learned on the training of convolutional networks on CIFAR-10, for 100 steps, and
compared with others at tuned rates on networks that they have not seen: on all ten classes, and on
five and two of them, where one was learned on the other five classes only (Andrychowicz et al.
2016, section 3.3 and figure 7).
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from experiments.andrychowicz2016 import l2l_conv_report as report
from experiments.models import held_out
from experiments.runner import Pieces, Repeated, Results, finite
from hindgrad import programs
from hindgrad.apps.images import images
from hindgrad.apps.report.optimizer_curves import summary
from hindgrad.learned.base import LearnedOptimizer
from hindgrad.learned.baselines import BASELINES, Baseline, tune_rate
from hindgrad.learned.convnets import ConvNets, Images
from hindgrad.learned.curves import drawn_problems
from hindgrad.learned.fit import fit
from hindgrad.learned.lstm import CoordinateLSTM
from hindgrad.learned.moments import RNNProp
from hindgrad.learned.partitioned import Partitioned
from hindgrad.learned.problems import Problems
from hindgrad.progress import Bar as Line

ABOUT = (
    "Learned optimizers on convolutional networks and CIFAR-10, one LSTM for each kind of "
    "parameter. Andrychowicz et al. 2016, *Learning to learn by gradient descent by gradient "
    "descent*, section 3.3."
)

KINDS = ("conv", "dense", "bias")


@dataclass(frozen=True)
class Settings(Repeated):
    """Sizes."""

    data: str
    size: int
    """The images' pixels along a side, by averaging."""
    channels: tuple[int, ...]
    """Of the convolutions,"""
    kernel: int
    """and the pixels along a side of their kernels."""
    dense: int
    """The units of the dense layer."""
    minibatch: int
    subsets: tuple[tuple[int, ...], ...]
    """Classes of the smaller data sets; none of them is in"""
    others: tuple[int, ...]
    """the classes that an optimizer is learned on that is tried on the subsets."""
    learned: tuple[str, ...]
    """Which optimizers are learned,"""
    baselines: tuple[str, ...]
    """and which are compared with them."""
    hidden: tuple[int, ...]
    """The LSTMs' layers,"""
    scale: float
    """and what their outputs are multiplied by."""
    steps: int
    unroll: int
    batch: int
    """How many networks are trained side by side while an optimizer is learned."""
    iterations: int
    rate: float
    """Of Adam on the weights, at first; it falls along a cosine to a hundredth."""
    evaluations: int
    """Held-out problems by which the best weights are chosen."""
    compared: int
    """Further problems, on which the optimizers are compared."""
    tuning: int
    """Problems on which the others' rates are tuned,"""
    first: int
    """and how many of them all rates are tried on."""
    rates: tuple[float, ...]

    def optimizers(self) -> dict[str, LearnedOptimizer]:
        """What is learned."""
        lstm = CoordinateLSTM(hidden=self.hidden, scale=self.scale)
        normalized = RNNProp(hidden=self.hidden, scale=self.scale)
        by_kind = lambda part: Partitioned(parts=dict.fromkeys(KINDS, part))
        known = {
            report.PAPERS: by_kind(lstm),
            report.NORMALIZED: by_kind(normalized),
            report.SUB: by_kind(lstm),
            report.SHARED: lstm,
        }
        return {name: known[name] for name in self.learned}

    def rivals(self) -> list[Baseline]:
        """What they are compared with."""
        return [baseline for baseline in BASELINES if baseline.name in self.baselines]

    def networks(self, images: Images) -> ConvNets:
        """The problems on some images."""
        return ConvNets(images, self.channels, self.kernel, self.dense, self.minibatch)


class Data(eqx.Module):
    """Networks on training images, and the same networks on test images."""

    train: ConvNets
    test: ConvNets


def datasets(settings: Settings) -> dict[str, Data]:
    """All classes, the subsets, and the other classes. Rows are repeated until all have as many,
    which changes nothing about minibatches drawn with replacement; so that what is compiled for
    one serves for all."""
    parts = images(settings.data, size=settings.size)
    classes = {report.ALL: tuple(range(parts[0].classes)), report.OTHERS: settings.others}
    classes |= {report.subset(labels): labels for labels in settings.subsets}
    return {
        name: Data(*(settings.networks(_only(part, labels)) for part in parts))
        for name, labels in classes.items()
    }


def _only(images, labels):
    rows = np.flatnonzero(np.isin(np.asarray(images.y), labels))
    return images.take(np.resize(rows, len(images.y)))


@functools.cache
def outer(rate: float, iterations: int) -> optax.GradientTransformation:
    """The optimizer of the weights: one object for all, so that compiled programs are shared."""
    rates = optax.cosine_decay_schedule(rate, iterations, 0.01)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rates))


def learn(settings: Settings, name: str, seed: int, data: Data, folder: Any, line: Line) -> Any:
    """Learns an optimizer."""
    with line.paused():
        return fit(
            settings.optimizers()[name],
            data.train,
            steps=settings.steps,
            unroll=settings.unroll,
            batch=settings.batch,
            iterations=settings.iterations,
            outer=outer(settings.rate, settings.iterations),
            key=seed,
            evaluations=settings.evaluations,
            every=max(1, settings.iterations // 10),
            checkpoint=folder,
            progress=line.shown,
        )


@programs.compiled
def curves(
    make: Callable[..., optax.GradientTransformation],
    hyper: Sequence[Any],
    on_train: Problems,
    on_test: Problems,
    steps: int,
) -> tuple[Float[Array, "problems {steps}+1"], Float[Array, "problems {steps}+1"]]:
    """The losses at θ_0 … θ_steps with the optimizer `make(*hyper)`: of the minibatches that the
    networks are trained by, and of as large ones of test images."""
    optimizer = make(*hyper)

    def step(state, t):
        params, memory = state
        losses, grads = on_train.gradients(params, t)
        updates, memory = jax.vmap(optimizer.update)(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), (losses, on_test.losses(params, t))

    start = (on_train.params, jax.vmap(optimizer.init)(on_train.params))
    _, (train, test) = jax.lax.scan(step, start, jnp.arange(steps + 1, dtype=jnp.int32))
    return train.T, test.T


def compared(
    settings: Settings, make: Callable[..., Any], hyper: Sequence[Any], seed: int, data: Data
) -> dict[str, Any]:
    """What is kept of an optimizer's losses on one data set."""
    train, test = (
        drawn_problems(family, held_out(seed), jnp.int32(0), count=settings.compared)
        for family in (data.train, data.test)
    )
    losses = curves(make, hyper, train, test, settings.steps)
    names = ("train", "test")
    return {name: summary(found).as_json() for name, found in zip(names, losses, strict=True)}


def learned(
    settings: Settings, name: str, seed: int, data: Mapping[str, Data], kept: Pieces, line: Line
) -> dict[str, Any]:
    """Learns an optimizer, and compares it on all data sets."""
    line.stage(f"seed {seed}: {name} learns")
    begin = time.perf_counter()
    folder = kept.folder(f"checkpoint-{name.replace(' ', '-')}-{seed}")
    on = data[report.OTHERS if name == report.SUB else report.ALL]
    result = learn(settings, name, seed, on, folder, line)
    minutes = (time.perf_counter() - begin) / 60
    line.done(settings.iterations)
    line.stage(f"seed {seed}: {name} is compared")
    make = settings.optimizers()[name].as_optax
    return {
        "minutes": minutes,
        "message": result.message,
        "history": [[look.iteration, finite(look.value)] for look in result.history],
        "curves": {
            where: compared(settings, make, [result.weights], seed, data[where])
            for where in report.places(settings.subsets)
        },
    }


def tuned(
    settings: Settings, baseline: Baseline, data: Mapping[str, Data], line: Line
) -> dict[str, Any]:
    """The rates of a baseline that are best at the last step, a rate for each data set."""
    begin, rates = time.perf_counter(), {}
    for where in report.places(settings.subsets):
        line.stage(f"{baseline.name} is tuned on {where}")
        found = tune_rate(
            baseline,
            data[where].train,
            jax.random.key(1024),
            steps=settings.steps,
            problems=settings.tuning,
            first=settings.first,
            rates=settings.rates,
            decays=(0.9,) if baseline.decays else None,
        )
        rates[where] = {"rate": found.rate, "decay": found.decay, "at_edge": found.at_edge}
    line.done(report.TUNING)
    return {"minutes": (time.perf_counter() - begin) / 60, "on": rates}


def run(settings: Settings, kept: Pieces, line: Line) -> Results:
    """Learns, tunes and compares."""
    line.stage("reading the data")
    data = datasets(settings)
    rates = {
        b.name: kept(f"tuned-{b.name}", lambda b=b: tuned(settings, b, data, line))
        for b in settings.rivals()
    }
    seeds = []
    for seed in settings.each_seed():
        found = {}
        for b in settings.rivals():
            line.stage(f"seed {seed}: {b.name} is compared")
            found[b.name] = kept(
                f"{b.name}-{seed}", lambda b=b, s=seed: _baseline(settings, b, rates, s, data)
            )
        for name in settings.optimizers():
            found[name] = kept(
                f"{name.replace(' ', '-')}-{seed}",
                lambda n=name, s=seed: learned(settings, n, s, data, kept, line),
            )
        seeds.append({"seed": seed, "optimizers": found})
    params = eqx.filter_eval_shape(data[report.ALL].train.start, jax.random.key(0))
    sizes = sum(leaf.size for leaf in jax.tree.leaves(params))
    return {"parameters": sizes, "tuned": rates, "seeds": seeds}


def _baseline(settings, baseline, rates, seed, data):
    begin, found = time.perf_counter(), {}
    for where, best in rates[baseline.name]["on"].items():
        hyper = [jnp.float32(best[name]) for name in ("rate", "decay") if best[name] is not None]
        found[where] = compared(settings, baseline.make, hyper, seed, data[where])
    return {"minutes": (time.perf_counter() - begin) / 60, "curves": found}


def total(settings: Settings) -> int:
    """Gradients, and tunings as many as take as long."""
    learning = settings.seeds * len(settings.learned) * settings.iterations
    return learning + len(settings.baselines) * report.TUNING


DEFAULT = Settings(
    data="cifar10",
    size=8,
    channels=(8, 8, 8),
    kernel=3,
    dense=32,
    minibatch=64,
    subsets=((0, 1, 2, 3, 4), (0, 1)),
    others=(5, 6, 7, 8, 9),
    learned=report.LEARNED,
    baselines=tuple(baseline.name for baseline in BASELINES),
    hidden=(20, 20),
    scale=0.03,
    steps=100,
    unroll=20,
    batch=1,
    iterations=1000,
    rate=3e-3,
    evaluations=8,
    compared=32,
    tuning=8,
    first=2,
    rates=tuple(float(f"{rate:.4g}") for rate in np.logspace(-3, 0.5, 15)),
    seeds=1,
)

FULL = replace(
    DEFAULT,
    size=32,
    channels=(16, 16, 16),
    kernel=5,
    minibatch=128,
    iterations=50_000,
    rate=1e-3,
    evaluations=128,
    compared=128,
    tuning=1024,
    first=8,
    rates=tuple(float(f"{rate:.4g}") for rate in np.logspace(-4, 1, 51)),
    seeds=3,
)

SMALL = replace(
    DEFAULT,
    data="digits",
    channels=(2,),
    dense=4,
    minibatch=16,
    subsets=((0, 1),),
    learned=(report.PAPERS, report.SUB),
    baselines=("SGD",),
    hidden=(2,),
    steps=4,
    unroll=2,
    iterations=4,
    evaluations=2,
    compared=3,
    tuning=2,
    first=1,
    rates=(0.01, 0.1),
)

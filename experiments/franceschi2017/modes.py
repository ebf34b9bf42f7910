"""Forward or reverse? Time and memory of a hypergradient over the number of hyperparameters.

Networks on the digits, trained by momentum; the hyperparameters are rates, one for each of equal
windows of the run. Value and hypergradient are timed as multiples of plain training of the same
run; memory is what the compiled program allocates for itself. (Franceschi et al. 2017, section 3.3:
forward costs time O(T m g) and memory O(m h), reverse O(T g) and O(T h), for T steps and m
hyperparameters; g and h are the time and the memory of a training step.)
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import hindgrad as hg
from experiments.franceschi2017 import modes_report as report
from experiments.models import Examples, Layers, cross_entropy, dense, images, logits
from experiments.runner import Kept, Repeated, Results
from hindgrad.apps import datasets
from hindgrad.progress import Bar as Line

ABOUT = (
    "Forward or reverse? Time and memory over the number of hyperparameters. Franceschi et "
    "al. 2017, *Forward and reverse gradient-based hyperparameter optimization*, section 3.3."
)

MODES = (report.FORWARD, report.BLOCKS, report.STORED)
BY_LENGTH = {
    report.FORWARD: hg.Forward(),
    report.STORED: hg.Stored(),
    report.REVERSIBLE: hg.Reversible(),
}
"""What is compared over the number of steps."""
PLAIN = "plain training"


@dataclass(frozen=True)
class Settings(Repeated):
    """Sizes. A network is timed up to the count whose call takes longer than `longest`; `seeds` is
    how often each timing is repeated."""

    data: str
    widths: tuple[int, ...]
    """Of the two hidden layers; for each network,"""
    steps: tuple[int, ...]
    """how many steps it is timed for."""
    counts: tuple[int, ...]
    """Numbers of hyperparameters."""
    block: int
    """How many tangents `Forward(block=…)` carries at a time."""
    longest: float
    """Seconds of the longest call that is timed."""
    lengths: tuple[int, ...]
    """Numbers of steps for the memory of the middle network,"""
    length_count: int
    """with so many hyperparameters."""
    batch: int

    def by_count(self, count: int) -> dict[str, hg.Adjoint]:
        """What is compared at a number of hyperparameters."""
        modes: dict[str, hg.Adjoint] = {report.FORWARD: hg.Forward(), report.STORED: hg.Stored()}
        if count > self.block:
            modes[report.BLOCKS] = hg.Forward(block=self.block)
        return modes


def network(width: int, inputs: int, classes: int, seed: int) -> Layers:
    """Two hidden layers."""
    sizes = ((inputs, width), (width, width), (width, classes))
    keys = jax.random.split(jax.random.key(seed), len(sizes))
    return [dense(key, *size) for key, size in zip(keys, sizes, strict=True)]


def mean_loss(params: Layers, examples: Examples) -> Float[Array, ""]:
    return cross_entropy(logits(params, examples.x), examples.y)


def _loss(params, rates, batch):
    del rates
    return mean_loss(params, batch.data)


def _rate(steps, rates, t):
    return hg.schedules.Piecewise(len(rates), steps, hg.schedules.Real())(rates, t)


def objective(settings: Settings, width: int, steps: int) -> tuple[hg.Objective, int]:
    """The validation loss as a function of the rates, and the number of weights."""
    data = datasets.load(settings.data)
    examples = images(data, np.arange(len(data.y)))
    params = network(width, data.x.shape[1], len(data.classes), settings.seed)
    cut = len(examples) * 3 // 4
    training = hg.Training(
        _loss,
        optimizer=hg.Momentum(partial(_rate, steps)),
        batches=hg.minibatches(examples[:cut], size=settings.batch, key=settings.seed),
        steps=steps,
    )
    score = lambda params, *_: mean_loss(params, examples[cut:])
    weights = sum(w.size for w in jax.tree.leaves(params))
    return hg.Objective(training, init=params, score=score), weights


def compiled(run: hg.Objective, count: int, adjoint: hg.Adjoint | None) -> Any:
    """The program of value and hypergradient; without an adjoint, of the value alone."""
    value = lambda rates: run(rates, adjoint=adjoint or hg.Stored())
    program = jax.jit(value if adjoint is None else jax.value_and_grad(value))
    return program.lower(jax.ShapeDtypeStruct((count,), jnp.float32)).compile()


def allocated(program: Any) -> int:
    """The bytes that a program allocates while it runs, without its inputs and outputs."""
    return int(program.memory_analysis().temp_size_in_bytes)


def one_network(settings: Settings, width: int, steps: int, line: Line) -> dict[str, Any]:
    """Time and memory of one network over the number of hyperparameters."""
    run, weights = objective(settings, width, steps)
    plain = compiled(run, 1, None)
    found: dict[str, Any] = {
        "weights": weights,
        "steps": steps,
        "plain_bytes": allocated(plain),
        **{what: {name: {} for name in MODES} for what in ("bytes", "seconds", "ratio")},
    }
    slow, longest = set(), settings.longest
    for count in settings.counts:
        rates, candidates = jnp.full(count, 0.1), {}
        for name, adjoint in settings.by_count(count).items():
            line.stage(f"{weights:,} weights, {count} hyperparameters: {name}")
            program = compiled(run, count, adjoint)
            found["bytes"][name][str(count)] = allocated(program)
            if name not in slow:
                candidates[name] = partial(program, rates)
        line.done(1)
        candidates[PLAIN] = partial(plain, rates[:1])
        seconds = medians(candidates, settings.seeds)
        for name in candidates.keys() - {PLAIN}:
            found["seconds"][name][str(count)] = seconds[name]
            found["ratio"][name][str(count)] = seconds[name] / seconds[PLAIN]
        grow = candidates.keys() & {report.FORWARD, report.BLOCKS}
        slow |= {name for name in grow if will_take(settings, count, seconds[name]) > longest}
    return found


def will_take(settings: Settings, count: int, seconds: float) -> float:
    """How long the next count takes, if it takes as much longer as it is larger."""
    later = [c for c in settings.counts if c > count]
    return seconds * later[0] / count if later else 0.0


def medians(candidates: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Seconds of each candidate: medians of rounds, in each of which all run once, so that the
    noise of a busy machine falls on all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            begin = time.perf_counter()
            jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - begin)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def over_lengths(settings: Settings, line: Line) -> dict[str, Any]:
    """Memory over the number of steps, of the middle network."""
    width = settings.widths[len(settings.widths) // 2]
    found: dict[str, Any] = {"bytes": {name: {} for name in BY_LENGTH}}
    for steps in settings.lengths:
        run, found["weights"] = objective(settings, width, steps)
        for name, adjoint in BY_LENGTH.items():
            line.stage(f"{steps:,} steps: {name}")
            program = compiled(run, settings.length_count, adjoint)
            found["bytes"][name][str(steps)] = allocated(program)
        line.done(1)
    return found


def run(settings: Settings, kept: Kept, line: Line) -> Results:
    """All networks."""
    networks = [
        kept(f"width-{width}", lambda w=width, s=steps: one_network(settings, w, s, line))
        for width, steps in zip(settings.widths, settings.steps, strict=True)
    ]
    return {"networks": networks, "lengths": kept("lengths", lambda: over_lengths(settings, line))}


def total(settings: Settings) -> int:
    """Numbers of hyperparameters and of steps."""
    return len(settings.widths) * len(settings.counts) + len(settings.lengths)


DEFAULT = Settings(
    data="digits",
    widths=(12, 128, 512),
    steps=(1000, 200, 30),
    counts=(1, 2, 4, 8, 16, 64, 256, 1000),
    block=16,
    longest=10.0,
    lengths=(100, 1000, 10_000, 100_000),
    length_count=10,
    batch=128,
    seeds=3,
)

FULL = replace(
    DEFAULT,
    widths=(12, 64, 128, 256, 512),
    steps=(1000, 1000, 1000, 1000, 1000),
    counts=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000),
    longest=600.0,
    seeds=5,
)

SMALL = replace(
    DEFAULT,
    widths=(8,),
    steps=(10,),
    counts=(1, 4),
    block=2,
    lengths=(10,),
    length_count=2,
    seeds=1,
)

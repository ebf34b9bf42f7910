"""Tuning from above the edge of chaos, by exact hypergradients and by smoothed ones, at equal cost:
`python -m benchmarks.smoothed`.

A network on the digits whose rates, in four windows of the run, start far too high. Every outer
step draws a fresh initialisation and batch order. The score is the validation loss; that which is
tuned is cut off at 5, so that one diverged run does not outweigh all others. A hypergradient counts
as four trainings, an estimate as the share of a training that its members run.
"""

import argparse
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

import hindgrad as hg

STEPS, KNOTS = 60, 4
SIZES = (64, 30, 30, 10)
SCHEDULE = hg.schedules.Piecewise(knots=KNOTS, steps=STEPS, range=hg.schedules.Real())


class Way(NamedTuple):
    """A way of tuning."""

    adjoint: hg.Adjoint
    trainings: float
    """What an outer step costs."""
    begin: float
    """What the first outer step costs beyond that."""
    rate: float


WAYS = {
    "exact, rate .02": Way(hg.Stored(), 4, 0, 0.02),
    "exact, rate .1": Way(hg.Stored(), 4, 0, 0.1),
    "exact, rate .5": Way(hg.Stored(), 4, 0, 0.5),
    "last 6 steps": Way(hg.Truncated(6), 1.3, 0, 0.1),
    "evolution": Way(hg.Evolution(4, spread=0.4), 9, 0, 0.1),
    "persistent, windows of 20": Way(
        hg.PersistentEvolution(8, window=20, spread=0.4), 16 / 3, 16, 0.1
    ),
    "persistent, windows of 6": Way(hg.PersistentEvolution(8, window=6, spread=0.4), 1.6, 16, 0.1),
}


def cross_entropy(params, x, y):
    *hidden, (w, b) = params
    for weights, biases in hidden:
        x = jnp.tanh(x @ weights + biases[None])
    return optax.softmax_cross_entropy_with_integer_labels(x @ w + b[None], y).mean()


def init(hyper, key):
    del hyper
    keys = jax.random.split(key, len(SIZES) - 1)
    layer = lambda key, a, b: (jax.random.normal(key, (a, b)) / a**0.5, jnp.zeros(b))
    return [layer(*args) for args in zip(keys, SIZES[:-1], SIZES[1:], strict=True)]


def objectives() -> list[hg.Objective]:
    """What is tuned, and what is reported: without the cut, on other rows."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(7).permutation(len(y))
    x, y = jnp.asarray(x[order] / 16, jnp.float32), jnp.asarray(y[order])
    train, valid, test = (
        (x[rows], y[rows]) for rows in (slice(1000), slice(1000, 1400), slice(1400, None))
    )
    optimizer = hg.Momentum(lambda hyper, t: jnp.exp(SCHEDULE(hyper["log_rate"], t)), 0.9)
    loss = lambda params, _, batch: cross_entropy(params, *batch.data)

    def training(key):
        batches = hg.minibatches(train, size=100, key=key)
        return hg.Training(loss, optimizer=optimizer, batches=batches, steps=STEPS)

    scores = (
        lambda params, *_: jnp.minimum(cross_entropy(params, *valid), 5.0),
        lambda params, *_: cross_entropy(params, *test),
    )
    return [hg.Objective(training, init=init, score=score) for score in scores]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=float, default=2.3, help="log rate")
    parser.add_argument("--trainings", type=int, default=400)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    args = parser.parse_args()
    tuned, reported = objectives()
    fresh = jax.jit(jax.vmap(reported, in_axes=(None, 0)))
    draws = jax.random.split(jax.random.key(999), 10)
    start = {"log_rate": jnp.full(KNOTS, args.start)}
    table = Table("", "outer steps", *(f"seed {seed}" for seed in args.seeds), "turned back", "s")
    table.title = f"Mean test loss of ten fresh runs, for {args.trainings} trainings"
    table.add_row("start", "", *[f"{fresh(start, draws).mean():.3f}"] * len(args.seeds), "", "")
    for name in args.ways:
        way = WAYS[name]
        steps = int((args.trainings - way.begin) / way.trainings)
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(way.rate))
        losses, undone, begin = [], [], time.monotonic()
        for seed in args.seeds:
            options = {"steps": steps, "key": seed, "adjoint": way.adjoint}
            options |= {"patience": None, "progress": False}
            result = hg.tune(tuned, start, optimizer, **options)
            losses.append(f"{fresh(result.hyper, draws).mean():.3f}")
            undone.append(str(sum(r.status != "accepted" for r in result.history)))
        seconds = time.monotonic() - begin
        table.add_row(name, str(steps), *losses, ", ".join(undone), f"{seconds:.0f}")
        print(name, losses, undone, flush=True)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()

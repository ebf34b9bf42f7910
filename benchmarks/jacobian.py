"""Time of many scores' derivatives against that of one: `python -m benchmarks.jacobian`."""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

import hindgrad as hg
from benchmarks import problem
from benchmarks.timing import medians

ADJOINTS = {"Stored": hg.Stored(), "Reversible": hg.Reversible()}
ROWS = 16
"""The rows that a score is the loss of."""


def scores(network: problem.Network, count: int):
    """That many scores: the losses of as many groups of rows."""
    x, y = load_digits(return_X_y=True)
    rows = [(1280 + ROWS * i + jnp.arange(ROWS)) % len(x) for i in range(count)]
    x, y = jnp.asarray(x / 16, jnp.float32)[jnp.stack(rows)], jnp.asarray(y)[jnp.stack(rows)]

    def score(params, hyper, key):
        del hyper, key
        losses = lambda x, y: problem.cross_entropy(network.logits(params, x), y)
        return jax.vmap(losses)(x, y)

    return score


def measure(name: str, steps: int, count: int, repeats: int) -> dict[str, float]:
    """Seconds of each way, for that network."""
    network = problem.NETWORKS[name]
    p = problem.make(network, steps)
    objective = lambda count: hg.Objective(p.training, init=p.params, score=scores(network, count))
    many, one = objective(count), objective(1)
    by_hand = jax.jit(p.score_by_hand)
    candidates: dict[str, Callable[[], object]] = {
        "lax.scan by hand, training": lambda: by_hand(p.hyper)
    }
    for name, adjoint in ADJOINTS.items():
        for n, o in ((1, one), (count, many)):
            call = lambda o=o, adjoint=adjoint: hg.jacobian(o, p.hyper, adjoint=adjoint)
            candidates[f"{name}, {n} score{'s' * (n > 1)}"] = call
    return medians(candidates, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["dense-128", "dense-512"])
    parser.add_argument("--scores", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    for network in args.networks:
        seconds = measure(network, args.steps, args.scores, args.repeats)
        plain = next(iter(seconds.values()))
        table = Table("", "seconds", "÷ training", "÷ training and score", "÷ one score")
        table.title = f"{network}, {args.steps} steps, medians of {args.repeats}"
        for name, value in seconds.items():
            adjoint, _, rest = name.partition(", ")
            one = seconds.get(f"{adjoint}, 1 score")
            count = int(rest.split()[0]) if one else 1
            ratios = [value / plain, value / plain / count, value / one if one else None]
            texts = ["" if r is None else f"{r:.2f}" for r in ratios]
            table.add_row(name, f"{value:.3f}", *texts)
        Console(width=100).print(table)


if __name__ == "__main__":
    main()

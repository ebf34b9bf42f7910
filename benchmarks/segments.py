"""What segments cost: `python -m benchmarks.segments`.

Value and hypergradient of a training run by `hg.hypergradient`, its segments kept on disk, as a
multiple of the same in one compiled program (`jax.value_and_grad` under `jax.jit`).
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

import hindgrad as hg
from benchmarks.timing import medians

ADJOINTS = {"Reversible()": hg.Reversible(), "Checkpointed()": hg.Checkpointed()}


def problem(steps: int) -> tuple[hg.Objective, Any]:
    """A network of 20,000 parameters on random pictures, and rates for every step."""
    first, second, third = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(first, (512, 64))
    y = jnp.sin(jnp.sum(x, 1))
    params = [
        jax.random.normal(second, (64, 256)) / 8,
        jax.random.normal(third, (256, 16)) / 16,
        jnp.ones(16) / 16,
    ]

    def loss(params, _, batch):
        x, y = batch.data
        hidden = jnp.tanh(jnp.tanh(x @ params[0]) @ params[1])
        return jnp.mean((hidden @ params[2] - y) ** 2)

    training = hg.Training(
        loss,
        optimizer=hg.Momentum(lambda hyper, t: hyper[t], 0.9),
        batches=hg.minibatches((x, y), size=64, key=0),
        steps=steps,
    )
    score = lambda params, hyper, _: loss(params, hyper, hg.full_batch((x, y))(0))
    return hg.Objective(training, init=params, score=score), jnp.full(steps, 0.1)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--segments", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    objective, hyper = problem(args.steps)
    table = Table("adjoint", "one program", f"{args.segments} segments", "ratio")
    for name, adjoint in ADJOINTS.items():
        single = jax.jit(jax.value_and_grad(lambda h, a=adjoint: objective(h, adjoint=a)))

        def in_segments(adjoint=adjoint):
            with tempfile.TemporaryDirectory() as folder:
                return hg.hypergradient(
                    objective,
                    hyper,
                    adjoint=adjoint,
                    segments=args.segments,
                    checkpoint=Path(folder) / "run",
                    progress=False,
                )

        found, wanted = in_segments().gradient, single(hyper)[1]
        error = float(jnp.max(jnp.abs(found - wanted)) / jnp.max(jnp.abs(wanted)))
        assert error < 1e-4, error
        times = medians({"one": lambda s=single: s(hyper), "segments": in_segments}, args.repeats)
        ratio = times["segments"] / times["one"]
        table.add_row(name, f"{times['one']:.2f} s", f"{times['segments']:.2f} s", f"{ratio:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()

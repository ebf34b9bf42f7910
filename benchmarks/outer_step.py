"""One outer step of `python -m experiments schedules` against plain training of the same run:
`python -m benchmarks.outer_step`.

Training on MNIST for 100 steps (44,860 parameters, batch 200), the loss of all 10,000 training
images, the hypergradient of 1,608 hyperparameters, and the outer optimizer's update. The authors'
code (HIPS/hypergrad) takes 11.5 times as long as its own plain training, on one thread.
"""

import argparse
import os
from dataclasses import replace

import jax
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

import hindgrad as hg
from benchmarks.timing import medians
from experiments import models
from experiments.maclaurin2015 import schedules
from experiments.maclaurin2015.schedules_problem import Problem, initialiser
from experiments.maclaurin2015.schedules_tuning import ADJOINT, authors_adam

AUTHORS = 11.5


def measure(settings: schedules.Settings, repeats: int) -> tuple[dict[str, float], int, int]:
    """Seconds of each way, and the numbers of parameters and of hyperparameters."""
    rows, form = settings.rows, schedules.each_step(settings)
    split = models.in_order(settings.data, rows, rows, rows)
    init = initialiser((split.train.x.shape[1], *settings.hidden, split.classes))
    objective = Problem(split, init, settings.batch, settings.steps).objective(form, split.train)
    hyper, key = form.start(**settings.start(settings.decays[0])), jax.random.key(settings.seed)
    optimizer = authors_adam(settings.rate_authors)

    def outer_step(adjoint):
        value = lambda hyper, key: objective(hyper, key, adjoint=adjoint)

        def step(hyper, memory, key):
            loss, grads = jax.value_and_grad(value)(hyper, key)
            updates, memory = optimizer.update(grads, memory)
            return loss, optax.apply_updates(hyper, updates), memory

        compiled = jax.jit(step)
        return lambda: compiled(hyper, optimizer.init(hyper), key)

    train = jax.jit(lambda hyper, key: objective.run(hyper, key, adjoint=hg.Stored()).params)
    seconds = medians(
        {
            "plain training": lambda: train(hyper, key),
            "outer step, Reversible": outer_step(ADJOINT),
            "outer step, Stored": outer_step(hg.Stored()),
        },
        repeats,
    )
    count = lambda tree: sum(np.size(leaf) for leaf in jax.tree.leaves(tree))
    return seconds, count(init(hyper, key)), count(hyper)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[100])
    parser.add_argument("--repeats", type=int, default=11)
    args = parser.parse_args()
    # The backend makes its threads when it first starts, one for each core it may use.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    for steps in args.steps:
        settings = replace(schedules.DEFAULT, steps=steps)
        seconds, parameters, hyperparameters = measure(settings, args.repeats)
        plain = seconds["plain training"]
        table = Table("", "seconds", "÷ training")
        table.title = (
            f"{parameters:,} parameters, {hyperparameters:,} hyperparameters, {steps} steps, one "
            f"thread, medians of {args.repeats}"
        )
        for name, value in seconds.items():
            table.add_row(name, f"{value:.3f}", f"{value / plain:.2f}")
        if steps == schedules.DEFAULT.steps:
            table.add_row("the authors' code (theirs ÷ theirs)", "", f"{AUTHORS}")
        Console(width=100).print(table)


if __name__ == "__main__":
    main()

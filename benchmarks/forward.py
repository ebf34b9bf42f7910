"""Time and memory of forward mode: `python -m benchmarks.forward`.

Value and hypergradient of one call, as multiples of plain training written by hand, over the
number of hyperparameters (a rate for each window of the run). Then the bytes that the compiled
program allocates, over the number of steps.
"""

import argparse

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

import hindgrad as hg
from benchmarks import problem
from benchmarks.timing import medians


def objective(p: problem.Problem, steps: int) -> hg.Objective:
    """The benchmark's run, its rate constant in each of as many windows as `hyper` has rates."""
    optimizer = hg.Momentum(
        lambda hyper, t: hg.schedules.Piecewise(
            len(hyper["rate"]), steps, range=hg.schedules.Real()
        )(hyper["rate"], t)
    )
    training = hg.Training(
        p.training.loss, optimizer=optimizer, batches=p.training.batches, steps=steps
    )
    return hg.Objective(training, init=p.params, score=lambda params, *_: p.valid(params))


def value_and_gradient(p: problem.Problem, steps: int, count: int, adjoint: hg.Adjoint):
    run = objective(p, steps)
    value = lambda rate: run(p.hyper | {"rate": rate}, adjoint=adjoint)
    return jax.jit(jax.value_and_grad(value)).lower(jnp.full(count, 0.1))


def time(network: str, steps: int, counts: list[int], repeats: int) -> Table:
    p = problem.make(problem.NETWORKS[network], steps)
    plain = jax.jit(p.score_by_hand)
    rates = {count: jnp.full(count, 0.1) for count in counts}
    programs = {
        count: value_and_gradient(p, steps, count, hg.Forward()).compile() for count in counts
    }
    reverse = value_and_gradient(p, steps, counts[0], hg.Stored()).compile()
    candidates = {"plain": lambda: plain(p.hyper), "reverse": lambda: reverse(rates[counts[0]])}
    for count in counts:
        candidates[str(count)] = lambda count=count: programs[count](rates[count])
    seconds = medians(candidates, repeats)
    ratio = {name: s / seconds["plain"] for name, s in seconds.items()}
    table = Table("hyperparameters", "÷ training", "each further one", "÷ reverse")
    table.title = f"{network}, {steps} steps; reverse (Stored) ÷ training: {ratio['reverse']:.2f}"
    for count in counts:
        r = ratio[str(count)]
        further = (r - ratio[str(counts[0])]) / (count - counts[0]) if count > counts[0] else None
        table.add_row(
            str(count),
            f"{r:.2f}",
            "–" if further is None else f"{further:.2f}",
            f"{r / ratio['reverse']:.2f}",
        )
    return table


def memory(network: str, lengths: list[int], count: int) -> Table:
    table = Table("steps", "Forward MB", "Stored MB")
    table.title = f"{network}, {count} hyperparameters: allocated by the compiled program"
    for steps in lengths:
        p = problem.make(problem.NETWORKS[network], steps)
        allocated = []
        for adjoint in (hg.Forward(), hg.Stored()):
            program = value_and_gradient(p, steps, count, adjoint).compile()
            allocated.append(program.memory_analysis().temp_size_in_bytes / 1e6)  # pyright: ignore[reportOptionalMemberAccess]
        table.add_row(f"{steps:,}", *(f"{a:,.2f}" for a in allocated))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["dense-128", "dense-512"])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 3, 5, 10, 30])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1000, 10_000, 100_000])
    args = parser.parse_args()
    console = Console(width=100)
    for network in args.networks:
        console.print(time(network, args.steps, args.counts, args.repeats))
    console.print(memory(args.networks[0], args.lengths, 3))


if __name__ == "__main__":
    main()

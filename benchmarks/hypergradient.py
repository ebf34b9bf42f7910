"""Time of a hypergradient against plain training: `python -m benchmarks.hypergradient`."""

import argparse

import jax
from rich.console import Console
from rich.table import Table

import hindgrad as hg
from benchmarks import problem
from benchmarks.timing import medians


def measure(width: int, steps: int, repeats: int) -> dict[str, float]:
    """Seconds of each way, for the network of that width."""
    p = problem.make(width, steps)

    def jitted(function):
        compiled = jax.jit(function)
        return lambda: compiled(p.hyper)

    adjoints = {
        "Stored": hg.Stored(),
        "Checkpointed(√T)": hg.Checkpointed(slots=round(steps**0.5)),
        "Checkpointed(10)": hg.Checkpointed(slots=10),
    }
    candidates = {
        "lax.scan by hand, training": jitted(p.score_by_hand),
        "hindgrad, training": jitted(p.score),
        "jax.grad through lax.scan": jitted(jax.value_and_grad(p.score_by_hand)),
    }
    for name, adjoint in adjoints.items():
        score = lambda hyper, adjoint=adjoint: p.score(hyper, adjoint)
        candidates[name] = jitted(jax.value_and_grad(score))
    return medians(candidates, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    for width in args.widths:
        seconds = measure(width, args.steps, args.repeats)
        plain, scan = next(iter(seconds.values())), seconds["jax.grad through lax.scan"]
        table = Table("", "seconds", "÷ training", "÷ jax.grad through scan")
        table.title = f"Width {width}, {args.steps} steps, medians of {args.repeats}"
        for name, value in seconds.items():
            table.add_row(name, f"{value:.3f}", f"{value / plain:.2f}", f"{value / scan:.2f}")
        Console().print(table)


if __name__ == "__main__":
    main()

"""Time of a hypergradient against plain training: `python -m benchmarks.hypergradient`.

Beside it PyTorch's, for dense networks by momentum, where it is installed (group "comparison").
"""

import argparse

import jax
from rich.console import Console
from rich.table import Table

import hindgrad as hg
from benchmarks import by_torch, problem
from benchmarks.timing import medians

ADJOINTS = {
    "Stored": lambda _: hg.Stored(),
    "Stored(activations)": lambda _: hg.Stored(activations=2**33),
    "Checkpointed(√T)": lambda steps: hg.Checkpointed(slots=round(steps**0.5)),
    "Checkpointed(10)": lambda _: hg.Checkpointed(slots=10),
    "Reversible": lambda _: hg.Reversible(),
}


def measure(
    network: str, steps: int, repeats: int, *, adam: bool = False, adjoints: list[str] | None = None
) -> dict[str, float]:
    """Seconds of each way, for that network."""
    p = problem.make(problem.NETWORKS[network], steps, adam=adam)

    def jitted(function):
        compiled = jax.jit(function)
        return lambda: compiled(p.hyper)

    candidates = {
        "lax.scan by hand, training": jitted(p.score_by_hand),
        "hindgrad, training": jitted(p.score),
        "Reversible, training": jitted(lambda hyper: p.score(hyper, hg.Reversible())),
        "jax.grad through lax.scan": jitted(jax.value_and_grad(p.score_by_hand)),
    }
    for name in adjoints or ADJOINTS:
        adjoint = ADJOINTS[name](steps)
        score = lambda hyper, adjoint=adjoint: p.score(hyper, adjoint)
        candidates[name] = jitted(jax.value_and_grad(score))
    if network.startswith("dense") and not adam and not jax.config.read("jax_enable_x64"):
        candidates |= by_torch.candidates(p.params, steps)
    return medians(candidates, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--networks", nargs="+", choices=problem.NETWORKS, default=list(problem.NETWORKS)
    )
    parser.add_argument("--adam", action="store_true", help="Adam instead of momentum")
    parser.add_argument("--float64", action="store_true", help="the model in float64")
    parser.add_argument("--adjoints", nargs="+", choices=ADJOINTS, help="default: all")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", args.float64)
    for network in args.networks:
        seconds = measure(network, args.steps, args.repeats, adam=args.adam, adjoints=args.adjoints)
        plain, scan = next(iter(seconds.values())), seconds["jax.grad through lax.scan"]
        table = Table("", "seconds", "÷ training", "÷ jax.grad through scan")
        kind = f"{'Adam' if args.adam else 'momentum'}, float{64 if args.float64 else 32}"
        table.title = f"{network}, {kind}, {args.steps} steps, medians of {args.repeats}"
        for name, value in seconds.items():
            table.add_row(name, f"{value:.3f}", f"{value / plain:.2f}", f"{value / scan:.2f}")
        Console(width=100).print(table)


if __name__ == "__main__":
    main()

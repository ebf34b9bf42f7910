"""Memory of a hypergradient over the number of steps: `python -m benchmarks.memory`.

Two figures for each adjoint and length: the bytes that the compiled program allocates (exact, and
known without running it), and the growth of the resident memory of a fresh process while it runs
once (Linux only).
"""

import argparse
import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
from rich.console import Console
from rich.table import Table

import hindgrad as hg
from benchmarks import problem
from hindgrad import trees

MEGA = 1e6


class Memory(NamedTuple):
    """Bytes (compiled, measured) and seconds of one hypergradient; None where it was not run."""

    compiled: int
    measured: int | None
    seconds: float | None


def measure(network: str, steps: int, adjoint: hg.Adjoint, run: bool) -> Memory:
    """To be called in a process of its own."""
    p = problem.make(problem.NETWORKS[network], steps)
    value = lambda hyper: p.score(hyper, adjoint)
    compiled = jax.jit(jax.value_and_grad(value)).lower(p.hyper).compile()
    allocated = compiled.memory_analysis().temp_size_in_bytes  # pyright: ignore[reportOptionalMemberAccess]
    if not run:
        return Memory(allocated, None, None)
    jax.block_until_ready(jax.jit(jax.grad(p.valid))(p.params))  # starts the runtime's threads
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, begin = _resident("VmRSS"), time.perf_counter()
    jax.block_until_ready(compiled(p.hyper))
    seconds = time.perf_counter() - begin
    return Memory(allocated, _resident("VmHWM") - before, seconds)


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def optimum(state: int, steps: int) -> float:
    """Bytes of one state, and of the bits that momentum .9 loses: half the state are floats of
    four bytes that decay."""
    return state + steps * math.log2(1 / 0.9) / 8 * (state / 8)


def adjoints(steps: int, slots: int, state: int) -> dict[str, hg.Adjoint]:
    """Those compared; the last has the memory of `Reversible`."""
    equal = max(1, round(optimum(state, steps) / state))
    return {
        "Stored": hg.Stored(),
        f"Checkpointed({slots})": hg.Checkpointed(slots=slots),
        "Reversible": hg.Reversible(),
        "Checkpointed(equal memory)": hg.Checkpointed(slots=equal),
    }


def draw(path: str, found: dict[tuple[str, int], Memory], state: int) -> None:
    """Memory over the number of steps; filled where measured, hollow where only compiled."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    colours = {"Stored": "#c44e52", "Checkpointed": "#937860", "Reversible": "#2a6fb0"}
    names = [n for n in dict.fromkeys(name for name, _ in found) if "equal" not in n]
    for name in names:
        points = sorted((t, m) for (n, t), m in found.items() if n == name)
        colour = colours[name.split("(")[0]]
        steps = [t for t, _ in points]
        axes.loglog(steps, [m.compiled / MEGA for _, m in points], color=colour, label=name)
        for t, m in points:
            ran = m.measured is not None
            axes.plot(
                t,
                (m.measured or m.compiled) / MEGA,
                "o",
                color=colour,
                fillstyle="full" if ran else "none",
            )
    steps = sorted({t for _, t in found})
    least = [optimum(state, t) / MEGA for t in steps]
    axes.loglog(steps, least, color="black", ls=":", label="one state + log2(1/decay) bits")
    axes.set(xlabel="training steps", ylabel="memory of one hypergradient (MB)")
    axes.set_title("26,122 parameters, momentum .9 (hollow: compiled, not run)", fontsize=10)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="dense-128")
    parser.add_argument("--steps", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--slots", type=int, default=100)
    parser.add_argument("--run-up-to", type=int, default=10_000, help="longer runs: compile only")
    parser.add_argument("--run-reversible-up-to", type=int, default=100_000)
    parser.add_argument("--picture", help="where to draw memory over steps")
    args = parser.parse_args()
    columns = ["steps", "adjoint", "compiled MB", "measured MB", "÷ optimum", "replays/step"]
    table = Table(*columns, "seconds")
    state = 2 * trees.nbytes(problem.make(problem.NETWORKS[args.network], 1).params)
    table.title = f"{args.network}, one state {state / MEGA:.2f} MB"
    spawn = multiprocessing.get_context("spawn")
    found = {}
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for steps in args.steps:
            for name, adjoint in adjoints(steps, args.slots, state).items():
                reversible = isinstance(adjoint, hg.Reversible)
                run = steps <= (args.run_reversible_up_to if reversible else args.run_up_to)
                m = pool.submit(measure, args.network, steps, adjoint, run).result()
                found[name, steps] = m
                replays = getattr(adjoint, "replays", lambda *_: 0)(steps, state)
                best = (m.compiled if m.measured is None else m.measured) / optimum(state, steps)
                table.add_row(
                    f"{steps:,}",
                    name,
                    f"{m.compiled / MEGA:.1f}",
                    "–" if m.measured is None else f"{m.measured / MEGA:.1f}",
                    f"{best:.2f}",
                    f"{replays / steps:.2f}",
                    "–" if m.seconds is None else f"{m.seconds:.1f}",
                )
    Console(width=100).print(table)
    if args.picture:
        draw(args.picture, found, state)


if __name__ == "__main__":
    main()

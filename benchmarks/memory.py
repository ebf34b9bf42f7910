"""Memory of a hypergradient over the number of steps: `python -m benchmarks.memory`.

Two figures for each adjoint and length: the bytes that the compiled program allocates (exact, and
known without running it), and the growth of the resident memory of a fresh process while it runs
once (Linux only).
"""

import argparse
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


def measure(width: int, steps: int, adjoint: hg.Adjoint, run: bool) -> Memory:
    """To be called in a process of its own."""
    p = problem.make(width, steps)
    value = lambda hyper: p.score(hyper, adjoint)
    compiled = jax.jit(jax.value_and_grad(value)).lower(p.hyper).compile()
    allocated = compiled.memory_analysis().temp_size_in_bytes  # pyright: ignore[reportOptionalMemberAccess]
    if not run:
        return Memory(allocated, None, None)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, begin = _resident("VmRSS"), time.perf_counter()
    jax.block_until_ready(compiled(p.hyper))
    seconds = time.perf_counter() - begin
    return Memory(allocated, _resident("VmHWM") - before, seconds)


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--steps", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--slots", type=int, default=100)
    parser.add_argument("--run-up-to", type=int, default=10_000, help="longer runs: compile only")
    args = parser.parse_args()
    table = Table("steps", "adjoint", "compiled MB", "measured MB", "replays/step", "seconds")
    state = 2 * trees.nbytes(problem.make(args.width, 1).params)
    table.title = f"Width {args.width}, one state {state / MEGA:.2f} MB"
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for steps in args.steps:
            checkpointed = hg.Checkpointed(slots=args.slots)
            replays = checkpointed.replays(steps, state)
            for adjoint, count in [(checkpointed, replays), (hg.Stored(), 0)]:
                run = steps <= args.run_up_to
                m = pool.submit(measure, args.width, steps, adjoint, run).result()
                measured = "–" if m.measured is None else f"{m.measured / MEGA:.1f}"
                seconds = "–" if m.seconds is None else f"{m.seconds:.1f}"
                table.add_row(
                    f"{steps:,}",
                    repr(adjoint),
                    f"{m.compiled / MEGA:.1f}",
                    measured,
                    f"{count / steps:.2f}",
                    seconds,
                )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()

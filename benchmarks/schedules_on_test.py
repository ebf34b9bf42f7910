"""Which schedules `hindgrad tune` should learn: `python -m benchmarks.schedules_on_test DATA OUT`.

Rate and decay in windows, along lines or along splines, of several numbers of knots, tuned as the
command does, on the same draws. What counts is the test loss, over whole tunings of several seeds,
paired with those of ten windows. OUT keeps each tuning, so that a run goes on where it was.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

import hindgrad as hg
from hindgrad.apps import table
from hindgrad.apps.model import Form, Hyper, Metrics, Network, Problem, draw_problem
from hindgrad.apps.tune.command import JUDGES
from hindgrad.apps.tune.parts import Parts, apart, of_parts, together
from hindgrad.apps.tune.trials import mean_valid_loss, trials
from hindgrad.apps.tune.tuning import DRAWS

NOW = "windows-10"
TEST = 0.2
REDRAWN = TEST / (1 - TEST)
"""Test rows, the same again and again, for each that is learned from."""


@dataclass(frozen=True)
class Way:
    """A form of schedules, and how it is tuned."""

    form: Form
    shares: bool = True
    """Whether what the numbers share is tuned as parts of their own."""
    rate: float = 0.1

    def parts(self, hyper: Hyper) -> Parts:
        return apart(hyper) if self.shares else {n: {"own": value} for n, value in hyper.items()}


def way(name: str) -> Way:
    """Of a name such as windows-10, or spline-4-alone-0.3."""
    kind, knots, *rest = name.split("-")
    form = Form(kind, int(knots))
    return Way(form, False, float(rest[1])) if rest else Way(form)


def tune(way: Way, problem: Problem, seed: int, steps: int) -> dict[str, Any]:
    """Tunes as `hindgrad tune` does, and judges over fresh draws."""
    key = jax.random.key(seed)
    keys = lambda i, count: list(jax.random.split(jax.random.fold_in(key, i), count))
    choose = lambda p: mean_valid_loss(problem, together(p), keys(1, DRAWS))
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.linear_schedule(way.rate, way.rate / 10, steps), b1=0.8),
    )
    result = hg.tune(
        of_parts(problem.objective),
        way.parts(problem.network.defaults()),
        optimizer,
        steps=steps,
        key=keys(0, 1)[0],
        choose=choose,
        average=1 / 3,
        patience=None,
        progress=False,
    )
    runs = trials(problem, [together(result.hyper)] * JUDGES, keys(2, JUDGES))
    means = np.mean([run.metrics for run in runs], axis=0).tolist()
    turned = sum(record.status != "accepted" for record in result.history)
    return dict(zip(Metrics._fields, means, strict=True)) | {"turned_back": turned}


def compared(found: dict[str, dict[str, dict]], metric: str) -> Table:
    """Each way beside ten windows: means, ratio and its 95 % interval, and seeds on which lower."""
    shown = Table("schedules", "seeds", f"mean {metric}", "÷ windows-10", "95 %", "lower on")
    for name, runs in found.items():
        seeds = sorted(set(runs) & set(found[NOW]), key=int)
        mine, other = (np.array([r[s][metric] for s in seeds]) for r in (runs, found[NOW]))
        logs = np.log(mine / other)
        half = student.ppf(0.975, len(seeds) - 1) * logs.std(ddof=1)
        half *= np.sqrt(1 / len(seeds) + REDRAWN)
        low, high = np.exp(logs.mean() - half), np.exp(logs.mean() + half)
        shown.add_row(
            name,
            str(len(seeds)),
            f"{mine.mean():.4f}",
            f"{np.exp(logs.mean()):.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{(mine < other).sum()}",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--steps-outer", type=int, default=30)
    parser.add_argument("--ways", nargs="+", default=[NOW, "linear-4", "spline-4"])
    args = parser.parse_args()
    rows = table.read(args.data, label=None, task="auto", drop=(), rows=args.rows, seed=0)
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    sizes = (rows.x.shape[1], 128, 128, len(rows.classes))
    for name in args.ways:
        chosen, runs = way(name), found.setdefault(name, {})
        for seed in range(args.seed, args.seed + args.seeds):
            network = Network(sizes, rows.kind, args.steps, 64, chosen.form)
            problem, _ = draw_problem(rows, network, test=TEST, valid=0.2, seed=seed)
            if str(seed) not in runs:
                runs[str(seed)] = tune(chosen, problem, seed, args.steps_outer)
                args.out.write_text(json.dumps(found, indent=1))
    console = Console(width=100)
    for metric in ("test_loss", "test_error", "valid_loss"):
        console.print(compared(found, metric))


if __name__ == "__main__":
    main()

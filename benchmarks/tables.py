"""What `hindgrad tune` keeps beside trees and scikit-learn's MLP: `python -m benchmarks.tables`.

Of each table in `HINDGRAD_DATA`/tables, and each seed, a fifth is set aside to test on; everything
is trained on all other rows, the networks with what a tuning on these rows found. Prints the error
rate, or the root mean squared error, and the seconds of each.
"""

import argparse
import os
import time
import warnings
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from threadpoolctl import threadpool_limits

from hindgrad.apps.model import Network, Problem, draw_problem
from hindgrad.apps.table import Table, read
from hindgrad.apps.tune import rivals
from hindgrad.apps.tune.inputs import suited
from hindgrad.apps.tune.keep import lasting, of_all, refits
from hindgrad.apps.tune.settings import BATCH, Tune, steps_for
from hindgrad.apps.tune.tuning import DRAWS, tuned_hyper

TABLES = {
    "Vehicle": ("se-Vehicle.csv", "Class"),
    "Vowel": ("se-Vowel.csv", "Class"),
    "CNAE-9": ("se-CNAE9.csv", None),
    "wisc_bc": ("st-wisc_bc_data.csv", "diagnosis"),
    "mammography": ("jb-mammography.csv", None),
    "Glass": ("se-Glass.csv", "Type"),
    "phoneme": ("jb-phoneme.csv", None),
    "wine": ("jb-winequality-white.csv", None),
    "concrete": ("st-concrete.csv", None),
    "diamonds": ("diamonds.csv", "price"),
}
OTHERS = ["random forest", "gradient boosting", "scikit-learn's MLP"]


def kept(table: Table, seed: int, steps_outer: int) -> tuple[Problem, float]:
    """The problem, and the error on its test rows of the networks that a tuning keeps."""
    parts = {"test": Tune.test, "valid": Tune.valid, "seed": seed}
    outputs = len(table.classes) or 1
    sizes = (table.encoder.width, *Tune.hidden, outputs)
    rows = round(len(table.y) * (1 - Tune.test - Tune.valid))
    network = Network(sizes, table.kind, steps_for(rows), min(BATCH, rows))
    make = lambda network: draw_problem(table, network, **parts)[0]
    keys = jax.random.split(jax.random.key(seed), 2 + DRAWS)
    hyper = network.defaults()
    network = suited(network, table, hyper, list(keys[2:]), make)
    problem = make(network)
    if steps_outer:
        hyper = tuned_hyper(problem, hyper, steps_outer, keys[0])
    problem = lasting(problem, hyper, jax.random.fold_in(keys[0], 1))
    return problem, of_all(problem, refits(problem, hyper, keys[1]), problem.test)[1]


def other(problem: Problem, make: rivals.Make, seed: int) -> float:
    """The error of a rival, trained on the same rows."""
    plain = problem.network.plain
    x, tested = (np.asarray(rows.x)[:, :plain] for rows in (problem.pool, problem.test))
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answers = make(seed).fit(x, np.asarray(problem.pool.y)).predict(tested)
    right = np.asarray(problem.test.y)
    if problem.network.kind == "regression":
        return float(problem.target_scale) * float(np.mean((answers - right) ** 2)) ** 0.5
    return float(np.mean(answers != right))


def main() -> None:
    """Prints a line for each table and seed, and the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="*", default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps-outer", type=int, default=Tune.steps_outer)
    args = parser.parse_args()
    console = Console()
    for name in args.tables:
        file, label = TABLES[name]
        table = read(str(Path(os.environ["HINDGRAD_DATA"]) / "tables" / file), label=label)
        errors: dict[str, list[float]] = {"kept": [], **{other: [] for other in OTHERS}}
        makes = rivals.rivals(table.kind)
        for seed in range(args.seeds):
            begun = time.perf_counter()
            problem, error = kept(table, seed, args.steps_outer)
            seconds = [time.perf_counter() - begun]
            errors["kept"].append(error)
            for rival in OTHERS:
                begun = time.perf_counter()
                errors[rival].append(other(problem, makes[rival], seed))
                seconds.append(time.perf_counter() - begun)
            found = ", ".join(f"{who} {values[-1]:.4g}" for who, values in errors.items())
            network = problem.network
            bent = f"{'bent' if network.bent else 'plain'}, {network.steps} steps"
            times = ", ".join(f"{s:.0f}" for s in seconds)
            line = f"{name}, seed {seed} ({bent}): {found}; {times} s"
            console.print(line, soft_wrap=True)
        means = ", ".join(f"{who} {np.mean(values):.4g}" for who, values in errors.items())
        console.print(f"{name}, {args.seeds} seeds: {means}", soft_wrap=True)


if __name__ == "__main__":
    main()

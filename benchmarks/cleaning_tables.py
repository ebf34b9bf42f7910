"""Finding wrong labels in tables, against trees: `python -m benchmarks.cleaning_tables`.

Of each table in `HINDGRAD_DATA`/tables a tenth of the labels is made wrong, uniformly. Precision:
the share of these among as many rows with the lowest weights, or with the lowest confidence of a
random forest and of gradient boosting at their defaults in five folds. With `--share 0` the tables
are as they are, and what counts is how few rows are left out.
"""

import argparse
import os
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from threadpoolctl import threadpool_limits

from benchmarks.cleaning import made_wrong
from hindgrad.apps.clean import command
from hindgrad.apps.clean.settings import Clean
from hindgrad.apps.clean.suspicion import Learner
from hindgrad.apps.clean.weighing import Rows, suspicion, trust
from hindgrad.apps.table import read_as_asked

TABLES = {
    "Vehicle": ("se-Vehicle.csv", "Class"),
    "Vowel": ("se-Vowel.csv", "Class"),
    "Glass": ("se-Glass.csv", "Type"),
    "wisc_bc": ("st-wisc_bc_data.csv", "diagnosis"),
    "mammography": ("jb-mammography.csv", None),
}
RIVALS = {
    "random forest": RandomForestClassifier,
    "gradient boosting": HistGradientBoostingClassifier,
}


def load(name: str) -> tuple[Rows, Clean, Learner]:
    """A table's rows, as the command has them."""
    file, label = TABLES[name]
    settings = Clean(data=str(Path(os.environ["HINDGRAD_DATA"]) / "tables" / file), label=label)
    table = read_as_asked(settings)
    sizes = (table.encoder.width, *settings.layers, len(table.classes))
    return command.rows_of(settings, table, None), settings, Learner(sizes, settings.steps)


def precision(worth: np.ndarray, wrong: np.ndarray) -> float:
    """The share of wrong rows among as many with the lowest worth."""
    lowest = np.argsort(worth, kind="stable")[: len(wrong)]
    return float(np.isin(lowest, wrong).mean()) if len(wrong) else float("nan")


def confidence(make, rows: Rows, seed: int) -> np.ndarray:
    """What a model gives to each row's label, trained on the other folds."""
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    model = make(random_state=seed)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said = cross_val_predict(model, rows.x, rows.y, cv=folds, method="predict_proba")
    return np.asarray(said)[np.arange(len(rows.y)), rows.y]


def main() -> None:
    """Prints a line for each table and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", nargs="*", default=list(TABLES))
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    console = Console()
    for name in args.tables:
        rows, settings, learner = load(name)
        for seed in range(args.seeds):
            rng = np.random.default_rng(100 + seed)
            noisy, wrong = made_wrong(rows.y, args.share, int(rows.y.max()) + 1, rng)
            given = replace(rows, y=noisy)
            begun = time.perf_counter()
            found = suspicion(
                given,
                learner,
                steps_outer=settings.steps_outer,
                repeats=settings.repeats,
                seed=seed,
            )
            seconds = time.perf_counter() - begun
            weights = trust(given, found)
            out, rare = weights < 0.5, noisy == np.bincount(noisy).argmin()
            others = {
                rival: precision(confidence(make, given, seed), wrong)
                for rival, make in (RIVALS if len(wrong) else {}).items()
            }
            console.print(
                f"{name}, seed {seed}: {len(noisy):,} rows, {len(wrong):,} made wrong, "
                f"{out.sum():,} left out ({out[rare].mean():.0%} of the rarest class); precision "
                f"{precision(weights, wrong):.3f}"
                + "".join(f", {rival} {value:.3f}" for rival, value in others.items())
                + f"; judged by {found['judge']}; {seconds:.0f} s"
            )


if __name__ == "__main__":
    main()

"""What `hyper_cleaning` leaves behind: tables, words and pictures, all made from its results."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from experiments.franceschi2017 import hyper_cleaning_pictures as cleaning
from experiments.franceschi2017.hyper_cleaning_pictures import Suspect
from hindgrad.apps import datasets
from hindgrad.apps.report import figures
from hindgrad.apps.report.tables import titled

ORACLE, BASELINE, VALIDATION = "oracle", "baseline", "validation only"

TRAINED_ON = {
    ORACLE: "oracle: the validation rows and the training rows whose label is right",
    BASELINE: "baseline: the validation rows and all training rows",
    VALIDATION: "validation only: the validation rows",
}
CLEANED = "R = …: the validation rows and the training rows whose weight is not 0"

COLUMNS = ("test accuracy, %", "F1", "precision", "recall")

Results = dict[str, Any]


def write(results: Results, folder: Path) -> None:
    """Writes the tables and pictures into a folder."""
    radii, runs = _radii(results), results["runs"]
    _write_csv(results, folder / "table.csv")
    lines = ["| " + " | ".join(["", *COLUMNS]) + " |", "|---" + "|---:" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in _rows(results)]
    lines += ["", *(f"- {line}" for line in (*TRAINED_ON.values(), CLEANED))]
    (folder / "table.md").write_text("\n".join(lines) + "\n")
    accuracy = {name: _accuracies(results, name) for name in runs[0]["accuracy"]}
    tuned = {name: accuracy.pop(name) for name in radii}
    figures.save(cleaning.accuracy_figure(tuned, accuracy), folder / "accuracy.png")
    first = runs[0]
    figures.save(cleaning.weights_figure(first["histogram"]), folder / "weights.png")
    curves = {
        name: {radius: [step[i] for step in first["seen"][name]] for i, radius in enumerate(radii)}
        for name in ("valid", "f1")
    }
    figures.save(cleaning.tuning_figure(**curves), folder / "tuning.png")
    data = datasets.load(results["call"]["data"])
    groups = [_suspects(data, first["suspects"][name]) for name in ("worst", "odd")]
    figures.save(cleaning.suspects_figure(*groups), folder / "suspects.png")


def table(results: Results) -> Table:
    """The paper's table, with the validation examples alone."""
    seeds = len(results["runs"])
    shown = titled(f"Mean ± standard deviation over {seeds} seed{'s' * (seeds > 1)}")
    shown.caption = "\n".join(["Trained on", *TRAINED_ON.values(), CLEANED])
    shown.caption_justify = "left"
    shown.add_column("", no_wrap=True)
    for name in COLUMNS:
        shown.add_column(name, justify="right", no_wrap=True)
    for row in _rows(results):
        shown.add_row(*row)
    return shown


def summary(results: Results) -> list[str]:
    """The outcome in words."""
    call, runs = results["call"], results["runs"]
    mean = {name: float(np.mean(_accuracies(results, name))) for name in runs[0]["accuracy"]}
    radii = _radii(results)
    f1 = [float(np.mean(_detections(results, radius, "f1"))) for radius in radii]
    low, high = min(mean[radius] for radius in radii), max(mean[radius] for radius in radii)
    wins = sum(
        run["accuracy"][radius] > run["accuracy"][VALIDATION] for run in runs for radius in radii
    )
    flipped = call["rows"] // 2
    lines = [
        f"{call['data']}: {call['rows']:,} training examples, {flipped:,} of them with a wrong "
        f"label, and {call['rows']:,} clean ones for validation; seeds {runs[0]['seed']} to "
        f"{runs[-1]['seed']}.",
        f"Cleaned: test accuracy from {low:.2f} to {high:.2f} %, by radius; on the validation "
        f"examples alone {mean[VALIDATION]:.2f} % (lower than cleaned in {wins} of "
        f"{len(runs) * len(radii)} cases), with all labels {mean[BASELINE]:.2f} %, with the right "
        f"ones only {mean[ORACLE]:.2f} %.",
        f"Wrong labels found: F1 from {min(f1):.3f} to {max(f1):.3f}, by radius. The first "
        f"hypergradient alone ranks them with an AUC of "
        f"{np.mean([run['auc'] for run in runs]):.3f}.",
    ]
    if low <= mean[VALIDATION]:
        lines.append("Not for every radius did cleaning pay: see the validation examples alone.")
    return lines


def _radii(results: Results) -> list[str]:
    return [str(radius) for radius in results["call"]["radii"]]


def _accuracies(results: Results, name: str) -> list[float]:
    return [run["accuracy"][name] for run in results["runs"]]


def _detections(results: Results, radius: str, what: str) -> list[float]:
    return [float(run["detection"][radius][what]) for run in results["runs"]]


def _rows(results: Results) -> list[list[str]]:
    """The table's cells: the references, and then the radii."""
    rows = []
    for name in results["runs"][0]["accuracy"]:
        cells = [_spread(_accuracies(results, name), 2)]
        if name in TRAINED_ON:
            rows.append([name, *cells, "", "", ""])
            continue
        measures = ("f1", "precision", "recall")
        cells += [_spread(_detections(results, name, measure), 3) for measure in measures]
        rows.append([f"R = {name}", *cells])
    return rows


def _spread(values: list[float], digits: int) -> str:
    tail = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{tail}"


def _write_csv(results: Results, path: Path) -> None:
    """One line for each model and seed."""
    measures = ["f1", "precision", "recall", "found"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "seed", "test_accuracy_percent", *measures])
        for run in results["runs"]:
            for name, accuracy in run["accuracy"].items():
                detection = run["detection"].get(name, {})
                cells = [detection.get(measure, "") for measure in measures]
                writer.writerow([name, run["seed"], accuracy, *cells])


def _suspects(data: datasets.Dataset, rows: list[list[int]]) -> list[Suspect]:
    """The examples as they are drawn; what is no image is drawn as one line."""
    shape = data.image or (1, data.x.shape[1])
    return [
        Suspect(data.x[i].reshape(shape), data.classes[given], data.classes[data.y[i]])
        for i, given in rows
    ]

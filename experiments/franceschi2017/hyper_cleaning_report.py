"""What `hyper_cleaning` leaves behind: tables, words and pictures, all made from its results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from experiments import reporting
from experiments.reporting import mean_sd
from experiments.runner import Results
from hindgrad.apps import datasets
from hindgrad.apps.report.figures import INK, PALETTE, head, layer_colors, new_figure, tidy

ORACLE, BASELINE, VALIDATION = "oracle", "baseline", "validation only"

TRAINED_ON = {
    ORACLE: "oracle: the validation rows and the training rows whose label is right",
    BASELINE: "baseline: the validation rows and all training rows",
    VALIDATION: "validation only: the validation rows",
}
CLEANED = "R = …: the validation rows and the training rows whose weight is not 0"

COLUMNS = ("", "test accuracy, %", "F1", "precision", "recall")

CLEAN, FLIPPED = PALETTE["random"], PALETTE["tuned"]
REFERENCES = (INK, PALETTE["TPE"], PALETTE["defaults"])


class Suspect(NamedTuple):
    """An example taken for corrupted."""

    image: np.ndarray
    """[height, width]"""
    given: str
    """The label it came with."""
    true: str
    """The data set's own label."""


def write(results: Results, folder: Path) -> None:
    """Writes the tables and pictures into a folder."""
    radii, runs = _radii(results), results["runs"]
    measures = ("f1", "precision", "recall", "found")
    singles = []
    for run in runs:
        for name, accuracy in run["accuracy"].items():
            found = run["detection"].get(name, {})
            singles.append([name, run["seed"], accuracy, *(found.get(m, "") for m in measures)])
    columns = ("model", "seed", "test_accuracy_percent", *measures)
    reporting.write_csv(folder / "table.csv", columns, singles)
    about = "".join(f"- {line}\n" for line in (*TRAINED_ON.values(), CLEANED))
    reporting.write_markdown(folder, reporting.markdown(COLUMNS, _rows(results)), about)
    accuracy = {name: _accuracies(results, name) for name in runs[0]["accuracy"]}
    tuned = {name: accuracy.pop(name) for name in radii}
    first = runs[0]
    curves = {
        name: {radius: [step[i] for step in first["seen"][name]] for i, radius in enumerate(radii)}
        for name in ("valid", "f1")
    }
    data = datasets.load(results["call"]["data"])
    groups = [_suspects(data, first["suspects"][name]) for name in ("worst", "odd")]
    pictures = {
        "accuracy": accuracy_figure(tuned, accuracy),
        "weights": weights_figure(first["histogram"]),
        "tuning": tuning_figure(**curves),
        "suspects": suspects_figure(*groups),
    }
    reporting.save(folder, pictures)


def table(results: Results) -> Table:
    """The paper's table, with the validation examples alone."""
    seeds = reporting.times(len(results["runs"]), "seed")
    shown = reporting.table(f"Mean ± standard deviation over {seeds}", COLUMNS, _rows(results))
    shown.caption = "\n".join(["Trained on", *TRAINED_ON.values(), CLEANED])
    shown.caption_justify = "left"
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
        cells = [mean_sd(_accuracies(results, name), 2)]
        if name in TRAINED_ON:
            rows.append([name, *cells, "", "", ""])
            continue
        measures = ("f1", "precision", "recall")
        cells += [mean_sd(_detections(results, name, measure), 3) for measure in measures]
        rows.append([f"R = {name}", *cells])
    return rows


def _suspects(data: datasets.Dataset, rows: list[list[int]]) -> list[Suspect]:
    """The examples as they are drawn; what is no image is drawn as one line."""
    shape = data.image or (1, data.x.shape[1])
    return [
        Suspect(data.x[i].reshape(shape), data.classes[given], data.classes[data.y[i]])
        for i, given in rows
    ]


def accuracy_figure(
    tuned: Mapping[str, Sequence[float]], references: Mapping[str, Sequence[float]]
) -> Figure:
    """Test accuracy by radius, a point for each seed; a line for each reference's mean."""
    figure = new_figure(8.4, 4.4)
    ax = figure.subplots()
    positions = np.arange(len(tuned))
    values = np.array(list(tuned.values()))
    for (name, accuracies), color in zip(references.items(), REFERENCES, strict=True):
        mean = float(np.mean(accuracies))
        label = f"{name}: {mean:.2f}"
        ax.axhline(mean, color=color, linestyle="--", linewidth=1.3, zorder=1, label=label)
    for seed in values.T:
        ax.plot(positions, seed, "o", color=FLIPPED, alpha=0.45, markersize=5, zorder=2)
    means = values.mean(axis=1)
    ax.plot(positions, means, "D-", color=FLIPPED, markersize=7, zorder=3, label="cleaned")
    ax.set_xticks(positions, list(tuned))
    ax.set_xlabel("radius R, the bound on the sum of the weights")
    ax.margins(x=0.12)
    head(ax, "test accuracy in %: means, and a point for each seed")
    tidy(ax)
    return figure


def weights_figure(histograms: Mapping[str, Mapping[str, Sequence[int]]]) -> Figure:
    """Where the learned weights lie, for right and for wrong labels; one panel for each radius."""
    figure = new_figure(2.9 * len(histograms) + 0.6, 3.5)
    axes = np.atleast_1d(figure.subplots(1, len(histograms), sharey=True))
    for ax, (radius, counts) in zip(axes, histograms.items(), strict=True):
        for name, color in (("clean", CLEAN), ("flipped", FLIPPED)):
            edges = np.linspace(0, 1, len(counts[name]) + 1)
            ax.stairs(counts[name], edges, fill=True, color=color, alpha=0.45)
            ax.stairs(counts[name], edges, color=color, label=f"{name} labels")
        ax.set_yscale("symlog", linthresh=1)
        ax.set_ylim(bottom=0)
        ax.set_xlabel("learned weight")
        head(ax, f"R = {radius}", legend=ax is axes[0])
        tidy(ax)
    axes[0].set_ylabel("examples")
    return figure


def tuning_figure(
    valid: Mapping[str, Sequence[float]], f1: Mapping[str, Sequence[float]]
) -> Figure:
    """Validation loss and F1 over the outer steps, a line for each radius."""
    figure = new_figure(10.4, 4.2)
    axes = figure.subplots(1, 2)
    for ax, curves, title in (
        (axes[0], valid, "validation loss"),
        (axes[1], f1, "F1 of finding the flipped labels"),
    ):
        for (radius, values), color in zip(curves.items(), layer_colors(len(curves)), strict=True):
            ax.plot(values, color=color, linewidth=1.8, label=f"R = {radius}")
        ax.set_xlabel("outer step")
        ax.set_xlim(0, max(1, *(len(values) - 1 for values in curves.values())))
        head(ax, title)
        tidy(ax)
    axes[1].set_ylim(0, 1)
    return figure


def suspects_figure(worst: Sequence[Suspect], odd: Sequence[Suspect]) -> Figure:
    """The most suspicious examples of all, and of those whose label is the data set's own."""
    columns = 16
    rows = [-(-len(group) // columns) for group in (worst, odd)]
    figure = new_figure(11.5, 1.05 * sum(rows) + 1.2)
    parts = np.ravel(figure.subfigures(2, 1, height_ratios=[r + 0.45 for r in rows]))  # type: ignore[arg-type]
    titles = (
        "The most suspicious labels: given, and in brackets the true one",
        "Suspected wrongly: the most suspicious labels that are the data set's own",
    )
    for part, group, count, title in zip(parts, (worst, odd), rows, titles, strict=True):
        reporting.caption(part, title)
        axes = np.ravel(part.subplots(max(count, 1), columns))
        for ax in axes:
            ax.axis("off")
        for ax, suspect in zip(axes, group, strict=False):
            _draw_suspect(ax, suspect)
    return figure


def _draw_suspect(ax: Axes, suspect: Suspect) -> None:
    ax.imshow(suspect.image, cmap="gray_r", interpolation="nearest")
    wrong = suspect.given != suspect.true
    text = f"{suspect.given} ({suspect.true})" if wrong else suspect.given
    ax.set_title(text, fontsize=9, pad=2, color=FLIPPED if wrong else CLEAN)

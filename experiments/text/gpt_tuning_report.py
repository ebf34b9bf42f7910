"""What `gpt-tuning` leaves behind: a table, words and a picture, made from its results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from rich.table import Table

from experiments import reporting
from experiments.runner import Results
from hindgrad.apps.report.figures import FAINT, PALETTE, head, new_figure, save, tidy

START, OPTUNA = "the start", "Optuna, schedule and decay"
SCHEDULE, ALL = "hypergradient, schedule and decay", "hypergradient, documents too"
WAYS = (START, OPTUNA, SCHEDULE, ALL)
COLORS = dict(zip(WAYS, PALETTE.values(), strict=True))
COLORS |= {OPTUNA: PALETTE["TPE"], SCHEDULE: PALETTE["random"]}
COLUMNS = ("documents shuffled", "way", "loss on held-out text")


def write(results: Results, folder: Path) -> None:
    """Writes the table and the picture into a folder."""
    columns = ("damaged", "seed", "way", "loss", "decay")
    rows = [[one[name] for name in columns] for one in results["found"]]
    reporting.write_csv(folder / "table.csv", columns, rows)
    reporting.write_markdown(folder, reporting.markdown(COLUMNS, _rows(results), words=2))
    conditions = _conditions(results)
    figure = new_figure(9.6, 3.6 * len(conditions))
    axes = figure.subplots(len(conditions), 2, squeeze=False)
    for (left, right), damaged in zip(axes, conditions, strict=True):
        _draw_rates(left, results, damaged)
        _draw_weights(right, results, damaged)
    save(figure, folder / "gpt-tuning.png")


def table(results: Results) -> Table:
    """What is printed."""
    return reporting.table("A GPT on held-out text", COLUMNS, _rows(results), words=2)


def summary(results: Results) -> list[str]:
    """The outcome in words, whichever way it went."""
    lines = []
    for damaged in _conditions(results):
        losses = {way: _losses(results, damaged, way) for way in WAYS}
        for way in (SCHEDULE, ALL):
            found = reporting.difference(losses[way], losses[OPTUNA])
            low, high = found.low, found.high
            interval = "" if np.isnan(low) else f" [{low:+.3f}, {high:+.3f}]"
            difference = f"loss {found.mean:+.3f}{interval}"
            lines.append(f"{damaged} documents shuffled: {way} minus Optuna, {difference}.")
        if damaged:
            lines.append(f"{damaged} documents shuffled: {_of_spoiled(results, damaged)}")
    return lines


def _of_spoiled(results, damaged):
    """What weights the shuffled documents end with."""
    bad, good = [], []
    for one in _of(results, damaged, ALL):
        weights, is_bad = np.array(one["weights"]), np.zeros(len(one["weights"]), bool)
        is_bad[one["spoiled"]] = True
        bad += weights[is_bad].tolist()
        good += weights[~is_bad].tolist()
    below = float(np.mean(np.array(bad)[:, None] < np.array(good)[None]))
    return (
        f"their weights end at {np.mean(bad):.2f}, the others' at {np.mean(good):.2f} (means); a "
        f"shuffled one is below another in {100 * below:.0f} % of pairs."
    )


def _rows(results):
    return [
        (str(damaged), way, reporting.mean_sd(_losses(results, damaged, way), 3))
        for damaged in _conditions(results)
        for way in WAYS
    ]


def _conditions(results) -> Sequence[int]:
    return list(dict.fromkeys(one["damaged"] for one in results["found"]))


def _of(results, damaged, way) -> list[dict[str, Any]]:
    return [one for one in results["found"] if (one["damaged"], one["way"]) == (damaged, way)]


def _losses(results, damaged, way):
    return [one["loss"] for one in _of(results, damaged, way)]


def _draw_rates(ax: Axes, results: Results, damaged: int) -> None:
    for way in WAYS:
        for i, one in enumerate(_of(results, damaged, way)):
            label = way if i == 0 else None
            ax.plot(one["rates"], color=COLORS[way], linewidth=1.2, label=label)
    ax.set_yscale("log")
    ax.set_xlabel("step")
    tidy(ax)
    head(ax, f"rates, {damaged} documents shuffled")


def _draw_weights(ax: Axes, results: Results, damaged: int) -> None:
    for one in _of(results, damaged, ALL):
        weights = np.array(one["weights"])
        bad = np.isin(np.arange(len(weights)), one["spoiled"])
        order = np.argsort(weights)
        ax.plot(weights[order], color=FAINT, linewidth=1, zorder=1)
        for which, color in ((~bad, PALETTE["random"]), (bad, PALETTE["tuned"])):
            at = np.flatnonzero(which[order])
            ax.scatter(at, weights[order][at], s=9, color=color, zorder=2)
    ax.set_xlabel("documents, by their weight")
    tidy(ax)
    head(ax, "weights (red: shuffled)", legend=False)

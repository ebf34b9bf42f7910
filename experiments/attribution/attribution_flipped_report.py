"""What `attribution-flipped` leaves behind: a table, words and a picture, made from its results."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from rich.table import Table

from experiments import reporting
from experiments.reporting import picked
from experiments.runner import Results
from hindgrad.apps.report.figures import PALETTE, head, new_figure, save

LINEAR, NETWORK = "logistic regression", "network"
REMOVAL = "attribution: loss of others"
INFLUENCE, WITHOUT = "attribution: own loss", "attribution: margin without it"
OURS = (REMOVAL, INFLUENCE, WITHOUT)
LOSS, MARGIN, CLEAN = "own loss", "own margin, averaged", "clean"
WAYS = (*OURS, LOSS, MARGIN, CLEAN)
COLUMNS = ("model", "ranked by", "AUC", "missed at the budget, %")


def write(results: Results, folder: Path) -> None:
    """Writes the table and the picture into a folder."""
    columns = ("model", "way", "seed", "auc", "missed")
    rows = [[one[name] for name in columns] for one in results["found"]]
    reporting.write_csv(folder / "table.csv", columns, rows)
    reporting.write_markdown(folder, reporting.markdown(COLUMNS, _rows(results), words=2))
    figure = new_figure(10.4, 3.0)
    for ax, model in zip(figure.subplots(1, 2), (LINEAR, NETWORK), strict=True):
        _draw(ax, results, model)
    save(figure, folder / "attribution-flipped.png")


def table(results: Results) -> Table:
    """What is printed."""
    call = results["call"]
    title = f"{100 * call['flipped']:g} % of {call['rows']} labels are wrong"
    return reporting.table(title, COLUMNS, _rows(results), words=2)


def summary(results: Results) -> list[str]:
    """The outcome in words, whichever way it went."""
    lines = []
    for model in (LINEAR, NETWORK):
        means = {
            way: np.mean(picked(results["found"], "missed", model=model, way=way))
            for way in _ways(model)
        }
        best = min(means, key=lambda way: means[way])
        ours = min(OURS, key=lambda way: means[way])
        lines.append(
            f"{model}: the fewest are missed by '{best}' ({100 * means[best]:.1f} %); by "
            f"'{ours}' {100 * means[ours]:.1f} %, with an AUC of "
            f"{np.mean(picked(results['found'], 'auc', model=model, way=ours)):.4f}."
        )
    return lines


def _rows(results):
    return [
        (
            model,
            way,
            reporting.mean_sd(picked(results["found"], "auc", model=model, way=way), 4),
            reporting.mean_sd(
                [100 * x for x in picked(results["found"], "missed", model=model, way=way)], 1
            ),
        )
        for model in (LINEAR, NETWORK)
        for way in _ways(model)
    ]


def _ways(model) -> Sequence[str]:
    return [way for way in WAYS if model == NETWORK or way != CLEAN]


def _draw(ax: Axes, results: Results, model: str) -> None:
    """The share of wrong labels that are missed, seed by seed."""
    ways = _ways(model)
    missed = {way: picked(results["found"], "missed", model=model, way=way) for way in ways}
    percent = {way: [100 * share for share in found] for way, found in missed.items()}
    colors = [PALETTE["tuned" if way in OURS else "random"] for way in ways]
    reporting.draw_ways(ax, percent, colors, 1)
    ax.set_xlim(left=0)
    head(ax, f"wrong labels missed, %; {model}", legend=False)

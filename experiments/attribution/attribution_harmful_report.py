"""What `attribution-harmful` leaves behind: a table, words and a picture, made from its results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from rich.table import Table

from experiments import reporting
from experiments.runner import Results
from hindgrad.apps.report.figures import FAINT, INK, PALETTE, head, new_figure, save, tidy

ALL, CHANCE, ATTRIBUTION = "all rows", "chance", "attribution"
LOSS, MARGIN, CLEAN = "own loss", "own margin, averaged", "clean"
WAYS = (ALL, CHANCE, ATTRIBUTION, LOSS, MARGIN, CLEAN)
COLUMNS = ("labels turned", "left out by", "test loss", "test error, %", "wrong ones found")


def write(results: Results, folder: Path) -> None:
    """Writes the table and the picture into a folder."""
    columns = ("share", "seed", "way", "removed", "flipped", "wrong", "loss", "error")
    rows = [[one[name] for name in columns] for one in results["found"]]
    reporting.write_csv(folder / "table.csv", columns, rows)
    reporting.write_markdown(folder, reporting.markdown(COLUMNS, _rows(results), words=2))
    shares = _shares(results)
    figure = new_figure(5.2 * len(shares), 3.4)
    axes = figure.subplots(1, len(shares), squeeze=False)[0]
    for ax, share in zip(axes, shares, strict=True):
        _draw(ax, results, share)
    save(figure, folder / "attribution-harmful.png")


def table(results: Results) -> Table:
    """What is printed."""
    drop = results["call"]["drop"]
    return reporting.table(
        f"Without {100 * drop:g} % of the rows", COLUMNS, _rows(results), words=2
    )


def summary(results: Results) -> list[str]:
    """The outcome in words, whichever way it went."""
    lines, redrawn = [], results["found"][0]["redrawn"]
    for share in _shares(results):
        losses = {way: _values(results, share, way, "loss") for way in WAYS}
        for rival in (CHANCE, LOSS, MARGIN, CLEAN):
            found = reporting.difference(losses[ATTRIBUTION], losses[rival], redrawn)
            low, high = found.low, found.high
            interval = "" if np.isnan(low) else f" [{low:+.4f}, {high:+.4f}]"
            lines.append(
                f"{100 * share:g} % of labels turned: test loss by attribution minus {rival}: "
                f"{found.mean:+.4f}{interval}."
            )
    return lines


def _rows(results):
    percent = lambda values: reporting.mean_sd([100 * value for value in values], 2)
    return [
        (
            f"{100 * share:g} %",
            way,
            reporting.mean_sd(_values(results, share, way, "loss"), 4),
            percent(_values(results, share, way, "error")),
            _found(results, share, way),
        )
        for share in _shares(results)
        for way in WAYS
    ]


def _found(results, share, way):
    """How many of the rows that were left out had a wrong label."""
    if way == ALL or share == 0:
        return ""
    flipped = np.mean(_values(results, share, way, "flipped"))
    removed = np.mean(_values(results, share, way, "removed"))
    return f"{flipped:.1f} of {removed:.0f}"


def _shares(results) -> Sequence[float]:
    return list(dict.fromkeys(one["share"] for one in results["found"]))


def _values(results, share, way, measure) -> list[Any]:
    found = [one for one in results["found"] if (one["share"], one["way"]) == (share, way)]
    return [one[measure] for one in found]


def _draw(ax: Axes, results: Results, share: float) -> None:
    """The test loss of each way, less that of all rows, seed by seed."""
    base = np.array(_values(results, share, ALL, "loss"))
    ways = [way for way in WAYS if way != ALL]
    ax.axhline(0, color=FAINT, linewidth=1)
    for i, way in enumerate(ways):
        change = np.array(_values(results, share, way, "loss")) - base
        color = PALETTE["tuned"] if way == ATTRIBUTION else PALETTE["random"]
        ax.scatter(np.full(len(change), i), change, s=14, color=color, alpha=0.6)
        ax.plot([i - 0.25, i + 0.25], [change.mean()] * 2, color=INK, linewidth=1.5)
    ax.set_xticks(range(len(ways)), [way.replace(", ", ",\n") for way in ways], fontsize=8)
    tidy(ax, "y")
    head(ax, f"test loss − that of all rows; {100 * share:g} % turned", legend=False)

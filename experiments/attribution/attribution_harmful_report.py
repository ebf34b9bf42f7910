"""What `attribution-harmful` leaves behind: a table, words and a picture, made from its results."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from rich.table import Table

from experiments import reporting
from experiments.attribution import shares_report
from experiments.reporting import different, picked
from experiments.runner import Results
from hindgrad.apps.report.figures import FAINT, PALETTE, head, new_figure, save

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
    shares = different(results["found"], "share")
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
    for share in different(results["found"], "share"):
        losses = {way: picked(results["found"], "loss", share=share, way=way) for way in WAYS}
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
    return shares_report.rows(results, WAYS, lambda share, way: _found(results, share, way))


def _found(results, share, way):
    """How many of the rows that were left out had a wrong label."""
    if way == ALL or share == 0:
        return ""
    flipped = np.mean(picked(results["found"], "flipped", share=share, way=way))
    removed = np.mean(picked(results["found"], "removed", share=share, way=way))
    return f"{flipped:.1f} of {removed:.0f}"


def _draw(ax: Axes, results: Results, share: float) -> None:
    """The test loss of each way, less that of all rows, seed by seed."""
    losses = {way: picked(results["found"], "loss", share=share, way=way) for way in WAYS}
    base = losses.pop(ALL)
    changes = {
        way: [one - all_rows for one, all_rows in zip(found, base, strict=True)]
        for way, found in losses.items()
    }
    colors = [PALETTE["tuned" if way == ATTRIBUTION else "random"] for way in changes]
    ax.axvline(0, color=FAINT, linewidth=1)
    reporting.draw_ways(ax, changes, colors, 4)
    head(ax, f"test loss − that of all rows; {100 * share:g} % turned", legend=False)

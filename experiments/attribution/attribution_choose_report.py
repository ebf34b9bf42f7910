"""What `attribution-choose` leaves behind: a table, words and a picture, made from its results."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from rich.table import Table

from experiments import reporting
from experiments.attribution import shares_report
from experiments.reporting import different, picked
from experiments.runner import Results
from hindgrad.apps.report.figures import PALETTE, head, new_figure, save

ALL, CHANCE, EASY, HARD = "all rows", "chance", "least loss", "most loss"
MARGIN, ATTRIBUTION = "least margin", "attribution"


def of_classes(way: str) -> str:
    """The name of a way that keeps the shares of the classes."""
    return f"{way}, by class"


ROUNDS = f"{ATTRIBUTION}, in rounds"
_ONES = (CHANCE, EASY, HARD, MARGIN, ATTRIBUTION)
WAYS = (ALL, *_ONES, *map(of_classes, _ONES), ROUNDS)
COLUMNS = ("labels turned", "chosen by", "test loss", "test error, %", "wrong ones kept")


def write(results: Results, folder: Path) -> None:
    """Writes the table and the picture into a folder."""
    columns = ("share", "seed", "way", "kept", "flipped", "loss", "error")
    rows = [[one[name] for name in columns] for one in results["found"]]
    reporting.write_csv(folder / "table.csv", columns, rows)
    reporting.write_markdown(folder, reporting.markdown(COLUMNS, _rows(results), words=2))
    shares = different(results["found"], "share")
    figure = new_figure(5.2 * len(shares), 4.2)
    axes = figure.subplots(1, len(shares), squeeze=False, sharey=True)[0]
    for ax, share in zip(axes, shares, strict=True):
        _draw(ax, results, share)
    save(figure, folder / "attribution-choose.png")


def table(results: Results) -> Table:
    """What is printed."""
    keep = results["call"]["keep"]
    return reporting.table(f"{100 * keep:g} % of the rows", COLUMNS, _rows(results), words=2)


def summary(results: Results) -> list[str]:
    """The outcome in words, whichever way it went."""
    lines, redrawn = [], results["found"][0]["redrawn"]
    for share in different(results["found"], "share"):
        errors = {way: picked(results["found"], "error", share=share, way=way) for way in WAYS}
        for way in (ATTRIBUTION, of_classes(ATTRIBUTION), ROUNDS):
            found = reporting.difference(errors[way], errors[of_classes(CHANCE)], redrawn)
            low, high = 100 * found.low, 100 * found.high
            interval = "" if np.isnan(low) else f" [{low:+.2f}, {high:+.2f}]"
            lines.append(
                f"{100 * share:g} % of labels turned: test error by {way} minus "
                f"{of_classes(CHANCE)}: {100 * found.mean:+.2f}{interval} %."
            )
    return lines


def _rows(results):
    def flipped(share, way):
        found = picked(results["found"], "flipped", share=share, way=way)
        return f"{np.mean(found):.1f}" if share else ""

    return shares_report.rows(results, WAYS, flipped)


def _draw(ax: Axes, results: Results, share: float) -> None:
    """The test error of each way, seed by seed."""
    errors = {way: picked(results["found"], "error", share=share, way=way) for way in WAYS}
    percent = {way: [100 * error for error in found] for way, found in errors.items()}
    colors = [PALETTE["tuned" if way.startswith(ATTRIBUTION) else "random"] for way in WAYS]
    reporting.draw_ways(ax, percent, colors, 1)
    head(ax, f"test error, %; {100 * share:g} % of labels turned", legend=False)

"""What `attribution-lds` and `attribution-dattri` leave behind: tables, words and a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from rich.table import Table

from experiments import reporting
from experiments.reporting import different, picked
from experiments.runner import Results
from hindgrad.apps.report.figures import FAINT, PALETTE, head, new_figure, save, tidy

HYPERGRADIENT, INFLUENCE = "hypergradient", "influence functions"
TRAK, TRACIN, PRODUCTS, CHANCE = "TRAK", "TracIn", "gradient products", "chance"
WAYS = (HYPERGRADIENT, INFLUENCE, TRAK, TRACIN, PRODUCTS, CHANCE)
AGAIN = "the same halves again"
BY_HALVES = (HYPERGRADIENT, INFLUENCE, TRAK, PRODUCTS, CHANCE, AGAIN)
"""The ways that are averaged over several models; the last, other trainings on the same rows, is
what can be foretold at all."""
SINGLE = ("one run", "way", "LDS", "95 % intervals", "seconds", "trainings")
HALVED = ("halves", "way", "LDS, one model", "LDS, averaged", "95 % intervals", "seconds")


def write(results: Results, folder: Path) -> None:
    """Writes the tables and the picture into a folder."""
    columns = ("model", "seed", "way", "lds", "low", "high", "seconds")
    for part, names in (("single", columns), ("halved", (*columns, "alone"))):
        rows = [[one[name] for name in names] for one in results[part]]
        reporting.write_csv(folder / f"{part}.csv", names, rows)
    names = ("model", "seed", "trained", "test", "seconds")
    rows = [[one[name] for name in names] for one in results["models"]]
    reporting.write_csv(folder / "models.csv", names, rows)
    parts = ((SINGLE, _single(results)), (HALVED, _halved(results)))
    reporting.write_markdown(folder, *(reporting.markdown(*part, words=2) for part in parts))
    figure = new_figure(9.6, 3.6)
    axes = figure.subplots(1, 2, sharex=True)
    _draw(axes[0], results, "single", WAYS)
    head(axes[0], f"LDS, one run without {100 * results['call']['drop']:g} % of the rows")
    _draw(axes[1], results, "halved", BY_HALVES)
    head(axes[1], "LDS, other runs on halves of the rows")
    save(figure, folder / "lds.png")


def table(results: Results) -> Table:
    """What is printed."""
    title = f"One run without {100 * results['call']['drop']:g} % of the rows"
    return reporting.table(title, SINGLE, _single(results), words=2)


def summary(results: Results) -> list[str]:
    """The outcome in words, whichever way it went."""
    lines = []
    for model in different(results["models"], "model"):
        of = {way: np.mean(picked(results["single"], "lds", model=model, way=way)) for way in WAYS}
        rival = max((way for way in WAYS if way != HYPERGRADIENT), key=lambda way: of[way])
        correct = 100 * np.mean([m["test"] for m in results["models"] if m["model"] == model])
        lines.append(
            f"{model} ({correct:.1f} % correct on test rows), one run: hypergradients "
            f"{of[HYPERGRADIENT]:.3f}, {rival} {of[rival]:.3f}."
        )
    for model in different(results["halved"], "model"):
        means = [
            f"{way} {np.mean(picked(results['halved'], 'lds', model=model, way=way)):.3f}"
            for way in BY_HALVES
        ]
        lines.append(f"{model}, other runs on halves, averaged: {', '.join(means)}.")
    return lines


def _single(results):
    for model in different(results["single"], "model"):
        plain = _least([m["seconds"] for m in results["models"] if m["model"] == model])
        for way in WAYS:
            of = lambda measure, m=model, w=way: picked(results["single"], measure, model=m, way=w)
            seconds = _least(of("seconds"))
            yield (
                model,
                way,
                reporting.mean_sd(of("lds"), 3),
                _intervals(of),
                f"{seconds:.1f}",
                f"{seconds / plain:.0f}",
            )


def _halved(results):
    for model in different(results["halved"], "model"):
        for way in BY_HALVES:
            of = lambda measure, m=model, w=way: picked(results["halved"], measure, model=m, way=w)
            yield (
                model,
                way,
                reporting.mean_sd(of("alone"), 3),
                reporting.mean_sd(of("lds"), 3),
                _intervals(of),
                f"{_least(of('seconds')):.1f}",
            )


def _intervals(of):
    """From the lowest end of the seeds' intervals to the highest."""
    return f"{min(of('low')):.3f} to {max(of('high')):.3f}"


def _least(seconds):
    """Without compilation, if there are several seeds: the first compiles for all."""
    return min(seconds)


def _draw(ax: Axes, results: Results, part: str, ways: Sequence[str]) -> None:
    """The LDS of each way and seed, a mark for each model."""
    ax.axvline(0, color=FAINT, linewidth=1)
    rows = np.arange(len(ways))[::-1]
    looks = zip(different(results[part], "model"), PALETTE.values(), "soD", strict=False)
    for i, (model, color, mark) in enumerate(looks):
        for row, way in zip(rows, ways, strict=True):
            values = picked(results[part], "lds", model=model, way=way)
            label = model if row == rows[0] else None
            place = [row + 0.2 * (1 - i)] * len(values)
            ax.plot(values, place, mark, color=color, label=label, markersize=5)
    ax.set_yticks(rows, ways)
    tidy(ax, grid="x")

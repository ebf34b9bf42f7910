"""Tables, numbers and pictures as all reports of the experiments have them."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from rich.table import Table

from hindgrad.apps.report import figures, tables
from hindgrad.apps.report.figures import FAINT, INK, tidy
from hindgrad.apps.report.tables import Arm, Paired

Row = Sequence[str]


def number(value: float | None, otherwise: Any = np.inf) -> Any:
    """What JSON cannot hold is None there."""
    return otherwise if value is None else value


def picked(found: Iterable[Mapping[str, Any]], measure: str, **where: Any) -> list[Any]:
    """A measure of what was found under some conditions, for every seed that has it."""
    under = (one for one in found if where.items() <= one.items())
    return [one[measure] for one in under if one.get(measure) is not None]


def different(found: Iterable[Mapping[str, Any]], condition: str) -> list[Any]:
    """The values of a condition, in the order in which they come."""
    return list(dict.fromkeys(one[condition] for one in found))


def times(count: int, thing: str) -> str:
    """So many of something."""
    return f"{count} {thing}{'s' * (count > 1)}"


def mean_sd(values: Sequence[float], digits: int | None = None) -> str:
    """The mean ± standard deviation, or one value as it is; without a number of digits, four after
    the point, or one if it is large."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    if digits is None:
        return tables.show(float(np.mean(values)), sd)
    tail = "" if np.isnan(sd) else f" ± {sd:.{digits}f}"
    return f"{np.mean(values):.{digits}f}{tail}"


def difference(values: Sequence[float], rivals: Sequence[float], redrawn: float = 0.0) -> Paired:
    """Values minus a rival's, seed by seed, with what `paired` calls `redrawn`."""
    arm = lambda values: Arm("", [], {"": np.array(values)})
    return tables.paired(arm(values), arm(rivals), "", redrawn)


def gain(
    values: Sequence[float], rivals: Sequence[float], unit: str = "", redrawn: float = 0.0
) -> str:
    """How much higher values are than a rival's, with the 95 % interval."""
    found = difference(values, rivals, redrawn)
    interval = "" if np.isnan(found.low) else f" [{found.low:+.2f}, {found.high:+.2f}]"
    higher = int(np.sum(np.array(values) > np.array(rivals)))
    return f"{found.mean:+.2f}{unit}{interval}, higher on {higher} of {found.seeds}"


def minutes_in_words(minutes: Mapping[str, float]) -> str:
    """Each with one digit."""
    return ", ".join(f"{name} {value:.1f}" for name, value in minutes.items())


def table(title: str, columns: Row, rows: Iterable[Row], words: int = 1) -> Table:
    """What is printed; the first `words` columns are words, and the others numbers."""
    shown = tables.titled(title)
    for i, column in enumerate(columns):
        text = i < words
        shown.add_column(column, justify="left" if text else "right", no_wrap=text)
    for row in rows:
        shown.add_row(*row)
    return shown


def markdown(columns: Row, rows: Iterable[Row], words: int = 1) -> str:
    """The same in Markdown."""
    rule = ["---"] * words + ["---:"] * (len(columns) - words)
    lines = (columns, rule, *rows)
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def write_markdown(folder: Path, *parts: str) -> None:
    """Writes `table.md`."""
    (folder / "table.md").write_text("\n".join(parts), encoding="utf-8")


def write_csv(path: Path, columns: Row, rows: Iterable[Sequence[Any]]) -> None:
    """Writes numbers as they are, a line for each single run."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


def save(folder: Path, pictures: Mapping[str, Figure]) -> None:
    """Writes pictures into a folder, each by its name."""
    for name, figure in pictures.items():
        figures.save(figure, folder / f"{name}.png")


def caption(figure: Any, title: str, size: float = 11.5) -> None:
    """A title over a whole figure, at its left."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=size, fontweight="bold", color=INK)


def bare(ax: Axes) -> None:
    """An image needs no frame, and no numbers below it."""
    ax.set_xticks([])
    ax.tick_params(length=0, colors=INK)
    for side in ax.spines.values():
        side.set_visible(False)


def tidy_bar(bar: Colorbar) -> None:
    """Takes away what the bar of an image does not need."""
    bar.ax.tick_params(which="both", labelsize=8, colors=INK, length=0)
    bar.outline.set_visible(False)  # type: ignore[operator]


def draw_runs(
    ax: Axes, runs: Iterable[Sequence[float]], color: str, label: str | None = None
) -> None:
    """A line for each seed over the outer steps."""
    for values in runs:
        ax.plot(np.arange(len(values)), values, color=color, label=label, linewidth=1.5)
        label = None
    ax.set_xlabel("outer step")
    tidy(ax)


def draw_ways(
    ax: Axes, ways: Mapping[str, Sequence[float]], colors: Iterable[str], digits: int
) -> None:
    """A dot for each seed, joined from way to way, and a bar at each mean."""
    rows = np.arange(len(ways))[::-1]
    for seed in zip(*ways.values(), strict=True):
        ax.plot(seed, rows, color=FAINT, linewidth=1, zorder=1)
    for values, row, color in zip(ways.values(), rows, colors, strict=True):
        mean = float(np.mean(values))
        ax.plot(values, [row] * len(values), "o", color=color, markersize=5, zorder=2)
        ax.plot([mean, mean], [row - 0.22, row + 0.22], color=color, linewidth=3, zorder=3)
        place, text = (mean, row + 0.27), f"{mean:.{digits}f}"
        ax.annotate(text, place, ha="center", fontsize=9, color=color, weight="bold")
    ax.set_yticks(rows, list(ways))
    ax.set_ylim(-0.5, len(ways) - 0.3)
    tidy(ax, grid="x")


def draw_losses(ax: Axes, losses: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """A mark for each seed, and the mean as a number, for each way and each part of the data."""
    parts = list(next(iter(losses.values())))
    rows = np.arange(len(losses))[::-1]
    looks = zip(parts, figures.layer_colors(len(parts)), "soD", strict=False)
    for i, (part, color, mark) in enumerate(looks):
        for row, found in zip(rows, losses.values(), strict=True):
            values, place = found[part], row + 0.22 * (1 - i)
            label = part if row == rows[0] else None
            ax.plot(values, [place] * len(values), mark, color=color, label=label, markersize=5)
            ax.annotate(
                f"{float(np.mean(values)):.2f}",
                (max(values), place),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
                fontsize=8.5,
                color=INK,
            )
    ax.set_yticks(rows, [way.replace(", ", ",\n") for way in losses])
    ax.set_ylim(-0.5, len(losses) - 0.4)
    ax.margins(x=0.12)
    ax.set_xlabel("mean negative log-likelihood, nats")
    tidy(ax, grid="x")

"""A picture of what forward and reverse mode cost."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from hindgrad.apps.report.figures import FAINT, INK, PALETTE, head, new_figure, tidy

COLORS = {
    "Forward": PALETTE["tuned"],
    "Forward in blocks": PALETTE["TPE"],
    "Stored": PALETTE["random"],
    "Reversible": PALETTE["defaults"],
}

CROSSING = "forward costs what Stored does"

Lines = Mapping[str, Mapping[float, float]]
"""For each mode, a cost by the number of hyperparameters or of steps."""


class Crossing(NamedTuple):
    """At how many hyperparameters forward costs what reverse does."""

    time: float
    memory: float


class Network(NamedTuple):
    """What a network's hypergradients cost."""

    weights: int
    steps: int
    times: Lines
    """As multiples of plain training."""
    megabytes: Lines
    crossing: Crossing


def modes_figure(networks: Sequence[Network], lengths: Lines, about: str) -> Figure:
    """Time and memory over the number of hyperparameters, a column for each network, and memory
    over the number of steps, with words on that; a dotted line where forward and stored cross."""
    columns = len(networks) + 1
    figure = new_figure(3.6 * columns + 0.6, 6.6)
    axes = figure.subplots(2, columns, sharex=False)
    for i, network in enumerate(networks):
        for ax, lines, place, what in (
            (axes[0, i], network.times, network.crossing.time, "time ÷ training"),
            (axes[1, i], network.megabytes, network.crossing.memory, "memory in MB"),
        ):
            _draw(ax, lines)
            _mark(ax, place)
            ax.set_xlabel(f"hyperparameters ({network.steps:,} steps)")
            head(ax, f"{network.weights:,} weights: {what}", legend=False)
    _draw(axes[1, -1], lengths)
    axes[1, -1].set_xlabel(f"steps ({about})")
    head(axes[1, -1], "memory in MB over steps", legend=False)
    corner = axes[0, -1]
    corner.axis("off")
    named = [line for ax in figure.axes for line in ax.lines]
    handles = {line.get_label(): line for line in reversed(named)}
    labels = [label for label in (*COLORS, CROSSING) if label in handles]
    corner.legend(
        [handles[label] for label in labels], labels, loc="center left", frameon=False, fontsize=10
    )
    return figure


def _mark(ax: Axes, place: float) -> None:
    """A line where forward and stored cross, if that is to be seen."""
    low, high = ax.get_xlim()
    if low < place < high:
        ax.axvline(place, color=INK, linestyle=":", linewidth=1.2, label=CROSSING)
        text = f" {place:.0f}" if place >= 10 else f" {place:.1f}"
        ax.annotate(text, (place, 0.02), xycoords=("data", "axes fraction"), fontsize=9, color=INK)


def _draw(ax: Axes, lines: Lines) -> None:
    for mode, values in lines.items():
        ax.plot(
            list(values),
            list(values.values()),
            "o-",
            color=COLORS[mode],
            label=mode,
            linewidth=1.8,
            markersize=4,
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axis.set_minor_formatter(NullFormatter())
    tidy(ax)
    ax.grid(True, which="minor", axis="y", color=FAINT, linewidth=0.2)

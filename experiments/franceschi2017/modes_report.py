"""What `modes` leaves behind: a table, words and a picture, made from its results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from rich.table import Table

from experiments import reporting
from experiments.runner import Results
from hindgrad.apps.report.figures import FAINT, INK, PALETTE, head, new_figure, tidy

FORWARD, BLOCKS, STORED, REVERSIBLE = "Forward", "Forward in blocks", "Stored", "Reversible"
MEGABYTE = 1e6

Found = Mapping[str, Any]
"""The results of one network."""

COLORS = {
    FORWARD: PALETTE["tuned"],
    BLOCKS: PALETTE["TPE"],
    STORED: PALETTE["random"],
    REVERSIBLE: PALETTE["defaults"],
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


def write(results: Results, folder: Path) -> None:
    """Writes the table and the picture into a folder."""
    measures = ("seconds", "ratio", "bytes")
    singles = [
        [found["weights"], found["steps"], count, mode]
        + [found[measure][mode].get(count, "") for measure in measures]
        for found in results["networks"]
        for mode, sizes in found["bytes"].items()
        for count in sizes
    ]
    columns = ("weights", "steps", "hyperparameters", "mode", *measures)
    reporting.write_csv(folder / "table.csv", columns, singles)
    text = reporting.markdown(_columns(results), _rows(results), words=0)
    reporting.write_markdown(folder, text)
    networks = [
        Network(
            found["weights"],
            found["steps"],
            {mode: _numbers(found["ratio"][mode]) for mode in found["ratio"]},
            {mode: _numbers(found["bytes"][mode], MEGABYTE) for mode in found["bytes"]},
            Crossing(crossing(found, "ratio"), crossing(found, "bytes")),
        )
        for found in results["networks"]
    ]
    lengths, call = results["lengths"], results["call"]
    sizes = {mode: _numbers(b, MEGABYTE) for mode, b in lengths["bytes"].items()}
    about = f"{lengths['weights']:,} weights, {call['length_count']} hyperparameters"
    reporting.save(folder, {"modes": modes_figure(networks, sizes, about)})


def crossing(found: Found, what: str) -> float:
    """The number of hyperparameters from which on forward costs more than `Stored`: interpolated,
    or where a line through forward's figures leads to if they do not cross in these."""
    forward, stored = (_numbers(found[what][mode]) for mode in (FORWARD, STORED))
    counts = np.array(list(forward))
    excess = np.array([forward[count] - stored[count] for count in counts])
    if excess[0] < 0 < excess[-1]:
        i = int(np.argmax(excess > 0))
        return float(np.interp(0, excess[i - 1 : i + 1], counts[i - 1 : i + 1]))
    slope, offset = _line(counts, np.array(list(forward.values())))
    return float((np.mean(list(stored.values())) - offset) / slope)


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and offset of a line through positive values, by relative errors."""
    if len(x) == 1:
        return float(y[0] / x[0]), 0.0
    slope, offset = np.polyfit(x, y, 1, w=1 / y)
    return float(slope), float(offset)


def table(results: Results) -> Table:
    """Multiples of plain training, and megabytes."""
    title = "Value and hypergradient: time ÷ plain training, and MB allocated"
    return reporting.table(title, _columns(results), _rows(results), words=0)


def summary(results: Results) -> list[str]:
    """Where forward and reverse cross, in words."""
    call, lines = results["call"], []
    for found in results["networks"]:
        lines.append(_network_words(found))
    sizes = {mode: _numbers(b) for mode, b in results["lengths"]["bytes"].items()}
    grown = {mode: max(b.values()) / next(iter(b.values())) for mode, b in sizes.items()}
    first, last = call["lengths"][0], call["lengths"][-1]
    grows = ", ".join(f"{mode} {factor:,.2f}" for mode, factor in grown.items())
    lines.append(
        f"Memory from {first:,} to {last:,} steps, {call['length_count']} hyperparameters, grows "
        f"by a factor: {grows}."
    )
    lines.append(
        "Times are medians of interleaved calls on this machine; bytes are what the compiled "
        "program allocates, and no count of them is extrapolated."
    )
    return lines


def _network_words(found: Found) -> str:
    ratio = {mode: _numbers(found["ratio"][mode]) for mode in found["ratio"]}
    slope, offset = _line(*map(np.array, zip(*ratio[FORWARD].items(), strict=True)))
    stored = float(np.mean(list(ratio[STORED].values())))
    steps, largest = found["steps"], max(ratio[FORWARD])
    counts = _numbers(found["bytes"][FORWARD])
    words = (
        f"{found['weights']:,} weights, {steps:,} steps: forward takes {offset:.1f} + {slope:.2f} "
        f"for each hyperparameter times as long as plain training, Stored {stored:.1f}: "
    )
    place = crossing(found, "ratio")
    if place < min(ratio[FORWARD]):
        words += "forward is slower already with one. "
    elif place > largest:
        words += f"they would cross at {place:.0f}, more than were timed. "
    else:
        words += f"they cross at {place:.1f} hyperparameters. "
    if largest < max(counts):
        expected = offset + slope * max(counts)
        words += (
            f"Timed up to {largest:.0f}; for {max(counts):,.0f} the line says {expected:,.0f}. "
        )
    place = crossing(found, "bytes")
    where = "with any number" if place < min(counts) else f"below {place:,.0f} hyperparameters"
    if place < min(counts):
        return words + "Forward needs more memory already with one."
    if place > max(counts):
        where = f"with all numbers up to {max(counts):,.0f} (they would cross at {place:,.0f})"
    return words + f"Forward needs less memory {where}."


def _columns(results: Results) -> list[str]:
    modes = list(results["networks"][0]["ratio"])
    return [
        "weights",
        "hyper-parameters",
        *(f"{m}, ×" for m in modes),
        *(f"{m}, MB" for m in modes),
    ]


def _rows(results: Results) -> list[list[str]]:
    rows = []
    for found in results["networks"]:
        for count in found["bytes"][FORWARD]:
            show = lambda what, unit, digits, found=found, count=count: [
                f"{values[count] / unit:,.{digits}f}" if count in values else "–"
                for values in found[what].values()
            ]
            cells = [*show("ratio", 1, 1), *show("bytes", MEGABYTE, 2)]
            rows.append([f"{found['weights']:,}", count, *cells])
    return rows


def _numbers(values: Mapping[str, int | float], unit: float = 1.0) -> dict[float, float]:
    """By count or length, in order."""
    return {float(key): float(value) / unit for key, value in values.items()}


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

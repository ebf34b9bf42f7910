"""What `modes` leaves behind: a table, words and a picture, made from its results."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from experiments.franceschi2017 import modes_pictures as modes
from experiments.franceschi2017.modes_pictures import Crossing, Network
from hindgrad.apps.report import figures
from hindgrad.apps.report.tables import titled

FORWARD, STORED = "Forward", "Stored"
MEGABYTE = 1e6

Results = dict[str, Any]
Found = Mapping[str, Any]
"""The results of one network."""


def write(results: Results, folder: Path) -> None:
    """Writes the table and the picture into a folder."""
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["weights", "steps", "hyperparameters", "mode", "seconds", "ratio", "bytes"]
        )
        for found in results["networks"]:
            for mode, sizes in found["bytes"].items():
                for count, size in sizes.items():
                    timed = [found[what][mode].get(count, "") for what in ("seconds", "ratio")]
                    writer.writerow([found["weights"], found["steps"], count, mode, *timed, size])
    columns = _columns(results)
    lines = [columns, ["---:"] * len(columns), *_rows(results)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    (folder / "table.md").write_text(text + "\n")
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
    figures.save(modes.modes_figure(networks, sizes, about), folder / "modes.png")


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
    shown = titled("Value and hypergradient: time ÷ plain training, and MB allocated")
    for title in _columns(results):
        shown.add_column(title, justify="right")
    for row in _rows(results):
        shown.add_row(*row)
    return shown


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

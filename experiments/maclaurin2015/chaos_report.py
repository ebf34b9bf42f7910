"""What `chaos` leaves behind: tables, words and pictures, all made from its results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from experiments import reporting
from experiments.reporting import number
from experiments.runner import Results
from hindgrad.apps.report.figures import INK, PALETTE, head, log_y, new_figure, tidy

EXACT, EVOLUTION, PERSISTENT = "exact", "Evolution", "PersistentEvolution"
"""The hypergradients that are compared."""

COLUMNS = ("hypergradient", "outer steps", "trainings", "loss around it", "its own", "turned back")

AUTHORS = "the authors' edge, 1.49"
STEP, WRONG, STRETCH = 0.05, 0.5, 0.1
"""The edge that the fine scan shows: where steps of `STEP` begin to reach what their hypergradient
does not foretell, being off by `WRONG` of the slope more often than not in a stretch this long."""

COLORS = (PALETTE["random"], PALETTE["tuned"], PALETTE["TPE"])
GRADIENTS = 0.5
"""The gradients that are shown go up to this, as in the authors' figure."""


class Tunings(NamedTuple):
    """One kind of hypergradient; a row or an entry for each seed."""

    values: Sequence[Sequence[float]]
    """The loss at each outer step."""
    cost: float
    """Trainings for each outer step."""
    answers: Sequence[float]
    """The loss around the answer."""


def scan_edge(log_rates: np.ndarray, losses: np.ndarray, gradients: np.ndarray) -> float | None:
    """The first log rate from which on hypergradients are usually misleading."""
    spacing = log_rates[1] - log_rates[0]
    half, stretch = max(1, round(STEP / 2 / spacing)), max(1, round(STRETCH / spacing))
    if len(losses) < 2 * half + stretch:
        return None
    begin, middle, end = losses[: -2 * half], losses[half:-half], losses[2 * half :]
    foretold = gradients[: len(begin)] * 2 * half * spacing
    apart = np.abs(foretold - (-3 * begin + 4 * middle - end))
    slopes = np.max(np.abs([foretold, 2 * (middle - begin), 2 * (end - middle)]), axis=0)
    wrong = ~(apart <= WRONG * slopes)
    share = np.convolve(wrong, np.ones(stretch), "valid") / stretch
    beyond = np.flatnonzero(share > 0.5)
    # In the first such stretch the second half is wrong, and so is where its steps lead.
    return float(log_rates[beyond[0]]) + STRETCH / 2 + STEP if len(beyond) else None


def write(results: Results, folder: Path) -> None:
    """Writes the tables and pictures into a folder."""
    log_rates, losses, gradients = _scan(results)
    scanned = zip(log_rates, losses, gradients, results["rates"]["left"], strict=True)
    columns = ("log_rate", "loss", "hypergradient", "why_not")
    reporting.write_csv(folder / "rates.csv", columns, scanned)
    edges = {
        "diagnose's edge": results["edge"]["edge"],
        "the scan's": scan_edge(log_rates, losses, gradients),
        AUTHORS: 1.49 if results["call"]["data"] == "mnist" else None,
    }
    edges = {name: place for name, place in edges.items() if place is not None}
    start, tunings = [], {}
    for arm, runs in results["above"].items():
        values = [np.exp([number(v, np.nan) for v in run["values"]]).tolist() for run in runs]
        tunings[arm] = Tunings(values, runs[0]["cost"], [np.exp(run["answer"]) for run in runs])
        start = [np.exp(run["start"]) for run in runs]
    pictures = {
        "chaos-rates": rates_figure(log_rates, losses, gradients, edges),
        "chaos-above": above_figure(start, tunings),
    }
    reporting.save(folder, pictures)
    reporting.write_markdown(folder, reporting.markdown(COLUMNS, _rows(results)))


def table(results: Results) -> Table:
    """The tunings above the edge."""
    seeds = reporting.times(len(results["above"][EXACT]), "seed")
    title = f"From log rate {results['call']['above']:g}, {seeds}"
    return reporting.table(title, COLUMNS, _rows(results))


def summary(results: Results) -> list[str]:
    """The outcome in words, whichever way it went."""
    log_rates, losses, gradients = _scan(results)
    best = int(np.nanargmin(losses))
    found, scanned = results["edge"]["edge"], scan_edge(log_rates, losses, gradients)
    place = lambda edge: "none" if edge is None else f"{edge:.2f}"
    lines = [
        f"The edge, as a log rate: {place(found)} by `diagnose`, {place(scanned)} by the fine scan "
        "(the authors' figure is smooth up to about 1.49).",
        f"The lowest loss is {losses[best]:.5f}, at index {best} of {len(losses)}, log rate "
        f"{log_rates[best]:.3f} (the authors': .00244 at 579). The hypergradient goes up to "
        f"{np.nanmax(np.abs(gradients)):.1e} (the authors': 2e33).",
    ]
    left = [text for text in results["rates"]["left"] if text]
    if left:
        lines.append(f"Runs that could not be undone, and have no hypergradient: {len(left)}.")
    exact, call = results["above"][EXACT], results["call"]
    for arm in (EVOLUTION, PERSISTENT):
        runs = results["above"][arm]
        pairs = list(zip(runs, exact, strict=True))
        better = sum(a["answer"] < b["answer"] for a, b in pairs)
        improved = sum(a["answer"] < a["start"] for a in runs)
        factor = float(np.exp(np.mean([b["answer"] - a["answer"] for a, b in pairs])))
        lines.append(
            f"Above the edge, from log rate {call['above']:g}: `{arm}` improves on the start on "
            f"{improved} of {len(runs)} seeds, and beats the exact hypergradient on {better}; its "
            f"loss is {factor:.2g} times lower."
        )
    improved = sum(b["answer"] < b["start"] for b in exact)
    lines.append(f"The exact hypergradient improves on the start on {improved} of {len(exact)}.")
    minutes = {arm: sum(r["seconds"] for r in runs) / 60 for arm, runs in results["above"].items()}
    whole = results["rates"]["minutes"] + results["edge"]["minutes"] + sum(minutes.values())
    lines.append(
        f"Wall-clock in minutes: the scan {results['rates']['minutes']:.1f}, diagnose "
        f"{results['edge']['minutes']:.1f}, the tunings {reporting.minutes_in_words(minutes)}; "
        f"{whole:.1f} in all."
    )
    return lines


def _scan(results: Results) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    call, rates = results["call"], results["rates"]
    scanned = lambda what: np.array([number(v, np.nan) for v in rates[what]])
    log_rates = np.linspace(call["low"], call["high"], call["values"])
    return log_rates, scanned("loss"), scanned("gradient")


def _rows(results: Results) -> list[list[str]]:
    mean = lambda values: f"{np.exp(np.mean(values)):.5f}"
    first = results["above"][EXACT]
    rows = [["(the start)", "", "", mean([r["start"] for r in first]), "", ""]]
    for arm, runs in results["above"].items():
        steps = len(runs[0]["values"])
        answer, itself = ([r[name] for r in runs] for name in ("answer", "itself"))
        back = np.mean([r["turned_back"] for r in runs])
        spent = f"{steps * runs[0]['cost']:.0f}"
        rows.append([arm, str(steps), spent, mean(answer), mean(itself), f"{back:.1f}"])
    return rows


def rates_figure(
    log_rates: np.ndarray, losses: np.ndarray, gradients: np.ndarray, edges: Mapping[str, float]
) -> Figure:
    """Loss above, hypergradient below, over the log rate; NaN where there is none. Lines mark
    edges."""
    figure = new_figure(8.4, 6.2)
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(log_rates, losses, color=PALETTE["random"], linewidth=1)
    log_y(above)
    below.plot(log_rates, gradients, color=INK, linewidth=0.8)
    below.set_ylim(-GRADIENTS, GRADIENTS)
    below.set_xlabel("log learning rate")
    looks = ((PALETTE["tuned"], "-"), (PALETTE["TPE"], "--"), (PALETTE["defaults"], ":"))
    for ax in (above, below):
        for (name, place), (color, style) in zip(edges.items(), looks, strict=False):
            ax.axvline(place, color=color, linestyle=style, linewidth=1.6, label=name, zorder=3)
        ax.set_xlim(log_rates[0], log_rates[-1])
        tidy(ax)
    head(above, "training loss at the end")
    head(below, "its derivative with respect to the log rate", legend=False)
    return figure


def above_figure(start: Sequence[float], tunings: Mapping[str, Tunings]) -> Figure:
    """The loss while tuning, over what was spent, and around the answers, seed by seed."""
    figure = new_figure(11.0, 4.4)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    for (name, found), color in zip(tunings.items(), COLORS, strict=False):
        for i, values in enumerate(found.values):
            spent = np.arange(len(values)) * found.cost
            label = name if i == 0 else None
            left.plot(spent, values, color=color, linewidth=1.2, alpha=0.85, label=label)
    log_y(left)
    left.set_xlabel("trainings spent")
    tidy(left)
    head(left, "training loss while tuning")
    _outcome(right, start, tunings)
    head(right, "loss around the answer, seed by seed", legend=False)
    return figure


def _outcome(ax: Axes, start: Sequence[float], tunings: Mapping[str, Tunings]) -> None:
    names = ["start", *tunings]
    values = np.array([start, *(found.answers for found in tunings.values())], float)
    ax.plot(values, color=PALETTE["defaults"], linewidth=0.8, alpha=0.6, zorder=1)
    for i, color in enumerate((PALETTE["defaults"], *COLORS[: len(tunings)])):
        ax.plot([i] * values.shape[1], values[i], "o", color=color, markersize=6, zorder=2)
    log_y(ax)
    ax.set_xticks(range(len(names)), [name.replace("Persistent", "Persistent\n") for name in names])
    ax.set_xlim(-0.4, len(names) - 0.6)
    tidy(ax, grid="y")

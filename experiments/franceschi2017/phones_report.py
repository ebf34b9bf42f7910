"""What `phones` leaves behind: a table, words and pictures, made from its results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from rich.table import Table

from experiments import reporting
from experiments.reporting import mean_sd
from experiments.runner import Results
from hindgrad.apps.report.figures import INK, PALETTE, head, log_y, new_figure, tidy

FIXED, STILL, SEARCH = "vanilla", "start kept", "random search"
START, ZEROS = "real time", "from zeros"
ARMS = (FIXED, STILL, SEARCH, START, ZEROS)

PAPER = (FIXED, SEARCH, ZEROS, START)
"""The paper's arms, the least accurate first. It has none that keeps the start of the one in real
time, without which the share of the second task in the gain is unknown."""

MEASURES = {
    "test": ("test accuracy, %", 2),
    "valid": ("valid accuracy, %", 2),
    "valid_loss": ("valid loss", 4),
    "test_loss": ("test loss", 4),
    "minutes": ("minutes", 2),
    "trials": ("trainings", 1),
}
"""What is shown of each arm, and with how many digits."""
COLUMNS = ("", *(title for title, _ in MEASURES.values()))

REAL_TIME = (PALETTE["tuned"], PALETTE["TPE"])
"""From both starts."""
COLORS = (PALETTE["defaults"], INK, PALETTE["random"], *REAL_TIME)
"""Of vanilla, the start kept, the search, and real time."""
NAMES = {"rate": "rate", "decay": "momentum decay", "rho": "ρ, weight of the second task"}

Curves = Mapping[str, Sequence[Mapping[str, Any]]]
"""For each arm, each seed's steps, validation losses and hyperparameters."""


def write(results: Results, folder: Path) -> None:
    """Writes the table and the pictures into a folder."""
    runs = results["runs"]
    singles = [
        [name, run["seed"], *(_value(run, name, measure) for measure in MEASURES)]
        for run in runs
        for name in run["arms"]
    ]
    reporting.write_csv(folder / "table.csv", ("arm", "seed", *MEASURES), singles)
    reporting.write_markdown(folder, reporting.markdown(COLUMNS, _rows(results)))
    curves = {name: [run["arms"][name]["curve"] for run in runs] for name in ARMS}
    accuracies = {name: _values(results, name, "test") for name in ARMS}
    pictures = {
        "trajectories": trajectories_figure({name: curves[name] for name in (START, ZEROS)}),
        "outcome": outcome_figure(curves, accuracies),
    }
    reporting.save(folder, pictures)


def table(results: Results) -> Table:
    """The paper's table."""
    seeds = reporting.times(len(results["runs"]), "seed")
    return reporting.table(f"Mean ± standard deviation over {seeds}", COLUMNS, _rows(results))


def summary(results: Results) -> list[str]:
    """The outcome in words, whichever way it went."""
    call, rows = results["call"], results["rows"]
    mean = {name: float(np.mean(_values(results, name, "test"))) for name in ARMS}
    trials = np.mean(_values(results, SEARCH, "trials"))
    minutes = {name: float(np.mean(_values(results, name, "minutes"))) for name in ARMS}
    ranked = " < ".join(sorted(PAPER, key=mean.__getitem__))
    papers = " < ".join(PAPER)
    order = "the paper's order" if ranked == papers else f"the paper's order is {papers}"
    scores = ", ".join(f"{name} {mean[name]:.2f}" for name in ARMS)
    return [
        f"{call['data']}: {rows[0]:,} frames for training, {rows[1]:,} for validation and "
        f"{rows[2]:,} for the test, no speaker in two of them; {call['steps']:,} steps, "
        f"hyperparameters changed every {call['every']}.",
        f"Test accuracy in percent: {scores}. Of the paper's four, {ranked}; {order}.",
        _gains(results, START),
        _gains(results, ZEROS),
        f"One run in real time takes as long as {minutes[START] / minutes[FIXED]:.1f} with fixed "
        f"hyperparameters; the search had time for {trials:.1f} trainings.",
        _movement(results),
    ]


def _gains(results: Results, name: str) -> str:
    """How an arm does against those that change nothing while training, seed by seed."""
    own = _values(results, name, "test")
    rivals = {rival: _values(results, rival, "test") for rival in (FIXED, STILL, SEARCH)}
    words = "; ".join(f"{rival} {reporting.gain(own, values)}" for rival, values in rivals.items())
    differences = [reporting.difference(own, values) for values in rivals.values()]
    clear = any(d.high < 0 or d.low > 0 for d in differences)
    tail = "" if clear else " None differs clearly from zero."
    return f"{name.capitalize()} minus the others, in points: {words}.{tail}"


def _movement(results: Results) -> str:
    """From where to where the hyperparameters went."""
    parts = []
    for name in (START, ZEROS):
        hypers = [run["arms"][name]["curve"]["hyper"] for run in results["runs"]]
        ends = ", ".join(
            f"{label} {np.mean([h[key][-1] for h in hypers]):.3f}"
            for key, label in (("rate", "rate"), ("decay", "decay"), ("rho", "ρ"))
        )
        parts.append(f"{name} ended at {ends}")
    call = results["call"]
    begin = f"rate {call['rate']:g}, decay {call['decay']:g}, ρ {call['rho']:g}"
    return f"On average, {'; '.join(parts)}. The sensible start is {begin}."


def _rows(results: Results) -> list[list[str]]:
    rows = []
    for name in ARMS:
        cells = [mean_sd(_values(results, name, m), digits) for m, (_, digits) in MEASURES.items()]
        rows.append([name, *cells])
    return rows


def _value(run: Mapping[str, Any], name: str, measure: str) -> float:
    arm = run["arms"][name]
    return float(arm["seconds"] / 60 if measure == "minutes" else arm[measure])


def _values(results: Results, name: str, measure: str) -> list[float]:
    return [_value(run, name, measure) for run in results["runs"]]


def trajectories_figure(curves: Curves) -> Figure:
    """The hyperparameters over the run: a thin line for each seed, the mean thick."""
    figure = new_figure(11.5, 3.8)
    axes = figure.subplots(1, len(NAMES))
    for ax, (key, title) in zip(axes, NAMES.items(), strict=True):
        for (name, runs), color in zip(curves.items(), REAL_TIME, strict=True):
            _draw(ax, name, runs, lambda run, key=key: run["hyper"][key], color)
        ax.set_xlim(left=0)
        ax.set_ylim(bottom=0)
        head(ax, title, legend=ax is axes[0])
    return figure


def outcome_figure(curves: Curves, accuracies: Mapping[str, Sequence[float]]) -> Figure:
    """Validation loss over the run, and test accuracies, a line for each seed."""
    figure = new_figure(11.5, 4.4)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    for (name, runs), color in zip(curves.items(), COLORS, strict=True):
        _draw(left, name, runs, lambda run: run["valid"], color)
    log_y(left)
    left.set_xscale("log")
    left.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
    head(left, "validation loss while training")
    reporting.draw_ways(right, accuracies, COLORS, digits=2)
    head(right, "test accuracy in %, seed by seed", legend=False)
    return figure


def _draw(ax: Axes, name: str, runs: Sequence[Mapping[str, Any]], of: Any, color: str) -> None:
    """Windows that were undone are left out, so that each line goes forward."""
    lines, steps = [], np.zeros(0)
    for run in runs:
        steps, values = np.array(run["steps"]), np.array(of(run), float)
        kept = np.array(run.get("status", [0] * len(steps))) != 2
        steps, values = steps[kept], values[kept]
        ax.plot(steps, values, color=color, linewidth=0.8, alpha=0.35)
        lines.append(values)
    length = min(map(len, lines))
    mean = np.mean([line[:length] for line in lines], axis=0)
    ax.plot(steps[:length], mean, color=color, linewidth=2.2, label=name)
    ax.set_xlabel("training step")
    tidy(ax)

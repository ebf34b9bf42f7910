"""Pictures of tuning in real time: where the hyperparameters went, and what came of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hindgrad.apps.report.figures import FAINT, INK, PALETTE, head, log_y, new_figure, tidy

REAL_TIME = (PALETTE["tuned"], PALETTE["TPE"])
"""From both starts."""
COLORS = (PALETTE["defaults"], INK, PALETTE["random"], *REAL_TIME)
"""Of vanilla, the start kept, the search, and real time."""
NAMES = {"rate": "rate", "decay": "momentum decay", "rho": "ρ, weight of the second task"}

Curves = Mapping[str, Sequence[Mapping[str, Any]]]
"""For each arm, each seed's steps, validation losses and hyperparameters."""


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
    rows = np.arange(len(accuracies))[::-1]
    values = np.array(list(accuracies.values()))
    for seed in values.T:
        right.plot(seed, rows, color=FAINT, linewidth=1, zorder=1)
    for found, row, color in zip(values, rows, COLORS, strict=True):
        right.plot(found, [row] * len(found), "o", color=color, markersize=5, zorder=2)
        mean = float(found.mean())
        right.plot([mean, mean], [row - 0.22, row + 0.22], color=color, linewidth=3, zorder=3)
        right.annotate(
            f"{mean:.2f}", (mean, row + 0.27), ha="center", fontsize=9, color=color, weight="bold"
        )
    right.set_yticks(rows, list(accuracies))
    right.set_ylim(-0.5, len(accuracies) - 0.3)
    head(right, "test accuracy in %, seed by seed", legend=False)
    tidy(right, grid="x")
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

"""Pictures of chaos: over the learning rate, and of tunings that begin in it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hindgrad.apps.report.figures import INK, PALETTE, head, log_y, new_figure, tidy

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

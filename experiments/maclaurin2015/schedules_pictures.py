"""Pictures of learned schedules, of their tuning, and of what came of it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hindgrad.apps.report.figures import (
    FAINT,
    INK,
    PALETTE,
    head,
    layer_colors,
    log_y,
    new_figure,
    tidy,
)

BEFORE, AFTER = PALETTE["random"], PALETTE["tuned"]
SECOND = PALETTE["TPE"]

Groups = Float[np.ndarray, "steps groups"]
"""Weights and biases of each layer in turn."""


class Learned(NamedTuple):
    """Learned schedules, and where they began."""

    rate: Groups
    decay: Groups
    start_rate: float
    start_decay: float


class Outer(NamedTuple):
    """Outer losses of several tunings, and the authors' last one (NaN if unknown)."""

    runs: Float[np.ndarray, "runs steps_outer"]
    theirs: float


class Way(NamedTuple):
    """One way of choosing hyperparameters in the comparison, seed by seed."""

    test: Sequence[float]
    color: str


def schedules_figure(learned: Learned) -> Figure:
    """Rates and decays over the steps, a line for each layer, biases apart from weights."""
    figure = new_figure(11.5, 6.6)
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    rows = (
        ("learned rate", learned.rate, learned.start_rate),
        ("learned momentum decay", learned.decay, learned.start_decay),
    )
    for row, (title, values, start) in zip(axes, rows, strict=True):
        for ax, first, what in zip(row, (0, 1), ("weights", "biases"), strict=True):
            _draw_layers(ax, values[:, first::2], start)
            head(ax, f"{title}, {what}", legend=ax is axes[0, 0])
    for ax in axes[0]:
        log_y(ax)
    for ax in axes[1]:
        ax.set_xlabel("training step")
    return figure


def tuning_figure(
    outer: Mapping[str, Outer], curves: tuple[np.ndarray, np.ndarray], steps: int
) -> Figure:
    """The outer loss over the outer steps, and learning curves before and after."""
    figure = new_figure(11.5, 4.4)
    left, right = figure.subplots(1, 2)
    for (name, found), color in zip(outer.items(), (AFTER, SECOND, INK), strict=False):
        x = np.arange(found.runs.shape[1])
        for run in found.runs:
            left.plot(x, run, color=color, linewidth=0.7, alpha=0.35)
        left.plot(x, found.runs.mean(axis=0), color=color, linewidth=2, label=name)
        if np.isfinite(found.theirs):
            left.plot([len(x) - 1], [found.theirs], "D", color=color, markersize=7, clip_on=False)
    log_y(left)
    left.set_xlabel("outer step (diamonds: the authors' ends)")
    head(left, "training loss at the end of each training")
    tidy(left)
    for values, color, name in zip(curves, (BEFORE, AFTER), ("before", "after"), strict=True):
        right.plot(np.arange(steps), values, color=color, linewidth=1.8, label=name)
    log_y(right)
    right.set_xlabel("training step")
    head(right, "loss on each step's batch, before and after tuning")
    tidy(right)
    return figure


def outcome_figure(
    ways: Mapping[str, Way],
    tunings: Mapping[str, tuple[np.ndarray, float]],
    few: Groups,
    each: Groups,
) -> Figure:
    """Test losses, seed by seed; validation losses [seeds, steps_outer] while tuning and, of the
    answers, with fresh seeds; the rates of the weights as few numbers and as one for each step."""
    figure = new_figure(14.5, 4.8)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    _draw_outcome(left, ways)
    for name, (values, fresh) in tunings.items():
        color, x = ways[name].color, np.arange(values.shape[1])
        style = "--" if "one seed" in name else "-"
        middle.plot(x, values.mean(axis=0), style, color=color, linewidth=1.8)
        middle.plot([len(x) - 1], [fresh], "D", color=color, markersize=7, clip_on=False)
    log_y(middle)
    middle.set_xlabel("outer step (dashed: one seed; diamonds: fresh)")
    head(middle, "validation loss while tuning", legend=False)
    tidy(middle)
    for layer, color in enumerate(layer_colors(few.shape[1] // 2)):
        right.plot(each[:, 2 * layer], color=color, linewidth=0.8, alpha=0.6)
        right.plot(few[:, 2 * layer], color=color, linewidth=2.4, label=f"layer {layer + 1}")
    log_y(right)
    right.set_xlabel("training step")
    head(right, "rates of the weights, few and many")
    tidy(right)
    return figure


def _draw_layers(ax: Axes, values: Float[np.ndarray, "steps layers"], start: float) -> None:
    for layer, color in enumerate(layer_colors(values.shape[1])):
        ax.plot(values[:, layer], color=color, linewidth=1.6, label=f"layer {layer + 1}")
    ax.axhline(start, color=INK, linestyle="--", linewidth=1, label="start")
    tidy(ax)


def _draw_outcome(ax: Axes, ways: Mapping[str, Way]) -> None:
    """A dot for each seed, joined from way to way, and a bar at each mean."""
    rows = np.arange(len(ways))[::-1]
    for values in zip(*(way.test for way in ways.values()), strict=True):
        ax.plot(values, rows, color=FAINT, linewidth=1, zorder=1)
    for way, row in zip(ways.values(), rows, strict=True):
        mean = float(np.mean(way.test))
        ax.plot(way.test, [row] * len(way.test), "o", color=way.color, markersize=5, zorder=2)
        ax.plot([mean, mean], [row - 0.22, row + 0.22], color=way.color, linewidth=3, zorder=3)
        ax.annotate(
            f"{mean:.3f}",
            (mean, row + 0.27),
            ha="center",
            fontsize=9,
            color=way.color,
            weight="bold",
        )
    ax.set_yticks(rows, list(ways))
    ax.set_ylim(-0.5, len(ways) - 0.3)
    head(ax, "test loss with fresh seeds", legend=False)
    tidy(ax, grid="x")

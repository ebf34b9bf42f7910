"""A picture of real-time tuning."""

from pathlib import Path

import jax
import numpy as np

from hindgrad.tuning.trajectory import UNDONE, OnlineResult

LINES = 12
"""Of a hyperparameter with more elements, the mean and the range are drawn."""


def plot_online(result: OnlineResult, path: str | Path) -> None:
    """Draws the trajectory of `tune_online` into a PNG file: the losses, and each hyperparameter,
    over the training steps. Crosses are windows that were undone."""
    from hindgrad.apps.report import figures  # slow to import

    steps, tuned = result.trajectory.steps, jax.tree.leaves_with_path(result.trajectory.hyper)
    begins = jax.tree.leaves(result.trajectory.begin)
    figure = figures.new_figure(9.6, 1.2 + 1.9 * (1 + len(tuned)))
    axes = figure.subplots(1 + len(tuned), 1, squeeze=False)[:, 0]
    undone = result.trajectory.status == UNDONE
    ax, values = axes[0], np.where(undone, np.nan, result.trajectory.values)
    x, smooth = _smoothed(result.losses)
    ax.plot(x, smooth, color=figures.PALETTE["defaults"], label="training loss", linewidth=1)
    ax.plot(steps, values, color=figures.PALETTE["tuned"], label="validation loss")
    if undone.any():
        bottom = np.full(undone.sum(), np.nanmin(values))
        ax.plot(steps[undone], bottom, "x", color=figures.INK, label="undone")
    figures.log_y(ax)
    figures.head(ax, "loss")
    changes = np.concatenate([[0], steps])
    for ax, (key, leaf), begin in zip(axes[1:], tuned, begins, strict=True):
        lines = np.concatenate([np.asarray(begin)[None], leaf]).reshape(len(changes), -1)
        if lines.shape[1] > LINES:
            low, high = lines.min(axis=1), lines.max(axis=1)
            ax.fill_between(changes, low, high, color=figures.PALETTE["tuned"], alpha=0.15)
            lines = lines.mean(axis=1, keepdims=True)
        colors = figures.layer_colors(lines.shape[1])
        for values, color in zip(lines.T, colors, strict=True):
            single = lines.shape[1] == 1
            ax.plot(changes, values, color=figures.PALETTE["tuned"] if single else color)
        name = jax.tree_util.keystr(key, simple=True, separator=".") or "hyperparameter"
        figures.head(ax, name, legend=False)
    for ax in axes:
        figures.tidy(ax)
        ax.set_xlim(0, max(len(result.losses), int(steps.max())))
    axes[-1].set_xlabel("training step")
    figures.save(figure, Path(path))


def _smoothed(losses: np.ndarray, points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Means over equal stretches, about `points` of them, and their middles."""
    size = max(1, len(losses) // points)
    count = len(losses) // size
    means = losses[: count * size].reshape(count, size).mean(axis=1)
    return (np.arange(count) + 0.5) * size, means

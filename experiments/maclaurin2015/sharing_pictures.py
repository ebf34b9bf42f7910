"""Pictures of weights that are shared between tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from hindgrad.apps.report.figures import FAINT, INK, PALETTE, head, layer_colors, new_figure, tidy

COLORMAP, NORM = "RdBu_r", Normalize(-1, 1)
MARKERS = ("s", "o", "D")


@dataclass(frozen=True)
class Shared:
    """Who shares weights with whom, and what it brings."""

    correlations: np.ndarray
    """[layers, tasks, tasks], an alphabet next to itself turned."""
    losses: Mapping[str, float]


def layer_names(count: int) -> list[str]:
    """What a network's layers are called."""
    middle = [f"middle layer {i + 1}" for i in range(count - 2)]
    return ["bottom layer", *(["middle layer"] if count == 3 else middle), "top layer"]


def matrices_figure(names: Sequence[str], shown: Mapping[str, Shared]) -> Figure:
    """For each way, the correlations of the tasks' weights, layer by layer."""
    layers, tasks, _ = next(iter(shown.values())).correlations.shape
    figure = new_figure(2.7 * layers + 2.8, 2.7 * len(shown) + 1.1)
    axes = figure.subplots(len(shown), layers, squeeze=False)
    labels = [text for name in names for text in (name, "turned")]
    for ax, name in zip(axes[0], layer_names(layers), strict=True):
        head(ax, name, legend=False)
    for row, (way, found) in zip(axes, shown.items(), strict=True):
        for layer, ax in enumerate(row):
            ax.imshow(found.correlations[layer], cmap=COLORMAP, norm=NORM)
            ax.set_xticks([])
            ax.set_yticks(range(tasks), labels if layer == 0 else [""] * tasks, fontsize=8)
            ax.tick_params(length=0, colors=INK)
            for edge in range(2, tasks, 2):
                ax.axhline(edge - 0.5, color="white", linewidth=0.8)
                ax.axvline(edge - 0.5, color="white", linewidth=0.8)
            for side in ax.spines.values():
                side.set_color(FAINT)
        losses = "\n".join(f"{part} {loss:.2f}" for part, loss in found.losses.items())
        row[-1].annotate(
            f"{way}\n\n",
            (1.06, 0.5),
            xycoords="axes fraction",
            fontsize=11,
            fontweight="bold",
            color=INK,
            va="bottom",
        )
        row[-1].annotate(
            losses, (1.06, 0.52), xycoords="axes fraction", fontsize=10, color=INK, va="center"
        )
    mappable = ScalarMappable(NORM, COLORMAP)
    bar = figure.colorbar(mappable, ax=axes, location="bottom", shrink=0.4, aspect=30)
    bar.set_label("correlation of the tasks' weights (learned: first seed)", color=INK, fontsize=9)
    bar.ax.tick_params(labelsize=8, colors=INK, length=0)
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def outcome_figure(
    losses: Mapping[str, Mapping[str, Sequence[float]]],
    valid: Mapping[int, np.ndarray],
    rotated: np.ndarray,
    others: np.ndarray,
) -> Figure:
    """Losses of each way, the outer loss on the way, and the correlation of pairs by layer; the
    last two are [seeds, layers]."""
    figure = new_figure(13.0, 4.3)
    axes = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
    draw_losses(axes[0], losses)
    draw_tuning(axes[1], valid)
    draw_pairs(axes[2], rotated, others)
    return figure


def draw_losses(ax: Axes, losses: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """A mark for each seed, and a bar at the mean, for each way and each part."""
    parts = list(next(iter(losses.values())))
    rows = np.arange(len(losses))[::-1]
    for i, part in enumerate(parts):
        color = layer_colors(len(parts))[i]
        for row, found in zip(rows, losses.values(), strict=True):
            place, mean = row + 0.22 * (1 - i), float(np.mean(found[part]))
            label = part if row == rows[0] else None
            marks = MARKERS[i % len(MARKERS)]
            line = ax.plot(found[part], [place] * len(found[part]), marks, color=color, label=label)
            line[0].set_markersize(5)
            ax.annotate(
                f"{mean:.2f}",
                (max(found[part]), place),
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
    head(ax, "losses of the tasks, seed by seed")
    tidy(ax, grid="x")


def draw_tuning(ax: Axes, valid: Mapping[int, np.ndarray]) -> None:
    """The outer loss at each outer step, a line for each seed."""
    for values in valid.values():
        ax.plot(np.arange(len(values)), values, color=PALETTE["tuned"], linewidth=1.6, alpha=0.75)
    ax.set_xlabel("outer step")
    head(ax, "validation loss while tuning", legend=False)
    tidy(ax)


def draw_pairs(ax: Axes, rotated: np.ndarray, others: np.ndarray) -> None:
    """The mean correlation of turned pairs, and of the others, layer by layer."""
    x = np.arange(rotated.shape[1])
    kinds = (
        ("an alphabet and itself turned", rotated, PALETTE["tuned"]),
        ("other pairs", others, PALETTE["defaults"]),
    )
    for name, values, color in kinds:
        ax.plot(x, values.mean(axis=0), "o-", color=color, label=name, linewidth=1.8)
        for seed in values:
            ax.plot(x, seed, "o", color=color, markersize=4, alpha=0.4)
    ax.set_xticks(x, [name.removesuffix(" layer") for name in layer_names(len(x))])
    ax.set_xlim(-0.3, len(x) - 0.7)
    ax.set_xlabel("layer")
    head(ax, "correlation of weights")
    tidy(ax)

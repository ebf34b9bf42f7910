"""Pictures of penalties: where they are high, and what finer ones bring."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from experiments.maclaurin2015.sharing_pictures import draw_losses
from hindgrad.apps.report.figures import INK, PALETTE, head, new_figure, tidy

COLORS = (PALETTE["random"], PALETTE["tuned"], PALETTE["TPE"])
COLORMAP = "magma"
ROW = 5
"""Images in a row."""


def maps_figure(
    title: str, names: Sequence[str], penalties: Float[np.ndarray, "maps height width"]
) -> Figure:
    """Penalties as images, one for each class or unit."""
    rows = -(-len(penalties) // ROW)
    figure = new_figure(9.2, 1.95 * rows + 0.6)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold", color=INK)
    axes = figure.subplots(rows, ROW, squeeze=False)
    norm = LogNorm(float(penalties.min()), float(penalties.max()))
    for ax in axes.flat[len(penalties) :]:
        ax.axis("off")
    for ax, name, penalty in zip(axes.flat, names, penalties, strict=False):
        ax.imshow(penalty, cmap=COLORMAP, norm=norm, interpolation="nearest")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_title(name, fontsize=9, color=INK, pad=3)
        for side in ax.spines.values():
            side.set_visible(False)
    bar = figure.colorbar(ScalarMappable(norm, COLORMAP), ax=axes, shrink=0.85, aspect=28)
    bar.set_label("penalty", color=INK, fontsize=9)
    bar.ax.tick_params(which="both", labelsize=8, colors=INK, length=0)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.outline.set_visible(False)  # type: ignore[operator]
    return figure


def outcome_figure(
    histories: Mapping[str, Sequence[Sequence[float]]],
    outcomes: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
) -> Figure:
    """The validation loss while tuning for each way and seed, and losses in the end for each
    model, way and part of the images."""
    figure = new_figure(6.2 * len(outcomes) + 4.2, 4.4)
    axes = figure.subplots(1, 1 + len(outcomes), width_ratios=(1, *[1.35] * len(outcomes)))
    draw_histories(axes[0], histories)
    for ax, (model, losses) in zip(axes[1:], outcomes.items(), strict=True):
        draw_losses(ax, losses)
        head(ax, model)
    return figure


def draw_histories(ax: Axes, histories: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """A line for each seed."""
    for (way, runs), color in zip(histories.items(), COLORS, strict=False):
        for i, values in enumerate(runs):
            label = way if i == 0 else None
            ax.plot(np.arange(len(values)), values, color=color, label=label, linewidth=1.5)
    ax.set_xlabel("outer step")
    head(ax, "logistic regression: validation loss")
    ax.get_legend().remove()  # type: ignore[union-attr]
    ax.legend(frameon=False, fontsize=8.5, loc="upper right")
    tidy(ax)

"""Pictures of learned images, and of what learning them brought."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure

from hindgrad.apps.report.figures import FAINT, INK, PALETTE, head, log_y, new_figure, plain, tidy

SIGNED = "RdBu_r"
"""White at 0, red above, blue below."""

LARGEST = 12
"""A sheet shows at most so many classes, and of each at most so many examples."""

NAMED = 12
"""Longer names of classes are cut."""


def rows_figure(parts: Mapping[str, np.ndarray], labels: Sequence[str], *, title: str) -> Figure:
    """Rows of signed images, [images, height, width] each, with its own scale for each row."""
    count = len(labels)
    figure = new_figure(1.05 * count + 1.2, 1.6 * len(parts) + 0.4)
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold", color=INK)
    panels = figure.subfigures(len(parts), 1, squeeze=False)[:, 0]
    for part, (name, images) in zip(panels, parts.items(), strict=True):
        part.suptitle(name, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
        row = part.subplots(1, count, squeeze=False)[0]
        largest = float(np.abs(images).max()) or 1.0
        shown = [draw_signed(ax, image, largest) for ax, image in zip(row, images, strict=True)]
        for ax, label in zip(row, labels, strict=True):
            ax.set_xlabel(label, color=INK, fontsize=10, labelpad=2)
        bar = part.colorbar(shown[0], ax=list(row), fraction=0.02, pad=0.01)
        bar.set_ticks([-largest, 0, largest], labels=[f"{-largest:.2f}", "0", f"{largest:.2f}"])
        _plain(bar)
    return figure


def sheet_figure(
    images: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, title: str, about: str
) -> Figure:
    """A row for each class with the images learned for it: signed, [images, height, width], on one
    scale; or in colours, [images, height, width, 3 or 4], between 0 and 1."""
    shown = [c for c in range(len(classes)) if (labels == c).any()][:LARGEST]
    across = min(LARGEST, max(int((labels == c).sum()) for c in shown))
    flat = across == 1
    down, across = (1, len(shown)) if flat else (len(shown), across)
    figure = new_figure(max(6.0, 1.0 * across + 1.8), 1.0 * down + 1.1)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    figure.supxlabel(about, x=0.01, ha="left", fontsize=9, color=INK)
    axes = np.array(figure.subplots(down, across, squeeze=False))
    largest = float(np.abs(images).max()) or 1.0
    drawn = None
    for i, c in enumerate(shown):
        row = axes[0, i : i + 1] if flat else axes[i]
        for ax in row:
            _bare(ax)
        for ax, image in zip(row, images[labels == c], strict=False):
            if images.ndim == 3:
                drawn = draw_signed(ax, image, largest)
            else:
                ax.imshow(image)
        name = _short(classes[c])
        if flat:
            row[0].set_title(name, fontsize=10, color=INK, pad=4)
        else:
            row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10, color=INK)
    if drawn is not None:
        bar = figure.colorbar(
            drawn, ax=list(axes.ravel()), fraction=0.03, pad=0.01, aspect=8 * down
        )
        _plain(bar)
    return figure


def draw_signed(ax: Axes, image: np.ndarray, largest: float):
    """One image whose pixels lie between −largest and largest."""
    _bare(ax)
    return ax.imshow(image, cmap=SIGNED, vmin=-largest, vmax=largest)


def outcome_figure(
    curves: Mapping[str, np.ndarray],
    arms: Mapping[str, Sequence[float]],
    *,
    loss: str,
    what: str,
    smaller_is_better: bool,
) -> Figure:
    """The loss while learning, [runs, points] each; and what every way gives, dot by dot."""
    figure = new_figure(12.0, 0.42 * len(arms) + 1.9)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    colors = (PALETTE["tuned"], PALETTE["random"], PALETTE["TPE"])
    for (name, values), color in zip(curves.items(), colors, strict=False):
        x = np.arange(values.shape[1])
        left.fill_between(
            x, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, linewidth=0
        )
        left.plot(x, values.mean(axis=0), color=color, linewidth=1.8, label=name)
    log_y(left)
    left.set_xlabel("outer step")
    head(left, loss, legend=len(curves) > 1)
    tidy(left)
    draw_ways(right, arms, what, smaller_is_better=smaller_is_better)
    return figure


def draw_ways(
    ax: Axes, arms: Mapping[str, Sequence[float]], what: str, *, smaller_is_better: bool
) -> None:
    """A row for each way: a dot for each value, a bar at the mean, and its number."""
    positions = np.arange(len(arms))[::-1]
    low = min(min(values) for values in arms.values())
    high = max(max(values) for values in arms.values())
    room = 0.16 * ((high - low) or 1.0)
    for position, (name, values) in zip(positions, arms.items(), strict=True):
        color = PALETTE["tuned"] if name.startswith("learned") else PALETTE["defaults"]
        mean = float(np.mean(values))
        ax.plot(values, [position] * len(values), "o", color=color, markersize=4.5, alpha=0.6)
        ax.plot([mean] * 2, [position - 0.28, position + 0.28], color=color, linewidth=3)
        ax.annotate(
            f"{mean:.3f}",
            (max(values), position),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=INK,
        )
    ax.set_yticks(positions, list(arms))
    ax.set_ylim(-0.6, len(arms) - 0.4)
    ax.set_xlim(low - room / 3, high + room)
    better = "less is better" if smaller_is_better else "more is better"
    head(ax, f"{what} ({better})", legend=False)
    tidy(ax, grid="x")


def _plain(bar: Colorbar) -> None:
    bar.ax.tick_params(labelsize=8.5, colors=INK, length=0)
    bar.outline.set_visible(False)  # type: ignore[operator]


def _bare(ax: Axes) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_color(FAINT)


def _short(name: str) -> str:
    return plain(name if len(name) <= NAMED else name[: NAMED - 1] + "…")

"""Pictures of suspicious labels."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hindgrad.apps.report.figures import INK, PALETTE, head, new_figure, plain, tidy

CLASSES = 15
"""The picture shows at most so many classes, those with the most suspicious labels."""

SHEET = (5, 12)
"""Rows and columns of the sheet of images."""

RIGHT, WRONG = PALETTE["random"], PALETTE["tuned"]


@dataclass(frozen=True)
class Found:
    """What was found out about the labels."""

    classes: tuple[str, ...]
    weight: np.ndarray
    """[rows], between 0 and 1."""
    label: np.ndarray
    """Class indices, [rows]."""
    likelier: np.ndarray
    """Class indices, [rows]."""
    order: np.ndarray
    """Row numbers, the most suspicious first."""
    suspicious: int
    """How many labels are rather wrong than right."""
    removed: int
    """How many rows are left out."""


def found_figure(found: Found, *, title: str) -> Figure:
    """The weights, and what was labelled as what."""
    figure = new_figure(11.0, 4.9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold", color=INK)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    draw_weights(left, found)
    draw_mistakes(right, found)
    return figure


def draw_weights(ax: Axes, found: Found) -> None:
    """How many rows have which weight."""
    edges = np.linspace(0, 1, 41).tolist()
    removed = np.isin(np.arange(len(found.weight)), found.order[: found.removed])
    parts = [found.weight[removed], found.weight[~removed]]
    names = [f"left out ({found.removed:,})", f"kept ({len(found.weight) - found.removed:,})"]
    ax.hist(parts, edges, stacked=True, color=[WRONG, RIGHT], label=names)
    ax.set_yscale("symlog", linthresh=10)
    ax.set_yticks(*_count_ticks(ax.get_ylim()[1]))
    ax.set_xlim(0, 1)
    ax.set_xlabel("weight: how far the label can be trusted")
    ax.set_ylabel("rows")
    head(ax, "weights of the rows")
    tidy(ax, grid="y")


def draw_mistakes(ax: Axes, found: Found) -> None:
    """How often a suspicious row is labelled as one class and thought to be another."""
    counts = mistakes(found)
    total = counts.sum(axis=0) + counts.sum(axis=1)
    chosen = np.sort(np.argsort(-total, kind="stable")[:CLASSES])
    shown = counts[np.ix_(chosen, chosen)]
    names = [_short(found.classes[i]) for i in chosen]
    ax.imshow(shown, cmap="Reds", vmin=0, vmax=max(1, shown.max()) * 1.3, aspect="auto")
    for i, j in zip(*np.nonzero(shown), strict=True):
        ax.text(j, i, f"{shown[i, j]}", ha="center", va="center", fontsize=8, color=INK)
    slant = 45 if max(map(len, names)) > 3 else 0
    ax.set_xticks(range(len(names)), names, rotation=slant, ha="right" if slant else "center")
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("thought to be")
    ax.set_ylabel("labelled")
    part = "" if len(chosen) == len(found.classes) else f", the {len(chosen)} classes with most"
    head(ax, f"suspicious labels{part}", legend=False)
    tidy(ax)
    ax.grid(False)


def mistakes(found: Found) -> np.ndarray:
    """How many suspicious rows have which label and which likelier class, [classes, classes]."""
    rows = found.order[: found.suspicious]
    counts = np.zeros((len(found.classes),) * 2, int)
    np.add.at(counts, (found.label[rows], found.likelier[rows]), 1)
    return counts


def sheet_figure(found: Found, images: np.ndarray, *, title: str) -> Figure:
    """The most suspicious images, each with its label and the likelier class."""
    down, across = SHEET
    rows = found.order[: min(down * across, len(found.order))]
    down = -(-len(rows) // across)
    figure = new_figure(12.0, 0.9 + 1.35 * down)
    figure.suptitle(
        f"{title}: the most suspicious images, label → likelier",
        x=0.01,
        ha="left",
        fontsize=14,
        fontweight="bold",
        color=INK,
    )
    axes = np.ravel(figure.subplots(down, across))
    for ax in axes:
        ax.set_axis_off()
    for ax, row in zip(axes, rows, strict=False):
        ax.imshow(images[row], cmap="gray_r" if images.ndim == 3 else None)
        label, likelier = (_short(found.classes[c[row]]) for c in (found.label, found.likelier))
        is_other = found.label[row] != found.likelier[row]
        text = f"{label} → {likelier}" if is_other else label
        ax.set_title(text, fontsize=11, color=WRONG if is_other else INK, pad=2)
        ax.text(
            0.5,
            -0.04,
            f"row {row}",
            transform=ax.transAxes,
            ha="center",
            va="top",
            fontsize=7.5,
            color=INK,
        )
    return figure


def as_images(
    x: np.ndarray, shape: tuple[int, ...], like: np.ndarray | None = None
) -> np.ndarray | None:
    """Rows as pictures with values between 0 and 1, [rows, height, width] or [rows, height, width,
    3 or 4]; None if their shape is not that of a picture. The least and the greatest value of the
    rows `like` are 0 and 1; of all unless given."""
    images = x.reshape(-1, *shape)
    if len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4):
        images = np.moveaxis(images, 1, 3)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] not in (3, 4)):
        return None
    of = images if like is None else like
    low, high = float(of.min()), float(of.max())
    return np.clip((images - low) / ((high - low) or 1.0), 0.0, 1.0)


def _count_ticks(most: float) -> tuple[list[int], list[str]]:
    """Ticks for counts on an axis that is linear below 10 and logarithmic above."""
    ticks = [0, 5] + [m * 10**k for k in range(1, 8) for m in (1, 3) if m * 10**k <= most]
    return ticks, [f"{tick:,}" for tick in ticks]


def _short(name: str, length: int = 12) -> str:
    return plain(name if len(name) <= length else name[: length - 1] + "…")

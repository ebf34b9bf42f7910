"""Pictures of data hyper-cleaning: how it tests, what was learned, and which labels look wrong."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hindgrad.apps.report.figures import INK, PALETTE, head, new_figure, tidy

CLEAN, FLIPPED = PALETTE["random"], PALETTE["tuned"]
REFERENCES = (INK, PALETTE["TPE"], PALETTE["defaults"])


class Suspect(NamedTuple):
    """An example taken for corrupted."""

    image: np.ndarray
    """[height, width]"""
    given: str
    """The label it came with."""
    true: str
    """The data set's own label."""


def accuracy_figure(
    tuned: Mapping[str, Sequence[float]], references: Mapping[str, Sequence[float]]
) -> Figure:
    """Test accuracy by radius, a point for each seed; a line for each reference's mean."""
    figure = new_figure(8.4, 4.4)
    ax = figure.subplots()
    positions = np.arange(len(tuned))
    values = np.array(list(tuned.values()))
    for (name, accuracies), color in zip(references.items(), REFERENCES, strict=True):
        mean = float(np.mean(accuracies))
        label = f"{name}: {mean:.2f}"
        ax.axhline(mean, color=color, linestyle="--", linewidth=1.3, zorder=1, label=label)
    for seed in values.T:
        ax.plot(positions, seed, "o", color=FLIPPED, alpha=0.45, markersize=5, zorder=2)
    means = values.mean(axis=1)
    ax.plot(positions, means, "D-", color=FLIPPED, markersize=7, zorder=3, label="cleaned")
    ax.set_xticks(positions, list(tuned))
    ax.set_xlabel("radius R, the bound on the sum of the weights")
    ax.margins(x=0.12)
    head(ax, "test accuracy in %: means, and a point for each seed")
    tidy(ax)
    return figure


def weights_figure(histograms: Mapping[str, Mapping[str, Sequence[int]]]) -> Figure:
    """Where the learned weights lie, for right and for wrong labels; one panel for each radius."""
    figure = new_figure(2.9 * len(histograms) + 0.6, 3.5)
    axes = np.atleast_1d(figure.subplots(1, len(histograms), sharey=True))
    for ax, (radius, counts) in zip(axes, histograms.items(), strict=True):
        for name, color in (("clean", CLEAN), ("flipped", FLIPPED)):
            edges = np.linspace(0, 1, len(counts[name]) + 1)
            ax.stairs(counts[name], edges, fill=True, color=color, alpha=0.45)
            ax.stairs(counts[name], edges, color=color, label=f"{name} labels")
        ax.set_yscale("symlog", linthresh=1)
        ax.set_ylim(bottom=0)
        ax.set_xlabel("learned weight")
        head(ax, f"R = {radius}", legend=ax is axes[0])
        tidy(ax)
    axes[0].set_ylabel("examples")
    return figure


def tuning_figure(
    valid: Mapping[str, Sequence[float]], f1: Mapping[str, Sequence[float]]
) -> Figure:
    """Validation loss and F1 over the outer steps, a line for each radius."""
    figure = new_figure(10.4, 4.2)
    axes = figure.subplots(1, 2)
    for ax, curves, title in (
        (axes[0], valid, "validation loss"),
        (axes[1], f1, "F1 of finding the flipped labels"),
    ):
        for (radius, values), color in zip(curves.items(), _shades(len(curves)), strict=True):
            ax.plot(values, color=color, linewidth=1.8, label=f"R = {radius}")
        ax.set_xlabel("outer step")
        ax.set_xlim(0, max(1, *(len(values) - 1 for values in curves.values())))
        head(ax, title)
        tidy(ax)
    axes[1].set_ylim(0, 1)
    return figure


def suspects_figure(worst: Sequence[Suspect], odd: Sequence[Suspect]) -> Figure:
    """The most suspicious examples of all, and of those whose label is the data set's own."""
    columns = 16
    rows = [-(-len(group) // columns) for group in (worst, odd)]
    figure = new_figure(11.5, 1.05 * sum(rows) + 1.2)
    parts = np.ravel(figure.subfigures(2, 1, height_ratios=[r + 0.45 for r in rows]))  # type: ignore[arg-type]
    titles = (
        "The most suspicious labels: given, and in brackets the true one",
        "Suspected wrongly: the most suspicious labels that are the data set's own",
    )
    for part, group, count, title in zip(parts, (worst, odd), rows, titles, strict=True):
        part.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold", color=INK)
        axes = np.ravel(part.subplots(max(count, 1), columns))
        for ax in axes:
            ax.axis("off")
        for ax, suspect in zip(axes, group, strict=False):
            _draw_suspect(ax, suspect)
    return figure


def _draw_suspect(ax: Axes, suspect: Suspect) -> None:
    ax.imshow(suspect.image, cmap="gray_r", interpolation="nearest")
    wrong = suspect.given != suspect.true
    text = f"{suspect.given} ({suspect.true})" if wrong else suspect.given
    ax.set_title(text, fontsize=9, pad=2, color=FLIPPED if wrong else CLEAN)


def _shades(count: int) -> list:
    """Colors that go from the references' to the flipped labels', for radii in order."""
    from matplotlib import colormaps

    return list(colormaps["viridis"](np.linspace(0.08, 0.8, count)))

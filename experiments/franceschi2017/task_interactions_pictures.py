"""Pictures of task interactions: who is tied to whom, and what it brought."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hindgrad.apps.report.figures import FAINT, INK, PALETTE, head, new_figure, tidy

COLORS = (PALETTE["defaults"], PALETTE["random"], PALETTE["TPE"], PALETTE["tuned"])
GROUP_COLORS = ("#2f7fb5", "#c2571a", "#3f8f5b")


@dataclass(frozen=True)
class Graph:
    """Tasks, and how strongly each pair is tied."""

    names: list[str]
    groups: list[str]
    """Which kind each task is of."""
    strengths: np.ndarray
    """[tasks, tasks], symmetric and not negative."""

    def order(self) -> np.ndarray:
        """An order in which tasks that are tied come close: along the Fiedler vector, the second
        eigenvector of the normalised Laplacian (Atkins, Boman and Hendrickson 1998)."""
        weights = self.strengths + 1e-3 * self.strengths.mean() + 1e-12
        np.fill_diagonal(weights, 0)
        root = np.sqrt(weights.sum(axis=1))
        normalised = np.eye(len(weights)) - weights / np.outer(root, root)
        return np.argsort(np.linalg.eigh(normalised)[1][:, 1] / root)

    def strongest(self, count: int) -> list[tuple[int, int]]:
        """The pairs that are tied most, the strongest first."""
        upper = np.triu(self.strengths, 1)
        rows, columns = np.unravel_index(np.argsort(-upper, axis=None)[:count], upper.shape)
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return [(i, j) for i, j in pairs if upper[i, j] > 0]

    def color(self, task: int) -> str:
        kinds = sorted(set(self.groups))
        return GROUP_COLORS[kinds.index(self.groups[task]) % len(GROUP_COLORS)]


def graph_figure(title: str, accuracies: Mapping[str, Sequence[float]], graph: Graph) -> Figure:
    """The ways' test accuracies, the learned graph, and all its strengths."""
    figure = new_figure(14.5, 5.6)
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    axes = figure.subplots(1, 3, width_ratios=(1.05, 1.1, 1.15))
    draw_accuracies(axes[0], accuracies)
    draw_graph(axes[1], graph)
    draw_strengths(axes[2], graph)
    return figure


def draw_accuracies(ax: Axes, accuracies: Mapping[str, Sequence[float]]) -> None:
    """A dot for each split, joined from way to way, and a bar at each mean."""
    values = np.array(list(accuracies.values()))
    rows = np.arange(len(values))[::-1]
    for split in values.T:
        ax.plot(split, rows, color=FAINT, linewidth=1.2, zorder=1)
    for line, row, color in zip(values, rows, COLORS, strict=True):
        mean = line.mean()
        ax.plot(line, [row] * len(line), "o", color=color, markersize=5, zorder=2)
        ax.plot([mean, mean], [row - 0.2, row + 0.2], color=color, linewidth=3, zorder=3)
        text = f"{mean:.2f} %"
        ax.annotate(text, (mean, row + 0.24), ha="center", fontsize=10, color=color, weight="bold")
    ax.set_yticks(rows, list(accuracies))
    ax.set_ylim(-0.4, len(values) - 0.45)
    head(ax, "test accuracy in %, split by split", legend=False)
    tidy(ax, grid="x")


def draw_graph(ax: Axes, graph: Graph) -> None:
    """Tasks on a circle; the stronger the tie, the wider the line."""
    count = len(graph.names)
    angle = np.empty(count)
    angle[graph.order()] = 2 * np.pi * np.arange(count) / count
    place = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    pairs = graph.strongest(2 * count)
    most = max(graph.strengths.max(), np.finfo(float).tiny)
    for i, j in reversed(pairs):
        share = graph.strengths[i, j] / most
        ends = place[[i, j]]
        # Bent towards the centre, so that lines between neighbours stay apart.
        curve = _bent(ends[0], ends[1])
        ax.plot(*curve.T, color=INK, linewidth=0.4 + 5 * share, alpha=0.15 + 0.65 * share, zorder=1)
    for task, (x, y) in enumerate(place):
        ax.plot(x, y, "o", color=graph.color(task), markersize=7 if count <= 20 else 5, zorder=2)
        turn = np.degrees(angle[task])
        flipped = 90 < turn % 360 < 270
        short = max(map(len, graph.names)) <= 2
        ax.text(
            1.09 * x,
            1.09 * y,
            graph.names[task],
            color=graph.color(task),
            fontsize=11,
            rotation=0 if short else (turn + 180 if flipped else turn),
            rotation_mode="anchor",
            ha="center" if short else ("right" if flipped else "left"),
            va="center",
        )
    for kind in sorted(set(graph.groups)):
        task = graph.groups.index(kind)
        ax.plot([], [], "o", color=graph.color(task), label=kind)
    room = 1.2 if count > 20 else 1.65
    ax.set(xlim=(-room, room), ylim=(-room, room), aspect="equal")
    ax.set_anchor("N")
    ax.axis("off")
    head(ax, f"the {len(pairs)} strongest ties, mean over the splits")


def _bent(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """A quadratic curve between two points on a circle, through a point nearer the centre."""
    t = np.linspace(0, 1, 40)[:, None]
    middle = 0.75 * (start + end) / 2
    return (1 - t) ** 2 * start[None] + 2 * t * (1 - t) * middle[None] + t**2 * end[None]


def draw_strengths(ax: Axes, graph: Graph) -> None:
    """All strengths, the tasks in the order of the graph."""
    order = graph.order().tolist()
    shown = graph.strengths[np.ix_(order, order)]
    image = ax.imshow(shown, cmap="magma_r", interpolation="nearest", vmin=0)
    names = [graph.names[i] for i in order]
    ax.set_xticks([])
    ax.set_yticks(range(len(names)), names, fontsize=6.5 if len(names) > 20 else 9.5)
    for label, task in zip(ax.get_yticklabels(), order, strict=True):
        label.set_color(graph.color(task))
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.6)
    ax.set_anchor("N")
    top = image.get_clim()[1]
    bar.set_ticks([0, top], labels=["0", f"{top:.1e}"])
    bar.ax.tick_params(labelsize=8, colors=INK, length=0)
    bar.outline.set_visible(False)  # type: ignore[operator]
    head(ax, "all interactions C, in the same order", legend=False)

"""What `task_interactions` leaves behind: a table, words and pictures, made from its results."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from experiments import reporting
from experiments.reporting import mean_sd
from experiments.runner import Results
from hindgrad.apps.report.figures import INK, PALETTE, head, new_figure

SINGLE, SHARED = "single task", "one shared strength"
LEARNED, SPARSE = "learned interactions", "learned and sparse"

MEASURES = {
    "test": ("test, %", 2),
    "retrained": ("retrained, %", 2),
    "valid_loss": ("valid loss", 2),
    "test_loss": ("test loss", 2),
    "rho": ("ρ", 5),
    "total": ("Σ C", 4),
}
"""What is kept of each way, and with how many digits it is shown. Test accuracy is that of a model
trained on the training examples, and retrained on those and the validation examples."""

PRINTED = ("test", "retrained", "valid_loss", "test_loss")
"""What fits on a screen."""

NAMED = 6
"""How many of the strongest ties are named."""

Found = Mapping[str, Any]
"""The results on one data set."""

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


def write(results: Results, folder: Path) -> None:
    """Writes the tables and pictures into a folder."""
    reporting.write_csv(folder / "table.csv", ("data", "way", "seed", *MEASURES), _singles(results))
    columns = ("data", "way", *(title for title, _ in MEASURES.values()))
    rows, pictures = [], {}
    for name, found in results["found"].items():
        rows += [[name, *row] for row in _rows(found, MEASURES)]
        accuracies = {way: _values(found, way, "test") for way in found["ways"]}
        title = f"{name}: {len(found['names'])} classes as tasks"
        pictures[name] = graph_figure(title, accuracies, _graph(found, SPARSE))
    reporting.write_markdown(folder, reporting.markdown(columns, rows, words=2))
    reporting.save(folder, pictures)


def table(results: Results) -> Table:
    """The paper's table, for each data set."""
    splits = reporting.times(results["call"]["seeds"], "split")
    title = f"Test accuracy and losses, mean ± deviation over {splits}"
    shown = reporting.table(title, ("", *(MEASURES[measure][0] for measure in PRINTED)), ())
    for name, found in results["found"].items():
        shown.add_row(f"[bold]{name}[/]")
        for row in _rows(found, PRINTED):
            shown.add_row(*row)
        shown.add_section()
    return shown


def summary(results: Results) -> list[str]:
    """The outcome in words, whichever way it went."""
    call, lines = results["call"], []
    for (name, found), rows in zip(results["found"].items(), call["rows"], strict=True):
        lines += _summary(name, found, rows)
    lines.append(
        "One shared strength is the same model as a larger ρ, since the weights of a softmax "
        "regression that begins at zero sum to zero over the classes: the first two rows differ "
        "only by their tuning."
    )
    return lines


def _summary(name: str, found: Found, rows: int) -> list[str]:
    tasks = len(found["names"])
    labelled = rows * tasks
    found = {**found, "redrawn": found["examples"] / (2 * labelled) - 1}
    lines = [
        f"{name}: {tasks} tasks, {labelled} training and {labelled} validation examples, "
        f"{found['examples'] - 2 * labelled:,} for the test.",
        f"{_order(found)} Against a single task, split by split: {LEARNED} "
        f"{_gain(found, LEARNED)}; {SPARSE} {_gain(found, SPARSE)}.",
    ]
    if not _clearly_better(found, LEARNED, SINGLE):
        loss = [
            _mean(found, way, measure)
            for measure in ("valid_loss", "test_loss")
            for way in (SINGLE, LEARNED)
        ]
        lines.append(
            f"Learned interactions without a bound are {tasks * (tasks - 1) // 2} numbers fitted "
            f"to {labelled} validation examples: the validation loss goes from {loss[0]:.3f} to "
            f"{loss[1]:.3f}, the test loss from {loss[2]:.3f} to {loss[3]:.3f}."
        )
    again = [f"{way} {_mean(found, way, 'retrained'):.2f} %" for way in (SINGLE, LEARNED, SPARSE)]
    lines.append(f"Retrained on training and validation examples together: {', '.join(again)}.")
    graph = _graph(found, SPARSE)
    ties = ", ".join(_tie(graph, i, j) for i, j in graph.strongest(NAMED))
    lines.append(f"Strongest ties: {ties}. {_agreement(found)}")
    return lines


def _order(found: Found) -> str:
    """Whether the paper's order came out, among the ways that are different models."""
    mean = {way: _mean(found, way, "test") for way in (SINGLE, LEARNED, SPARSE)}
    ranked = " < ".join(sorted(mean, key=mean.__getitem__))
    if max(mean[SINGLE], _mean(found, SHARED, "test")) >= mean[LEARNED]:
        return f"The paper's order does not come out; here {ranked}."
    if mean[LEARNED] >= mean[SPARSE]:
        return f"The paper's order comes out but for the bound; here {ranked}."
    words = f"The paper's order comes out: {ranked}."
    steps = [(SINGLE, LEARNED), (LEARNED, SPARSE)]
    noise = [f"{low} < {high}" for low, high in steps if not _clearly_better(found, high, low)]
    return f"{words} Within the noise of the splits: {', '.join(noise)}." if noise else words


def _clearly_better(found: Found, way: str, rival: str) -> bool:
    """Whether the interval of the difference of accuracies is above zero."""
    own, others = (_values(found, name, "test") for name in (way, rival))
    return reporting.difference(own, others, found["redrawn"]).low > 0


def _gain(found: Found, way: str) -> str:
    """The gain in accuracy over the single task."""
    own, others = (_values(found, name, "test") for name in (way, SINGLE))
    return reporting.gain(own, others, " points", found["redrawn"])


def _tie(graph: Graph, i: int, j: int) -> str:
    kinds = graph.groups[i], graph.groups[j]
    clear = len({*graph.names}) == len(graph.names) and max(map(len, graph.names)) > 2
    one, other = (
        graph.names[k] if clear else f"{kind} {graph.names[k]}"
        for k, kind in zip((i, j), kinds, strict=True)
    )
    return f"{one} – {other}"


def _agreement(found: Found) -> str:
    """How alike the splits' interactions are."""
    runs = found["ways"][SPARSE]
    upper = np.triu_indices(len(found["names"]), 1)
    learned = np.array([np.array(run["C"])[upper] for run in runs])
    if len(runs) < 2 or (np.ptp(learned, axis=1) == 0).any():
        return "One split says nothing about how stable they are."
    correlations = np.corrcoef(learned)[np.triu_indices(len(runs), 1)]
    return f"Interactions of two splits have a mean correlation of {correlations.mean():.2f}."


def _graph(found: Found, way: str) -> Graph:
    """The mean interactions of a way."""
    strengths = np.mean([run["C"] for run in found["ways"][way]], axis=0)
    return Graph(found["names"], found["groups"], strengths)


def _rows(found: Found, measures: Iterable[str]) -> list[list[str]]:
    """A line for each way."""
    rows = []
    for way in found["ways"]:
        cells = [mean_sd(_values(found, way, name), MEASURES[name][1]) for name in measures]
        rows.append([way, *cells])
    return rows


def _values(found: Found, way: str, measure: str) -> list[float]:
    runs = found["ways"][way]
    if measure == "total":
        return [float(np.sum(run["C"])) for run in runs]
    return [run[measure] for run in runs]


def _mean(found: Found, way: str, measure: str) -> float:
    return float(np.mean(_values(found, way, measure)))


def _singles(results: Results) -> Iterator[list[Any]]:
    """One line for each data set, way and split."""
    for name, found in results["found"].items():
        for way, runs in found["ways"].items():
            columns = [_values(found, way, measure) for measure in MEASURES]
            for run, *cells in zip(runs, *columns, strict=True):
                yield [name, way, run["seed"], *cells]


def graph_figure(title: str, accuracies: Mapping[str, Sequence[float]], graph: Graph) -> Figure:
    """The ways' test accuracies, the learned graph, and all its strengths."""
    figure = new_figure(14.5, 5.6)
    reporting.caption(figure, title, size=13)
    axes = figure.subplots(1, 3, width_ratios=(1.05, 1.1, 1.15))
    reporting.draw_ways(axes[0], accuracies, COLORS, digits=2)
    head(axes[0], "test accuracy in %, split by split", legend=False)
    draw_graph(axes[1], graph)
    draw_strengths(axes[2], graph)
    return figure


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
    reporting.bare(ax)
    ax.set_yticks(range(len(names)), names, fontsize=6.5 if len(names) > 20 else 9.5)
    for label, task in zip(ax.get_yticklabels(), order, strict=True):
        label.set_color(graph.color(task))
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.6)
    ax.set_anchor("N")
    top = image.get_clim()[1]
    bar.set_ticks([0, top], labels=["0", f"{top:.1e}"])
    reporting.tidy_bar(bar)
    head(ax, "all interactions C, in the same order", legend=False)

"""What `task_interactions` leaves behind: a table, words and pictures, made from its results."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from experiments.franceschi2017 import task_interactions_pictures as task_graph
from experiments.franceschi2017.task_interactions_pictures import Graph
from hindgrad.apps.report import figures
from hindgrad.apps.report.tables import Arm, Paired, paired, titled

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

Results = dict[str, Any]
Found = Mapping[str, Any]
"""The results on one data set."""


def write(results: Results, folder: Path) -> None:
    """Writes the tables and pictures into a folder."""
    _write_csv(results, folder / "table.csv")
    columns = ["data", "way", *(title for title, _ in MEASURES.values())]
    lines = [columns, ["---", "---"] + ["---:"] * len(MEASURES)]
    for name, found in results["found"].items():
        lines += [[name, *row] for row in _rows(found, MEASURES)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    (folder / "table.md").write_text(text + "\n")
    for name, found in results["found"].items():
        accuracies = {way: _values(found, way, "test") for way in found["ways"]}
        title = f"{name}: {len(found['names'])} classes as tasks"
        figure = task_graph.graph_figure(title, accuracies, _graph(found, SPARSE))
        figures.save(figure, folder / f"{name}.png")


def table(results: Results) -> Table:
    """The paper's table, for each data set."""
    splits = results["call"]["seeds"]
    shown = titled(
        f"Test accuracy and losses, mean ± deviation over {splits} split{'s' * (splits > 1)}"
    )
    shown.add_column("", no_wrap=True)
    for measure in PRINTED:
        shown.add_column(MEASURES[measure][0], justify="right", no_wrap=True)
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
    lines = [
        f"{name}: {tasks} tasks, {labelled} training and {labelled} validation examples, "
        f"{found['examples'] - 2 * labelled:,} for the test.",
        f"{_order(found)} Against a single task, split by split: {LEARNED} "
        f"{_gain(found, LEARNED)}; {SPARSE} {_gain(found, SPARSE)}.",
    ]
    if not _compared(found, LEARNED).high < 0:
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
    noise = [f"{low} < {high}" for low, high in steps if not _compared(found, high, low).high < 0]
    return f"{words} Within the noise of the splits: {', '.join(noise)}." if noise else words


def _compared(found: Found, way: str, rival: str = SINGLE) -> Paired:
    """A way's errors minus a rival's, split by split."""
    error = lambda name: Arm(name, [], {"error": 100 - np.array(_values(found, name, "test"))})
    return paired(error(way), error(rival), "error")


def _gain(found: Found, way: str) -> str:
    """The paired difference of accuracies from the single task, with its 95 % interval."""
    difference = _compared(found, way)
    words = f"{-difference.mean:+.2f} points"
    if not np.isnan(difference.low):
        words += f" [{-difference.high:+.2f}, {-difference.low:+.2f}]"
    return f"{words}, higher on {difference.wins} of {difference.seeds}"


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
        cells = [_spread(_values(found, way, name), MEASURES[name][1]) for name in measures]
        rows.append([way, *cells])
    return rows


def _values(found: Found, way: str, measure: str) -> list[float]:
    runs = found["ways"][way]
    if measure == "total":
        return [float(np.sum(run["C"])) for run in runs]
    return [run[measure] for run in runs]


def _mean(found: Found, way: str, measure: str) -> float:
    return float(np.mean(_values(found, way, measure)))


def _spread(values: list[float], digits: int) -> str:
    tail = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{tail}"


def _write_csv(results: Results, path: Path) -> None:
    """One line for each data set, way and split."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["data", "way", "seed", *MEASURES])
        for name, found in results["found"].items():
            for way, runs in found["ways"].items():
                columns = [_values(found, way, measure) for measure in MEASURES]
                for run, *cells in zip(runs, *columns, strict=True):
                    writer.writerow([name, way, run["seed"], *cells])

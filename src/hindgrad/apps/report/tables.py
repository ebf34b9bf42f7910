"""Comparing several ways over several seeds: means, spreads, paired differences, tables."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text
from scipy import stats

from hindgrad.apps.report import page

METRICS = ("valid_loss", "valid_error", "test_loss", "test_error")


@dataclass(frozen=True)
class Arm:
    """One way of choosing hyperparameters, and how it did on each seed."""

    name: str
    evaluations: Sequence[int]
    """How many training gradients it took on each seed."""
    values: dict[str, np.ndarray]
    """For each of `METRICS`, one number for each seed."""

    def mean(self, metric: str) -> float:
        return float(np.mean(self.values[metric]))

    def spread(self, metric: str) -> float:
        """The standard deviation over the seeds (NaN for one seed, or if a run blew up)."""
        values = self.values[metric]
        if len(values) < 2 or not np.all(np.isfinite(values)):
            return float("nan")
        return float(np.std(values, ddof=1))


@dataclass(frozen=True)
class Paired:
    """The difference of one arm from another, seed by seed; below zero is better."""

    rival: str
    metric: str
    mean: float
    low: float
    high: float
    """The 95 % interval of the mean (NaN for one seed)."""
    wins: int
    seeds: int


def paired(arm: Arm, rival: Arm, metric: str, redrawn: float = 0.0) -> Paired:
    """Compares an arm with a rival over the seeds that both ran, by Student's t.

    Where each seed draws its test rows from the same rows, `redrawn` is how many these are for each
    that is learned from (to train and to validate on): such differences depend on one another, and
    their mean's variance is so much larger than a `1/n` of theirs ([Nadeau and Bengio
    2003](https://doi.org/10.1023/A:1024068626366)).
    """
    difference = np.asarray(arm.values[metric]) - np.asarray(rival.values[metric])
    n, mean = len(difference), float(np.mean(difference))
    half = float("nan")
    if n > 1 and np.isfinite(mean):
        error = np.std(difference, ddof=1) * np.sqrt(1 / n + redrawn)
        half = float(stats.t.ppf(0.975, n - 1) * error)
    wins = int(np.sum(difference < 0))
    return Paired(rival.name, metric, mean, mean - half, mean + half, wins, n)


def headings(error: str) -> dict[str, str]:
    """What the metrics are called, given the name of the error."""
    return {
        "valid_loss": "valid loss",
        "valid_error": f"valid {error}",
        "test_loss": "test loss",
        "test_error": f"test {error}",
    }


def results_table(arms: Sequence[Arm], error: str, seeds: int, beside: Sequence[Arm] = ()) -> Table:
    """The means ± spreads of the arms and of what is shown beside them, the best of each column in
    bold."""
    table = titled(f"Mean ± standard deviation over {_count(seeds, 'seed')}; {_budget(arms)}")
    table.add_column("", no_wrap=True)
    for heading in headings(error).values():
        table.add_column(heading, justify="right", no_wrap=True)
    every = [*arms, *beside]
    for arm in every:
        cells = []
        for metric in METRICS:
            best = arm.mean(metric) <= min(other.mean(metric) for other in every)
            text = show(arm.mean(metric), arm.spread(metric))
            cells.append(f"[bold]{text}[/]" if best else text)
        table.add_row(arm.name, *cells, end_section=bool(beside) and arm is arms[-1])
    return table


RECALL = "Test rows of each class that are predicted as it, in the mean over the seeds"


def recall_table(recalls: Mapping[str, Sequence[float]], classes: Sequence[str]) -> Table:
    """Each arm's recall of some classes."""
    table = titled(RECALL)
    table.add_column("", no_wrap=True)
    for name in classes:
        table.add_column(Text(name), justify="right")  # a name may have brackets
    for arm, values in recalls.items():
        table.add_row(arm, *map(show_share, values))
    return table


def show_share(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.0%}"


def paired_table(comparisons: Sequence[Paired], error: str, name: str) -> Table:
    """The paired differences."""
    table = titled(f"{name.capitalize()} minus each, paired by seed; below zero is better")
    table.add_column("", no_wrap=True)
    table.add_column("of", no_wrap=True)
    table.add_column("mean [95 % interval]", justify="right", no_wrap=True)
    table.add_column("lower on", justify="right", no_wrap=True)
    for c in comparisons:
        of = headings(error)[c.metric]
        table.add_row(c.rival, of, show_interval(c), f"{c.wins} of {c.seeds}")
    return table


def titled(title: str) -> Table:
    """An empty table, as all of them look."""
    return Table(
        title=Text(title, style="bold"),  # a name in it may have brackets
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,  # so that it fits into 80 columns
        caption=" ",  # a line between it and what follows
        min_width=min(cell_len(title), 79),  # a title would be folded to the table's width
    )


def _budget(arms: Sequence[Arm]) -> str:
    budget = max(max(arm.evaluations) for arm in arms)
    return f"{budget:,} training gradients each" if budget else "nothing tuned"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" + ("" if number == 1 else "s")


def show(mean: float, spread: float) -> str:
    """A mean with its spread, four digits after the point, or one if it is large."""
    digits = 4 if abs(mean) < 10 else 1
    tail = "" if np.isnan(spread) else f" ±{spread:.{digits}f}".replace("±0.", "±.")
    return f"{mean:.{digits}f}{tail}"


def show_interval(comparison: Paired) -> str:
    digits = 4 if abs(comparison.mean) < 10 else 1
    mean = f"{comparison.mean:+.{digits}f}"
    if np.isnan(comparison.low):
        return mean
    return f"{mean} [{comparison.low:+.{digits}f}, {comparison.high:+.{digits}f}]"


def write_csv(path: Path, arms: Sequence[Arm], seeds: Sequence[int]) -> None:
    """One line for each arm and seed."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "seed", "training_gradients", *METRICS])
        for arm in arms:
            for i, seed in enumerate(seeds):
                values = [arm.values[metric][i] for metric in METRICS]
                writer.writerow([arm.name, seed, arm.evaluations[i], *values])


def page_tables(
    arms: Sequence[Arm], comparisons: Sequence[Paired], error: str, name: str
) -> list[page.Table]:
    """Both tables for a page; the comparisons are those of the arm of this name."""
    names = headings(error)
    rows = [
        [
            arm.name,
            *(show(arm.mean(metric), arm.spread(metric)) for metric in METRICS),
            f"{max(arm.evaluations):,}",
        ]
        for arm in arms
    ]
    titles = ["", *names.values(), "training gradients"]
    means = "Means ± standard deviations over the seeds"
    found = [page.Table(titles, rows, frozenset(range(1, len(titles))), means)]
    if comparisons:
        rows = [
            [c.rival, names[c.metric], show_interval(c), f"{c.wins} of {c.seeds}"]
            for c in comparisons
        ]
        titles = ["difference from", "of", "mean [95 % interval]", "lower on"]
        about = f"{name.capitalize()} minus each, paired by seed; below zero is better"
        found.append(page.Table(titles, rows, frozenset({2, 3}), about))
    return found


def write_markdown(
    path: Path,
    arms: Sequence[Arm],
    comparisons: Sequence[Paired],
    error: str,
    words: Sequence[str],
    further: Sequence[str] = (),
) -> None:
    """A summary in words, both tables, and further lines."""
    names = headings(error)
    columns = ["", *names.values(), "training gradients"]
    lines = [*words, ""]
    lines += [_row(columns), _row(["---"] + ["---:"] * (len(columns) - 1))]
    for arm in arms:
        cells = [show(arm.mean(metric), arm.spread(metric)) for metric in METRICS]
        lines.append(_row([arm.name, *cells, f"{max(arm.evaluations):,}"]))
    if comparisons:
        lines += ["", _row(["difference from", "of", "mean [95 % interval]", "lower on"])]
        lines.append(_row(["---", "---", "---:", "---:"]))
    for c in comparisons:
        wins = f"{c.wins} of {c.seeds}"
        lines.append(_row([c.rival, names[c.metric], show_interval(c), wins]))
    path.write_text("\n".join([*lines, *further]) + "\n", encoding="utf-8")


def recall_page(recalls: Mapping[str, Sequence[float]], classes: Sequence[str]) -> page.Table:
    """The table of recalls for a page."""
    rows = [[arm, *map(show_share, values)] for arm, values in recalls.items()]
    return page.Table(["", *classes], rows, frozenset(range(1, len(classes) + 1)), RECALL)


def recall_markdown(recalls: Mapping[str, Sequence[float]], classes: Sequence[str]) -> list[str]:
    """The lines of the table of recalls."""
    escaped = [name.replace("|", "\\|").replace("\n", " ") for name in classes]
    head = ["", _row(["recall of", *escaped]), _row(["---"] + ["---:"] * len(classes))]
    return head + [_row([arm, *map(show_share, values)]) for arm, values in recalls.items()]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"

"""What `schedules` leaves behind: tables, words and pictures, made from its results."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table

from experiments import reporting
from experiments.reporting import mean_sd
from experiments.runner import Results
from hindgrad.apps.report.figures import (
    INK,
    PALETTE,
    head,
    layer_colors,
    log_y,
    new_figure,
    tidy,
)
from hindgrad.apps.report.tables import show_interval

THEIRS, OURS = "each step, their Adam", "few knots, our Adam"
START, EARLY, LATE = "start", "TPE", "TPE, longer"
EACH_FIXED, EACH_FRESH = "each step, one seed", "each step, fresh seeds"
FEW_FIXED, FEW_FRESH = "few knots, one seed", "few knots, fresh seeds"
COLORS = {
    START: PALETTE["defaults"],
    EARLY: PALETTE["TPE"],
    LATE: "#b3760c",
    EACH_FIXED: "#7fb2d6",
    EACH_FRESH: PALETTE["random"],
    FEW_FIXED: "#e89aa3",
    FEW_FRESH: PALETTE["tuned"],
}

PAPER_STARTS = {
    "0.5": {"train": 0.5314, "valid": 0.6011, "valid_error": 0.1788},
    "0.9": {"train": 0.6384, "valid_error": 0.2158},
}
"""In the authors' records; they do not say of which images the error is."""
PAPER_ENDS = {
    "0.5": {"train": 0.12, "valid": 0.24},
    "0.9": {"train": 0.1411, "valid_error": 0.0751},
}
"""The first is read off their figure."""
PAPER_SEARCH = {"train": 0.15564, "valid": 0.3118, "error": 0.091}

MEASURES = {
    "train": "training loss",
    "valid": "valid loss",
    "test": "test loss",
    "valid_error": "valid error",
    "test_error": "test error",
}
COLUMNS = ("by the validation loss", "numbers", "trainings", *MEASURES.values(), "valid, own seed")

BEFORE, AFTER = PALETTE["random"], PALETTE["tuned"]
SECOND = PALETTE["TPE"]

Groups = Float[np.ndarray, "steps groups"]
"""Weights and biases of each layer in turn."""


class Learned(NamedTuple):
    """Learned schedules, and where they began."""

    rate: Groups
    decay: Groups
    start_rate: float
    start_decay: float


class Outer(NamedTuple):
    """Outer losses of several tunings, and the authors' last one (NaN if unknown)."""

    runs: Float[np.ndarray, "runs steps_outer"]
    theirs: float


def write(results: Results, folder: Path) -> None:
    """Writes the tables and the pictures into a folder."""
    columns = ("arm", "seed", "numbers", "trainings", *MEASURES, "valid_own_seed")
    reporting.write_csv(folder / "table.csv", columns, _singles(results))
    first = reporting.markdown(("by the training loss", *MEASURES.values()), _author_rows(results))
    reporting.write_markdown(folder, first, reporting.markdown(COLUMNS, _rows(results)))
    reporting.save(folder, _pictures(results))


def _singles(results: Results) -> Iterator[list[Any]]:
    for run in results["comparison"]["runs"]:
        for name, arm in run["arms"].items():
            values = [arm["judged"][measure] for measure in MEASURES]
            cost = [arm["numbers"], arm["trainings"]]
            yield [name, run["seed"], *cost, *values, arm["own"]["valid"]]


def _pictures(results: Results) -> dict[str, Figure]:
    call, runs = results["call"], results["authors"]["runs"]
    main = f"{THEIRS} {call['decays'][0]:g}"
    learned = lambda what: np.mean([run["learned"][what] for run in runs[main]], axis=0)
    start = np.exp(call["log_rate"]), call["decays"][0]
    pictured = Learned(learned("rate"), learned("decay"), *start)
    outer = {
        _of_decay(name): Outer(
            np.array([run["outer"] for run in found]),
            _paper_end(results, name).get("train", np.nan),
        )
        for name, found in runs.items()
    }
    curve = lambda when: np.mean([run[when]["curve"] for run in runs[main]], axis=0)
    curves = curve("before"), curve("after")
    compared = results["comparison"]["runs"]
    # The start is so far away that it would hide the other differences.
    ways = {name: _values(results, name, "test") for name in COLORS if name != START}
    tunings = {
        name: (
            np.array([run["arms"][name]["outer"] for run in compared]),
            float(np.mean(_values(results, name, "valid"))),
        )
        for name in (EACH_FIXED, EACH_FRESH, FEW_FIXED, FEW_FRESH)
    }
    few, each = (
        np.array(compared[0]["arms"][name]["learned"]["rate"]) for name in (FEW_FRESH, EACH_FRESH)
    )
    return {
        "learned": schedules_figure(pictured),
        "tuning": tuning_figure(outer, curves, call["steps"]),
        "outcome": outcome_figure(ways, tunings, few, each),
    }


def _of_decay(name: str) -> str:
    way, decay = name.rsplit(" ", 1)
    return f"decay {decay}" + (f", {way}" if way == OURS else "")


def _paper(results: Results, figures: dict[str, dict[str, float]], decay: str) -> dict[str, float]:
    """The authors' figures, if these are of the same data."""
    return figures.get(decay, {}) if results["call"]["data"] == "mnist" else {}


def _paper_end(results: Results, name: str) -> dict[str, float]:
    way, decay = name.rsplit(" ", 1)
    return _paper(results, PAPER_ENDS, decay) if way == THEIRS else {}


def table(results: Results) -> Table:
    """The comparison."""
    seeds = reporting.times(len(results["comparison"]["runs"]), "seed")
    title = f"Mean ± standard deviation over {seeds}, fresh trainings"
    return reporting.table(title, COLUMNS, _rows(results))


def summary(results: Results) -> list[str]:
    """The outcome in words, whichever way it went."""
    call = results["call"]
    lines = [
        f"{call['data']}, {call['rows']:,} images for training, as many for validation and for the "
        f"test; {call['steps']} steps, {call['steps_outer']} outer steps."
    ]
    lines += [_start_words(results, decay) for decay in results["authors"]["starts"]]
    lines += [_end_words(results, name) for name in results["authors"]["runs"]]
    lines += _comparison_words(results)
    lines.append(_minutes_words(results))
    return lines


def _start_words(results: Results, decay: str) -> str:
    found = results["authors"]["starts"][decay]
    paper, parts = _paper(results, PAPER_STARTS, decay), []
    for measure in ("train", "valid", "valid_error", "test_error"):
        mean, spread = float(np.mean(found[measure])), float(np.std(found[measure], ddof=1))
        words = f"{MEASURES[measure]} {mean:.4f} ± {spread:.4f}"
        if measure in paper:
            away = (paper[measure] - mean) / spread
            words += f" (the authors' {paper[measure]:.4f} is {away:+.1f} standard deviations away)"
        parts.append(words)
    return (
        f"The start with decay {decay}, over {len(found['train'])} draws of initial weights and "
        f"batches: {', '.join(parts)}."
    )


def _end_words(results: Results, name: str) -> str:
    runs, paper = results["authors"]["runs"][name], _paper_end(results, name)
    way, decay = name.rsplit(" ", 1)
    last = [run["outer"][-1] for run in runs]
    times, parts = reporting.times(len(runs), "time"), []
    for measure in ("train", "valid", "valid_error"):
        values = [run["after"][measure] for run in runs]
        words = f"{MEASURES[measure]} {mean_sd(values)}"
        if measure in paper:
            words += f" (the authors: {paper[measure]:g})"
        parts.append(words)
    return (
        f"Tuned by the training loss from decay {decay}, {way}, {times}: "
        f"{', '.join(parts)}, in fresh trainings; training loss at the last outer step "
        f"{', '.join(f'{value:.4f}' for value in last)}."
    )


def _comparison_words(results: Results) -> list[str]:
    mean = lambda name, measure: float(np.mean(_values(results, name, measure)))
    ranked = sorted(COLORS, key=lambda name: mean(name, "test"))
    order = ", ".join(f"{name} {mean(name, 'test'):.4f}" for name in ranked)
    own = lambda name: float(
        np.mean([run["arms"][name]["own"]["valid"] for run in results["comparison"]["runs"]])
    )
    fixed = "; ".join(
        f"{name}: {own(name):.4f} with that seed, {mean(name, 'valid'):.4f} with fresh ones"
        for name in (EACH_FIXED, FEW_FIXED)
    )
    pairs = (
        (EACH_FRESH, EACH_FIXED),
        (FEW_FRESH, EACH_FRESH),
        (FEW_FRESH, LATE),
        (EACH_FRESH, LATE),
        (EACH_FIXED, LATE),
    )
    differences = "; ".join(_difference(results, *pair) for pair in pairs)
    theirs = ", ".join(f"{value:g}" for value in PAPER_SEARCH.values())
    theirs = f" (the authors' {theirs}, on other images)"
    search = (
        f"{results['call']['early']} trainings of Bayesian optimisation (Optuna's TPE) got "
        f"training loss {mean(EARLY, 'train'):.4f}, valid loss {mean(EARLY, 'valid'):.4f}, valid "
        f"error {mean(EARLY, 'valid_error'):.4f}"
        f"{theirs if results['call']['data'] == 'mnist' else ''}."
    )
    return [
        f"Tuned by the validation loss, test loss in fresh trainings, best first: {order}.",
        f"Validation loss of what was tuned with one seed: {fixed}.",
        f"Differences in test loss [95 % interval]: {differences}.",
        search,
    ]


def _difference(results: Results, name: str, rival: str) -> str:
    own, others = (_values(results, n, "test") for n in (name, rival))
    found = reporting.difference(own, others)
    return f"{name} minus {rival} {show_interval(found)}, lower on {found.wins} of {found.seeds}"


def _minutes_words(results: Results) -> str:
    """The wall-clock time of each part."""
    authors = results["authors"]
    runs = {name: sum(run["minutes"] for run in found) for name, found in authors["runs"].items()}
    parts = {"starts": sum(found["minutes"] for found in authors["starts"].values()), **runs}
    compared = results["comparison"]["runs"]
    for name in COLORS:
        parts[name] = sum(run["arms"][name]["minutes"] for run in compared)
    # The early search is the first part of the late one.
    parts.pop(EARLY)
    words = ", ".join(f"{name} {minutes:.1f}" for name, minutes in parts.items() if minutes > 0)
    return f"Minutes, with compiling: {sum(parts.values()):.1f} in all; {words}."


def _author_rows(results: Results) -> list[list[str]]:
    rows, authors = [], results["authors"]
    for decay, found in authors["starts"].items():
        rows.append([f"start, decay {decay}", *(mean_sd(found[m]) for m in MEASURES)])
        if paper := _paper(results, PAPER_STARTS, decay):
            rows.append(["the authors'", *_paper_cells(paper)])
    for name, runs in authors["runs"].items():
        cells = [mean_sd([run["after"][m] for run in runs]) for m in MEASURES]
        way, decay = name.rsplit(" ", 1)
        rows.append([f"end, decay {decay}, {way}", *cells])
        if paper := _paper_end(results, name):
            rows.append(["the authors'", *_paper_cells(paper)])
    return rows


def _paper_cells(paper: dict[str, float]) -> list[str]:
    return [f"{paper[m]:g}" if m in paper else "–" for m in MEASURES]


def _rows(results: Results) -> list[list[str]]:
    rows, runs = [], results["comparison"]["runs"]
    for name in COLORS:
        arms = [run["arms"][name] for run in runs]
        values = [[arm["judged"][m] for arm in arms] for m in MEASURES]
        values.append([arm["own"]["valid"] for arm in arms])
        costs = [f"{arms[0]['numbers']:,}", f"{arms[0]['trainings']}"]
        rows.append([name, *costs, *map(mean_sd, values)])
    return rows


def _values(results: Results, name: str, measure: str) -> list[float]:
    return [run["arms"][name]["judged"][measure] for run in results["comparison"]["runs"]]


def schedules_figure(learned: Learned) -> Figure:
    """Rates and decays over the steps, a line for each layer, biases apart from weights."""
    figure = new_figure(11.5, 6.6)
    axes = figure.subplots(2, 2, sharex=True, sharey="row")
    rows = (
        ("learned rate", learned.rate, learned.start_rate),
        ("learned momentum decay", learned.decay, learned.start_decay),
    )
    for row, (title, values, start) in zip(axes, rows, strict=True):
        for ax, first, what in zip(row, (0, 1), ("weights", "biases"), strict=True):
            _draw_layers(ax, values[:, first::2], start)
            head(ax, f"{title}, {what}", legend=ax is axes[0, 0])
    for ax in axes[0]:
        log_y(ax)
    for ax in axes[1]:
        ax.set_xlabel("training step")
    return figure


def tuning_figure(
    outer: Mapping[str, Outer], curves: tuple[np.ndarray, np.ndarray], steps: int
) -> Figure:
    """The outer loss over the outer steps, and learning curves before and after."""
    figure = new_figure(11.5, 4.4)
    left, right = figure.subplots(1, 2)
    for (name, found), color in zip(outer.items(), (AFTER, SECOND, INK), strict=False):
        x = np.arange(found.runs.shape[1])
        for run in found.runs:
            left.plot(x, run, color=color, linewidth=0.7, alpha=0.35)
        left.plot(x, found.runs.mean(axis=0), color=color, linewidth=2, label=name)
        if np.isfinite(found.theirs):
            left.plot([len(x) - 1], [found.theirs], "D", color=color, markersize=7, clip_on=False)
    log_y(left)
    left.set_xlabel("outer step (diamonds: the authors' ends)")
    head(left, "training loss at the end of each training")
    tidy(left)
    for values, color, name in zip(curves, (BEFORE, AFTER), ("before", "after"), strict=True):
        right.plot(np.arange(steps), values, color=color, linewidth=1.8, label=name)
    log_y(right)
    right.set_xlabel("training step")
    head(right, "loss on each step's batch, before and after tuning")
    tidy(right)
    return figure


def outcome_figure(
    ways: Mapping[str, Sequence[float]],
    tunings: Mapping[str, tuple[np.ndarray, float]],
    few: Groups,
    each: Groups,
) -> Figure:
    """Test losses, seed by seed; validation losses [seeds, steps_outer] while tuning and, of the
    answers, with fresh seeds; the rates of the weights as few numbers and as one for each step."""
    figure = new_figure(14.5, 4.8)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.25, 1, 1))
    reporting.draw_ways(left, ways, [COLORS[name] for name in ways], digits=3)
    head(left, "test loss with fresh seeds", legend=False)
    for name, (values, fresh) in tunings.items():
        color, x = COLORS[name], np.arange(values.shape[1])
        style = "--" if "one seed" in name else "-"
        middle.plot(x, values.mean(axis=0), style, color=color, linewidth=1.8)
        middle.plot([len(x) - 1], [fresh], "D", color=color, markersize=7, clip_on=False)
    log_y(middle)
    middle.set_xlabel("outer step (dashed: one seed; diamonds: fresh)")
    head(middle, "validation loss while tuning", legend=False)
    tidy(middle)
    for layer, color in enumerate(layer_colors(few.shape[1] // 2)):
        right.plot(each[:, 2 * layer], color=color, linewidth=0.8, alpha=0.6)
        right.plot(few[:, 2 * layer], color=color, linewidth=2.4, label=f"layer {layer + 1}")
    log_y(right)
    right.set_xlabel("training step")
    head(right, "rates of the weights, few and many")
    tidy(right)
    return figure


def _draw_layers(ax: Axes, values: Float[np.ndarray, "steps layers"], start: float) -> None:
    for layer, color in enumerate(layer_colors(values.shape[1])):
        ax.plot(values[:, layer], color=color, linewidth=1.6, label=f"layer {layer + 1}")
    ax.axhline(start, color=INK, linestyle="--", linewidth=1, label="start")
    tidy(ax)

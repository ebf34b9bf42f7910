"""What `schedules` leaves behind: tables, words and pictures, made from its results."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from experiments.maclaurin2015 import schedules_pictures as learned_schedules
from experiments.maclaurin2015.schedules_pictures import Learned, Outer, Way
from hindgrad.apps.report import figures
from hindgrad.apps.report.figures import PALETTE
from hindgrad.apps.report.tables import Arm, paired, show, show_interval, titled

Results = dict[str, Any]

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


def write(results: Results, folder: Path) -> None:
    """Writes the tables and the pictures into a folder."""
    _write_csv(results, folder / "table.csv")
    tables = (
        (["by the training loss", *MEASURES.values()], _author_rows(results)),
        (_columns(), _rows(results)),
    )
    text = "\n\n".join(_markdown(columns, rows) for columns, rows in tables)
    (folder / "table.md").write_text(text + "\n")
    _write_pictures(results, folder)


def _write_csv(results: Results, path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "seed", "numbers", "trainings", *MEASURES, "valid_own_seed"])
        for run in results["comparison"]["runs"]:
            for name, arm in run["arms"].items():
                values = [arm["judged"][measure] for measure in MEASURES]
                cost = [arm["numbers"], arm["trainings"]]
                writer.writerow([name, run["seed"], *cost, *values, arm["own"]["valid"]])


def _write_pictures(results: Results, folder: Path) -> None:
    call, runs = results["call"], results["authors"]["runs"]
    main = f"{THEIRS} {call['decays'][0]:g}"
    learned = lambda what: np.mean([run["learned"][what] for run in runs[main]], axis=0)
    start = np.exp(call["log_rate"]), call["decays"][0]
    pictured = Learned(learned("rate"), learned("decay"), *start)
    figures.save(learned_schedules.schedules_figure(pictured), folder / "learned.png")

    outer = {
        _of_decay(name): Outer(
            np.array([run["outer"] for run in found]),
            _paper_end(results, name).get("train", np.nan),
        )
        for name, found in runs.items()
    }
    curve = lambda when: np.mean([run[when]["curve"] for run in runs[main]], axis=0)
    curves = curve("before"), curve("after")
    figures.save(
        learned_schedules.tuning_figure(outer, curves, call["steps"]), folder / "tuning.png"
    )

    compared = results["comparison"]["runs"]
    # The start is so far away that it would hide the other differences.
    ways = {
        name: Way(_values(results, name, "test"), COLORS[name]) for name in COLORS if name != START
    }
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
    figures.save(learned_schedules.outcome_figure(ways, tunings, few, each), folder / "outcome.png")


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
    seeds = len(results["comparison"]["runs"])
    shown = titled(
        f"Mean ± standard deviation over {seeds} seed{'s' * (seeds > 1)}, fresh trainings"
    )
    first, *others = _columns()
    shown.add_column(first, no_wrap=True)
    for title in others:
        shown.add_column(title, justify="right")
    for row in _rows(results):
        shown.add_row(*row)
    return shown


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
    parts = []
    for measure in ("train", "valid", "valid_error"):
        values = [run["after"][measure] for run in runs]
        words = f"{MEASURES[measure]} {show(float(np.mean(values)), _spread(values))}"
        if measure in paper:
            words += f" (the authors: {paper[measure]:g})"
        parts.append(words)
    times = f"{len(runs)} time{'s' * (len(runs) > 1)}"
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
    arm = lambda n: Arm(n, [], {"test": np.array(_values(results, n, "test"))})
    found = paired(arm(name), arm(rival), "test")
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
        cells = [show(float(np.mean(found[m])), _spread(found[m])) for m in MEASURES]
        rows.append([f"start, decay {decay}", *cells])
        if paper := _paper(results, PAPER_STARTS, decay):
            rows.append(["the authors'", *_paper_cells(paper)])
    for name, runs in authors["runs"].items():
        values = {m: [run["after"][m] for run in runs] for m in MEASURES}
        cells = [show(float(np.mean(v)), _spread(v)) for v in values.values()]
        way, decay = name.rsplit(" ", 1)
        rows.append([f"end, decay {decay}, {way}", *cells])
        if paper := _paper_end(results, name):
            rows.append(["the authors'", *_paper_cells(paper)])
    return rows


def _paper_cells(paper: dict[str, float]) -> list[str]:
    return [f"{paper[m]:g}" if m in paper else "–" for m in MEASURES]


def _columns() -> list[str]:
    return ["by the validation loss", "numbers", "trainings", *MEASURES.values(), "valid, own seed"]


def _rows(results: Results) -> list[list[str]]:
    rows, runs = [], results["comparison"]["runs"]
    for name in COLORS:
        arms = [run["arms"][name] for run in runs]
        values = [[arm["judged"][m] for arm in arms] for m in MEASURES]
        values.append([arm["own"]["valid"] for arm in arms])
        cells = [show(float(np.mean(v)), _spread(v)) for v in values]
        rows.append([name, f"{arms[0]['numbers']:,}", f"{arms[0]['trainings']}", *cells])
    return rows


def _values(results: Results, name: str, measure: str) -> list[float]:
    return [run["arms"][name]["judged"][measure] for run in results["comparison"]["runs"]]


def _spread(values: list[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def _markdown(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

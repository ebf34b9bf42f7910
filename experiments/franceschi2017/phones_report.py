"""What `phones` leaves behind: a table, words and pictures, made from its results."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from experiments.franceschi2017 import phones_pictures as phones
from hindgrad.apps.report import figures
from hindgrad.apps.report.tables import Arm, Paired, paired, titled

FIXED, STILL, SEARCH = "vanilla", "start kept", "random search"
START, ZEROS = "real time", "from zeros"
ARMS = (FIXED, STILL, SEARCH, START, ZEROS)

PAPER = (FIXED, SEARCH, ZEROS, START)
"""The paper's arms, the least accurate first. It has none that keeps the start of the one in real
time, without which the share of the second task in the gain is unknown."""

MEASURES = {
    "test": ("test accuracy, %", 2),
    "valid": ("valid accuracy, %", 2),
    "valid_loss": ("valid loss", 4),
    "test_loss": ("test loss", 4),
    "minutes": ("minutes", 2),
    "trials": ("trainings", 1),
}
"""What is shown of each arm, and with how many digits."""

Results = dict[str, Any]


def write(results: Results, folder: Path) -> None:
    """Writes the table and the pictures into a folder."""
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "seed", *MEASURES])
        for run in results["runs"]:
            for name in run["arms"]:
                writer.writerow([name, run["seed"], *(_value(run, name, m) for m in MEASURES)])
    columns = ["", *(title for title, _ in MEASURES.values())]
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 1), *_rows(results)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    (folder / "table.md").write_text(text + "\n")
    curves = {
        name: [run["arms"][name]["curve"] for run in results["runs"]] for name in (START, ZEROS)
    }
    figures.save(phones.trajectories_figure(curves), folder / "trajectories.png")
    curves = {name: [run["arms"][name]["curve"] for run in results["runs"]] for name in ARMS}
    accuracies = {name: _values(results, name, "test") for name in ARMS}
    figures.save(phones.outcome_figure(curves, accuracies), folder / "outcome.png")


def table(results: Results) -> Table:
    """The paper's table."""
    seeds = len(results["runs"])
    shown = titled(f"Mean ± standard deviation over {seeds} seed{'s' * (seeds > 1)}")
    shown.add_column("", no_wrap=True)
    for title, _ in MEASURES.values():
        shown.add_column(title, justify="right")
    for row in _rows(results):
        shown.add_row(*row)
    return shown


def summary(results: Results) -> list[str]:
    """The outcome in words, whichever way it went."""
    call, rows = results["call"], results["rows"]
    mean = {name: float(np.mean(_values(results, name, "test"))) for name in ARMS}
    trials = np.mean(_values(results, SEARCH, "trials"))
    minutes = {name: float(np.mean(_values(results, name, "minutes"))) for name in ARMS}
    ranked = " < ".join(sorted(PAPER, key=mean.__getitem__))
    papers = " < ".join(PAPER)
    order = "the paper's order" if ranked == papers else f"the paper's order is {papers}"
    scores = ", ".join(f"{name} {mean[name]:.2f}" for name in ARMS)
    return [
        f"{call['data']}: {rows[0]:,} frames for training, {rows[1]:,} for validation and "
        f"{rows[2]:,} for the test, no speaker in two of them; {call['steps']:,} steps, "
        f"hyperparameters changed every {call['every']}.",
        f"Test accuracy in percent: {scores}. Of the paper's four, {ranked}; {order}.",
        _gains(results, START),
        _gains(results, ZEROS),
        f"One run in real time takes as long as {minutes[START] / minutes[FIXED]:.1f} with fixed "
        f"hyperparameters; the search had time for {trials:.1f} trainings.",
        _movement(results),
    ]


def _gains(results: Results, name: str) -> str:
    """How an arm does against those that change nothing while training, seed by seed."""
    rivals = [_difference(results, name, rival) for rival in (FIXED, STILL, SEARCH)]
    words = "; ".join(_words(d) for d in rivals)
    clear = any(d.high < 0 or d.low > 0 for d in rivals)
    tail = "" if clear else " None differs clearly from zero."
    return f"{name.capitalize()} minus the others, in points: {words}.{tail}"


def _words(d: Paired) -> str:
    interval = "" if np.isnan(d.low) else f" [{-d.high:+.2f}, {-d.low:+.2f}]"
    return f"{d.rival} {-d.mean:+.2f}{interval}, higher on {d.wins} of {d.seeds}"


def _difference(results: Results, name: str, rival: str) -> Paired:
    error = lambda n: Arm(n, [], {"error": 100 - np.array(_values(results, n, "test"))})
    return paired(error(name), error(rival), "error")


def _movement(results: Results) -> str:
    """From where to where the hyperparameters went."""
    parts = []
    for name in (START, ZEROS):
        hypers = [run["arms"][name]["curve"]["hyper"] for run in results["runs"]]
        ends = ", ".join(
            f"{label} {np.mean([h[key][-1] for h in hypers]):.3f}"
            for key, label in (("rate", "rate"), ("decay", "decay"), ("rho", "ρ"))
        )
        parts.append(f"{name} ended at {ends}")
    call = results["call"]
    begin = f"rate {call['rate']:g}, decay {call['decay']:g}, ρ {call['rho']:g}"
    return f"On average, {'; '.join(parts)}. The sensible start is {begin}."


def _rows(results: Results) -> list[list[str]]:
    rows = []
    for name in ARMS:
        cells = [_spread(_values(results, name, m), digits) for m, (_, digits) in MEASURES.items()]
        rows.append([name, *cells])
    return rows


def _value(run: Mapping[str, Any], name: str, measure: str) -> float:
    arm = run["arms"][name]
    return float(arm["seconds"] / 60 if measure == "minutes" else arm[measure])


def _values(results: Results, name: str, measure: str) -> list[float]:
    return [_value(run, name, measure) for run in results["runs"]]


def _spread(values: list[float], digits: int) -> str:
    tail = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{tail}"

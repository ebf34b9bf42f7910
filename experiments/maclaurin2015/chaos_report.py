"""What `chaos` leaves behind: tables, words and pictures, all made from its results."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from experiments.maclaurin2015 import chaos_pictures as chaos
from experiments.maclaurin2015.chaos_pictures import Tunings
from hindgrad.apps.report import figures
from hindgrad.apps.report.tables import titled

EXACT, EVOLUTION, PERSISTENT = "exact", "Evolution", "PersistentEvolution"
"""The hypergradients that are compared."""

AUTHORS = "the authors' edge, 1.49"
STEP, WRONG, STRETCH = 0.05, 0.5, 0.1
"""The edge that the fine scan shows: where steps of `STEP` begin to reach what their hypergradient
does not foretell, being off by `WRONG` of the slope more often than not in a stretch this long."""

Results = dict[str, Any]


def scan_edge(log_rates: np.ndarray, losses: np.ndarray, gradients: np.ndarray) -> float | None:
    """The first log rate from which on hypergradients are usually misleading."""
    spacing = log_rates[1] - log_rates[0]
    half, stretch = max(1, round(STEP / 2 / spacing)), max(1, round(STRETCH / spacing))
    if len(losses) < 2 * half + stretch:
        return None
    begin, middle, end = losses[: -2 * half], losses[half:-half], losses[2 * half :]
    foretold = gradients[: len(begin)] * 2 * half * spacing
    apart = np.abs(foretold - (-3 * begin + 4 * middle - end))
    slopes = np.max(np.abs([foretold, 2 * (middle - begin), 2 * (end - middle)]), axis=0)
    wrong = ~(apart <= WRONG * slopes)
    share = np.convolve(wrong, np.ones(stretch), "valid") / stretch
    beyond = np.flatnonzero(share > 0.5)
    # In the first such stretch the second half is wrong, and so is where its steps lead.
    return float(log_rates[beyond[0]]) + STRETCH / 2 + STEP if len(beyond) else None


def write(results: Results, folder: Path) -> None:
    """Writes the tables and pictures into a folder."""
    log_rates, losses, gradients = _scan(results)
    with (folder / "rates.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["log_rate", "loss", "hypergradient", "why_not"])
        left = results["rates"]["left"]
        writer.writerows(zip(log_rates, losses, gradients, left, strict=True))
    edges = {
        "diagnose's edge": results["edge"]["edge"],
        "the scan's": scan_edge(log_rates, losses, gradients),
        AUTHORS: 1.49 if results["call"]["data"] == "mnist" else None,
    }
    edges = {name: place for name, place in edges.items() if place is not None}
    figures.save(
        chaos.rates_figure(log_rates, losses, gradients, edges), folder / "chaos-rates.png"
    )
    costs, start, tunings = _costs(results), [], {}
    for arm, runs in results["above"].items():
        values = [[np.nan if v is None else np.exp(v) for v in run["values"]] for run in runs]
        tunings[arm] = Tunings(values, costs[arm], [np.exp(run["answer"]) for run in runs])
        start = [np.exp(run["start"]) for run in runs]
    figures.save(chaos.above_figure(start, tunings), folder / "chaos-above.png")
    columns = _columns()
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *_rows(results)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    (folder / "table.md").write_text(text + "\n")


def table(results: Results) -> Table:
    """The tunings above the edge."""
    seeds, log_rate = len(results["above"][EXACT]), results["call"]["above"]
    shown = titled(f"From log rate {log_rate:g}, {seeds} seed{'s' * (seeds > 1)}")
    for i, title in enumerate(_columns()):
        shown.add_column(title, justify="right" if i else "left")
    for row in _rows(results):
        shown.add_row(*row)
    return shown


def summary(results: Results) -> list[str]:
    """The outcome in words, whichever way it went."""
    log_rates, losses, gradients = _scan(results)
    best = int(np.nanargmin(losses))
    found, scanned = results["edge"]["edge"], scan_edge(log_rates, losses, gradients)
    place = lambda edge: "none" if edge is None else f"{edge:.2f}"
    lines = [
        f"The edge, as a log rate: {place(found)} by `diagnose`, {place(scanned)} by the fine scan "
        "(the authors' figure is smooth up to about 1.49).",
        f"The lowest loss is {losses[best]:.5f}, at index {best} of {len(losses)}, log rate "
        f"{log_rates[best]:.3f} (the authors': .00244 at 579). The hypergradient goes up to "
        f"{np.nanmax(np.abs(gradients)):.1e} (the authors': 2e33).",
    ]
    left = [text for text in results["rates"]["left"] if text]
    if left:
        lines.append(f"Runs that could not be undone, and have no hypergradient: {len(left)}.")
    exact, call = results["above"][EXACT], results["call"]
    for arm in (EVOLUTION, PERSISTENT):
        runs = results["above"][arm]
        pairs = list(zip(runs, exact, strict=True))
        better = sum(a["answer"] < b["answer"] for a, b in pairs)
        improved = sum(a["answer"] < a["start"] for a in runs)
        factor = float(np.exp(np.mean([b["answer"] - a["answer"] for a, b in pairs])))
        lines.append(
            f"Above the edge, from log rate {call['above']:g}: `{arm}` improves on the start on "
            f"{improved} of {len(runs)} seeds, and beats the exact hypergradient on {better}; its "
            f"loss is {factor:.2g} times lower."
        )
    improved = sum(b["answer"] < b["start"] for b in exact)
    lines.append(f"The exact hypergradient improves on the start on {improved} of {len(exact)}.")
    minutes = {arm: sum(r["seconds"] for r in runs) / 60 for arm, runs in results["above"].items()}
    times = ", ".join(f"{arm} {m:.1f}" for arm, m in minutes.items())
    whole = results["rates"]["minutes"] + results["edge"]["minutes"] + sum(minutes.values())
    lines.append(
        f"Wall-clock in minutes: the scan {results['rates']['minutes']:.1f}, diagnose "
        f"{results['edge']['minutes']:.1f}, the tunings {times}; {whole:.1f} in all."
    )
    return lines


def _scan(results: Results) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    call, rates = results["call"], results["rates"]
    number = lambda values: np.array([np.nan if v is None else v for v in values])
    log_rates = np.linspace(call["low"], call["high"], call["values"])
    return log_rates, number(rates["loss"]), number(rates["gradient"])


def _costs(results: Results) -> dict[str, float]:
    return {arm: runs[0]["cost"] for arm, runs in results["above"].items()}


def _columns() -> list[str]:
    return ["hypergradient", "outer steps", "trainings", "loss around it", "its own", "turned back"]


def _rows(results: Results) -> list[list[str]]:
    mean = lambda values: f"{np.exp(np.mean(values)):.5f}"
    first = results["above"][EXACT]
    rows = [["(the start)", "", "", mean([r["start"] for r in first]), "", ""]]
    for arm, runs in results["above"].items():
        steps = len(runs[0]["values"])
        answer, itself = ([r[name] for r in runs] for name in ("answer", "itself"))
        back = np.mean([r["turned_back"] for r in runs])
        spent = f"{steps * runs[0]['cost']:.0f}"
        rows.append([arm, str(steps), spent, mean(answer), mean(itself), f"{back:.1f}"])
    return rows

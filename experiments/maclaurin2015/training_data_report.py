"""What `training-data` leaves behind: a table, words and pictures, made from its results."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from experiments import reporting
from experiments.reporting import mean_sd
from experiments.runner import Results
from hindgrad.apps.report import learned_images

START = "noise"
LEARNED, LONGER = "learned", "learned longer"
FRESH, TUNED = "fresh start", "tuned"
RANDOM, MEANS = "random images", "class means"
ALL = "all images"

PAPER = {"valid_loss": 0.4193, "test_loss": 0.4934, "test_error": 0.123}
"""The authors' code, run again; it tests on the first 1,000 test images."""

METRICS = {"valid_loss": "valid loss", "test_loss": "test loss", "test_error": "test error"}
WAY = {"rate": "rate", "l2": "L2", "steps": "steps"}
COLUMNS = ("trained on", *METRICS.values(), *WAY.values())


def write(results: Results, folder: Path) -> None:
    """Writes the table and the pictures into a folder."""
    singles = [
        [run["seed"], name, *(arm[key] for key in (*METRICS, *WAY))]
        for run in results["runs"]
        for name, arm in run["arms"].items()
    ]
    reporting.write_csv(folder / "table.csv", ("seed", "images", *METRICS, *WAY), singles)
    reporting.write_markdown(folder, reporting.markdown(COLUMNS, rows(results)))
    shape = tuple(results["image"])
    names = {
        LEARNED: f"learned in {results['call']['steps_outer']} outer steps",
        LONGER: f"learned longer, in {results['call']['steps_longer']} steps of Adam",
        MEANS: "class means of the training images",
    }
    parts = {
        title: np.array(results["images"][name]).reshape(-1, *shape)
        for name, title in names.items()
    }
    labels = [str(c) for c in range(len(results["images"][LEARNED]))]
    sheet = learned_images.rows_figure(
        parts, labels, title="Ten images to learn from (minus the mean image)"
    )
    arms = {
        name: [run["arms"][name]["test_error"] for run in results["runs"]]
        for name in results["runs"][0]["arms"]
        if name != START
    }
    curves = {
        name: np.array([run["valid"][name] for run in results["runs"]])
        for name in (LEARNED, LONGER)
    }
    outcome = learned_images.outcome_figure(
        curves,
        arms,
        loss="validation loss of a training on the ten images",
        what="test error",
        smaller_is_better=True,
    )
    pictures = {"training-data-images": sheet, "training-data-outcome": outcome}
    reporting.save(folder, pictures)


def rows(results: Results) -> list[list[str]]:
    """Means and standard deviations over the seeds, and the training of the first seed."""
    cells = []
    for name in results["runs"][0]["arms"]:
        arms = [run["arms"][name] for run in results["runs"]]
        numbers = [mean_sd([arm[key] for arm in arms]) for key in METRICS]
        cells.append([name, *numbers, *(_across([arm[key] for arm in arms]) for key in WAY)])
    if results["call"]["data"] == "mnist":
        theirs = [f"{PAPER[key]:.4f}" for key in METRICS]
        cells.insert(2, ["authors' code", *theirs, "1", "–", "20"])
    return cells


def table(results: Results) -> Table:
    """What every way gives."""
    call = results["call"]
    title = (
        f"{call['data']}: softmax regression trained on a few images; mean ± standard deviation "
        f"over {reporting.times(call['seeds'], 'seed')}"
    )
    return reporting.table(title, COLUMNS, rows(results))


def summary(results: Results) -> list[str]:
    """The outcome in words."""
    call, runs = results["call"], results["runs"]
    mean = lambda name, key: float(np.mean([run["arms"][name][key] for run in runs]))
    before = float(np.mean([run["valid"][LEARNED][0] for run in runs]))
    lines = [
        f"{call['steps_outer']} outer steps took the validation loss from {before:.4f} to "
        f"{mean(LEARNED, 'valid_loss'):.4f}; test loss {mean(LEARNED, 'test_loss'):.4f}, test "
        f"error {mean(LEARNED, 'test_error'):.4f} on {call['test']:,} images."
    ]
    if call["data"] == "mnist":
        lines[0] += (
            f" The authors' code: from 2.3219 to {PAPER['valid_loss']}, test loss "
            f"{PAPER['test_loss']} and error {PAPER['test_error']} on the first 1,000 test images."
        )
    own, fresh = mean(LEARNED, "test_error"), mean(f"{LEARNED}, {FRESH}", "test_error")
    lines.append(f"With fresh initial weights the test error is {fresh:.4f} ({fresh - own:+.4f}).")
    best = {
        name: min((mean(way, "test_error"), way) for way in (name, f"{name}, {TUNED}"))
        for name in (RANDOM, MEANS)
    }
    others = " and ".join(
        f"{name} {value:.4f} ({'tuned' if TUNED in way else 'the same training'})"
        for name, (value, way) in best.items()
    )
    wins = all(fresh < value for value, _ in best.values())
    verdict = "That is better than" if wins else "That is not better than both:"
    lines.append(f"{verdict} what real images give at best: {others}.")
    lines.append(
        f"Learned longer, by {call['steps_longer']} steps of Adam, ten images give "
        f"{mean(LONGER, 'test_error'):.4f}; all {call['train']:,} training images give "
        f"{mean(ALL, 'test_error'):.4f}."
    )
    minutes = {name: sum(run["seconds"][name] for run in runs) / 60 for name in runs[0]["seconds"]}
    lines.append(
        f"Minutes of wall-clock, all {len(runs)} seeds: {reporting.minutes_in_words(minutes)}; "
        f"{sum(minutes.values()):.1f} in all."
    )
    return lines


def _across(values: Sequence[float | int]) -> str:
    """One value, or the lowest to the highest."""
    low, high = min(values), max(values)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"

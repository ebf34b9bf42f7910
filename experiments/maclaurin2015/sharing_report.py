"""What `sharing` leaves behind: tables, words and pictures, made from its results."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.table import Table

from experiments.maclaurin2015 import sharing_pictures as sharing
from hindgrad.apps.report import figures
from hindgrad.apps.report.tables import titled

SEPARATE, TIED, START, LEARNED = "separate", "tied bottom layer", "start", "learned"

AUTHORS = {
    SEPARATE: {"train": 0.607, "test": 1.343},
    TIED: {"train": 0.897, "test": 1.246},
    LEARNED: {"train": 0.604, "test": 1.130},
}
"""Printed by the authors' code (HIPS/hypergrad), on drawings that were made smaller in another
way."""

PARTS = {"train": "training", "test": "test", "new": "new people"}

Results = dict[str, Any]


def write(results: Results, folder: Path) -> None:
    """Writes the tables and the pictures into a folder."""
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", "networks", *PARTS, "minutes"])
        for run in results["runs"]:
            for way, found in run["ways"].items():
                minutes = run["learned"]["minutes"] * (way == LEARNED) + found["minutes"]
                writer.writerow([run["seed"], way, *(found[p] for p in PARTS), round(minutes, 3)])
    lines = [_columns(), ["---", *["---:"] * (len(_columns()) - 1)], *_rows(results)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    (folder / "table.md").write_text(text + "\n")
    call = results["call"]
    names = [short(name) for name in call["alphabets"]]
    shown = {
        way: sharing.Shared(
            correlations(list(transforms)),
            {PARTS[part]: float(np.mean(values(results, way, part))) for part in PARTS},
        )
        for way, transforms in _transforms(results).items()
    }
    figures.save(sharing.matrices_figure(names, shown), folder / "matrices.png")
    valid = {run["seed"]: np.array(run["learned"]["valid"]) for run in results["runs"]}
    losses = {
        way: {PARTS[p]: values(results, way, p) for p in PARTS}
        for way in results["runs"][0]["ways"]
    }
    pairs = [strengths(run["learned"]["transforms"]) for run in results["runs"]]
    rotated, others = (np.array([pair[i] for pair in pairs]) for i in (0, 1))
    figure = sharing.outcome_figure(losses, valid, rotated, others)
    figures.save(figure, folder / "sharing.png")


def values(results: Results, way: str, part: str) -> list[float]:
    """A way's losses, seed by seed."""
    return [run["ways"][way][part] for run in results["runs"]]


def short(alphabet: str) -> str:
    """A name without its remark."""
    return alphabet.split("_(")[0].replace("_", "'")


def correlations(
    transforms: Sequence[Any],
) -> Float[np.ndarray, "layers tasks tasks"]:
    """T Tᵀ with ones on the diagonal, for each layer: the correlations of the weights of two tasks
    if those of z are independent. A task comes next to the same one turned."""
    found = []
    for transform in np.asarray(transforms, float):
        covariance = transform @ transform.T
        deviation = np.sqrt(np.diag(covariance))
        found.append(covariance / np.outer(deviation, deviation))
    return np.array(found)[:, *np.ix_(*[_order(len(found[0]))] * 2)]


def _order(tasks: int) -> np.ndarray:
    """Each alphabet and then the same one turned; the tasks have all turned ones last."""
    return np.arange(tasks).reshape(2, -1).T.ravel()


def strengths(
    transforms: Sequence[Any],
) -> tuple[Float[np.ndarray, " layers"], Float[np.ndarray, " layers"]]:
    """For each layer the mean correlation of alphabets with themselves turned, and that of all
    other pairs."""
    found = correlations(transforms)
    alphabet = np.arange(found.shape[1]) // 2
    rotated = (alphabet[:, None] == alphabet[None]) & ~np.eye(len(alphabet), dtype=bool)
    others = alphabet[:, None] != alphabet[None]
    return found[:, rotated].mean(axis=1), found[:, others].mean(axis=1)


def _transforms(results: Results) -> dict[str, np.ndarray]:
    """The matrices of each way; the learned ones are those of the first seed."""
    learned = np.array(results["runs"][0]["learned"]["transforms"])
    layers, tasks, _ = learned.shape
    separate = np.stack([np.eye(tasks)] * layers)
    tied = separate.copy()
    tied[0] = 1 / tasks
    return {SEPARATE: separate, TIED: tied, LEARNED: learned}


def table(results: Results) -> Table:
    """Losses beside the authors'."""
    shown = titled("Sharing: mean negative log-likelihood of the tasks, in nats")
    for i, title in enumerate(_columns()):
        shown.add_column(title, justify="left" if i == 0 else "right")
    for row in _rows(results):
        shown.add_row(*row)
    return shown


def _columns() -> list[str]:
    return ["networks", *PARTS.values(), "authors' training", "authors' test"]


def _rows(results: Results) -> list[list[str]]:
    rows = []
    for way in results["runs"][0]["ways"]:
        authors = [f"{AUTHORS[way][p]:.3f}" if way in AUTHORS else "" for p in ("train", "test")]
        rows.append([way, *(_mean(values(results, way, part)) for part in PARTS), *authors])
    return rows


def _mean(found: Sequence[float]) -> str:
    if len(found) == 1:
        return f"{found[0]:.3f}"
    return f"{np.mean(found):.3f} ± {np.std(found, ddof=1):.3f}"


def summary(results: Results) -> list[str]:
    """The outcome in words."""
    call, runs = results["call"], results["runs"]
    lines = [_order_words(results, part) for part in ("test", "new")]
    pairs = np.array([strengths(run["learned"]["transforms"]) for run in runs]).mean(axis=0)
    where = ["bottom", *["middle"] * (pairs.shape[1] - 2), "top"]
    words = ", ".join(
        f"{name} layer {rotated:.2f} against {others:.2f}"
        for name, (rotated, others) in zip(where, pairs.T, strict=True)
    )
    top = int(np.argmax(pairs[0]))
    lines.append(
        f"Correlation of the weights of an alphabet with those of itself turned, against all other "
        f"pairs: {words} (authors: about .75 in the top layer). Turned pairs share most in the "
        f"{where[top]} layer."
    )
    lines.append(
        f"{call['drawers']} drawings of each character: {call['drawers'] - call['test']} for "
        f"training, {call['test']} for the test; the outer loss is taken on {call['valid']} of the "
        "training ones, others at each outer step. New people drew the other "
        "drawings; nothing was learned from any of theirs."
    )
    minutes = [
        run["learned"]["minutes"] + sum(w["minutes"] for w in run["ways"].values()) for run in runs
    ]
    tuning = [run["learned"]["minutes"] for run in runs]
    weights = 2 * len(call["alphabets"]) * results["weights"]
    each = ", ".join(f"{m:.1f}" for m in tuning)
    lines.append(
        f"Wall-clock: {sum(minutes):.1f} minutes, of which {each} for tuning on the seeds: "
        f"{call['steps_outer']} hypergradients through a training of {weights:,} weights each."
    )
    return lines


def _order_words(results: Results, part: str) -> str:
    means = {way: np.mean(values(results, way, part)) for way in AUTHORS}
    order = sorted(means, key=lambda way: means[way])
    best_first = [LEARNED, TIED, SEPARATE]
    found = [
        sorted(AUTHORS, key=lambda way, run=run: run["ways"][way][part]) == best_first
        for run in results["runs"]
    ]
    which = {"test": "test drawings", "new": "drawings by new people"}[part]
    words = ", ".join(f"{way} {means[way]:.3f}" for way in order)
    right = "the authors' order" if order == best_first else "not the authors' order"
    return (
        f"Loss on the {which}, best first: {words}; {right} (on {sum(found)} of {len(found)} "
        "seeds)."
    )

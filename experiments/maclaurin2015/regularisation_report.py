"""What `regularisation` leaves behind: tables, words and pictures, made from its results."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from experiments.maclaurin2015 import regularisation_pictures as penalties
from hindgrad.apps.report import figures
from hindgrad.apps.report.tables import titled

NONE, START, SHARED = "no penalty", "the start", "one for all"
LAYER, UNIT, WEIGHT = "one per layer", "one per unit", "one per weight"
AUTHORS, FRESH = "one per weight, authors' descent", "one per weight, fresh images"

MODELS = {"logistic": "logistic regression", "network": "network"}
PARTS = {"train": "training", "valid": "validation", "test": "test"}

Results = dict[str, Any]


def write(results: Results, folder: Path) -> None:
    """Writes the tables and the pictures into a folder."""
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["seed", "model", "penalties", "count", *PARTS, "error", "minutes"])
        for run in results["runs"]:
            for model in MODELS:
                for way, found in run[model].items():
                    losses = [found[part] for part in (*PARTS, "error")]
                    how = [found.get("count", ""), *losses, found.get("minutes", "")]
                    writer.writerow([run["seed"], model, way, *how])
    lines = [_columns(), ["---", "---", *["---:"] * (len(_columns()) - 2)], *_rows(results)]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    (folder / "table.md").write_text(text + "\n")
    _write_maps(results, folder)
    histories = {
        way: [run["logistic"][way]["history"] for run in results["runs"]]
        for way in (SHARED, WEIGHT, AUTHORS)
    }
    outcomes = {
        f"{title}, {results['call'][model]['train']:,} images": {
            way: {name: values(results, model, way, part) for part, name in PARTS.items()}
            for way in results["runs"][0][model]
        }
        for model, title in MODELS.items()
    }
    figures.save(penalties.outcome_figure(histories, outcomes), folder / "regularisation.png")


def _write_maps(results: Results, folder: Path) -> None:
    """The penalties of the first seed as images."""
    first = results["runs"][0]
    for model, kind, title in (
        ("logistic", "class", "Learned penalties of the logistic regression, class by class"),
        ("network", "unit", "Learned penalties of the network's first layer, lowest units"),
    ):
        shown = np.exp(np.array(first[model][WEIGHT]["maps"]))
        shown = shown.reshape(-1, *first["image"])
        names = [f"{kind} {i if kind == 'class' else i + 1}" for i in range(len(shown))]
        figures.save(penalties.maps_figure(title, names, shown), folder / f"penalties-{model}.png")


def values(results: Results, model: str, way: str, part: str) -> list[float]:
    """A way's losses or errors, seed by seed."""
    return [run[model][way][part] for run in results["runs"]]


def table(results: Results) -> Table:
    """Losses and errors."""
    shown = titled("Penalties: mean negative log-likelihood in nats, and test error")
    for i, title in enumerate(_columns()):
        shown.add_column(title, justify="left" if i < 2 else "right")
    for row in _rows(results):
        shown.add_row(*row)
    return shown


def _columns() -> list[str]:
    return ["model", "penalties", "number", *PARTS.values(), "test error, %"]


def _rows(results: Results) -> list[list[str]]:
    rows = []
    for model, title in MODELS.items():
        for way, found in results["runs"][0][model].items():
            count = f"{found['count']:,}" if "count" in found else ""
            losses = [_mean(values(results, model, way, part)) for part in PARTS]
            errors = 100 * np.array(values(results, model, way, "error"))
            rows.append([title, way, count, *losses, _mean(errors.tolist(), 2)])
    return rows


def _mean(found: Sequence[float], digits: int = 3) -> str:
    if len(found) == 1:
        return f"{found[0]:.{digits}f}"
    return f"{np.mean(found):.{digits}f} ± {np.std(found, ddof=1):.{digits}f}"


def summary(results: Results) -> list[str]:
    """The outcome in words."""
    runs = results["runs"]
    curves = [run["logistic"][AUTHORS]["history"] for run in runs]
    first, last = (float(np.mean([curve[i] for curve in curves])) for i in (0, -1))
    lines = [
        f"Logistic regression as in the authors' code, by plain descent: the validation loss goes "
        f"from {first:.3f} to {last:.3f} (their figure: about .76 to .425), the test loss from "
        f"{np.mean(values(results, 'logistic', START, 'test')):.3f} to "
        f"{np.mean(values(results, 'logistic', AUTHORS, 'test')):.3f} (about .705 to .45)."
    ]
    lines += [_against(results, "logistic", WEIGHT, rival) for rival in (SHARED, NONE)]
    lines += [_against(results, "network", grain, SHARED) for grain in (LAYER, UNIT, WEIGHT, FRESH)]
    lines.append(_finer(results))
    lines.append(
        "Each way's losses are means over "
        f"{results['call']['draws']} trainings with fresh initial weights and batches, the same "
        "for all ways. The ± is the standard deviation over the seeds."
    )
    minutes = {
        model: sum(found.get("minutes", 0) for run in runs for found in run[model].values())
        for model in MODELS
    }
    lines.append(
        f"Wall-clock of the tuning on {len(runs)} seeds: {minutes['logistic']:.1f} minutes for the "
        f"logistic regression, {minutes['network']:.1f} for the network."
    )
    return lines


def _against(results: Results, model: str, way: str, rival: str) -> str:
    """What a way brings against another, in validation and in test loss."""
    gains = {}
    for part in ("valid", "test"):
        pair = (np.array(values(results, model, name, part)) for name in (way, rival))
        gains[part] = np.subtract(*pair)
    wins = int((gains["test"] < 0).sum())
    return (
        f"{MODELS[model].capitalize()}, {way} against {rival}: validation loss "
        f"{gains['valid'].mean():+.3f}, test loss {gains['test'].mean():+.3f} (lower on {wins} of "
        f"{len(gains['test'])} seeds)."
    )


def _finer(results: Results) -> str:
    """Whether finer penalties overfit the validation images of the network."""
    gap = {}
    for way in (SHARED, LAYER, UNIT, WEIGHT, FRESH):
        test, valid = (np.mean(values(results, "network", way, part)) for part in ("test", "valid"))
        gap[way] = float(test - valid)
    shown = ", ".join(f"{way} {value:+.3f}" for way, value in gap.items())
    more = gap[WEIGHT] - gap[SHARED]
    verdict = (
        f"one per weight has fitted the validation images by {more:.3f} more than one for all"
        if more > 0
        else "one per weight has not fitted the validation images more than one for all"
    )
    return f"Network, test loss less validation loss: {shown}; {verdict}."

"""What `hindgrad distill` leaves behind: files, pictures and words, all made from its results."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from hindgrad.apps.console import list_files, say
from hindgrad.apps.report import figures, learned_images
from hindgrad.apps.report.page import Table as Shown
from hindgrad.apps.report.pages import REPORT, write_page
from hindgrad.apps.report.tables import titled
from hindgrad.apps.table import Table
from hindgrad.apps.work import RESULTS

Results = dict[str, Any]

HEADS = ("trained on", "examples", "accuracy", "rate", "steps")
ABOUT = "test accuracy (mean of fresh networks ± standard deviation)"

EXAMPLES = "distilled"
FILES = {
    REPORT: "what came out, on one page: open it in a browser",
    f"{EXAMPLES}.npz": "the learned examples, in the data's units",
    f"{EXAMPLES}.csv": "the same as a table",
    "sheet.png": "the learned examples as images",
    "outcome.png": "how they were learned, and what they are worth",
    RESULTS: "everything in numbers, the learned rates too",
}


def write(folder: Path, results: Results, table: Table) -> None:
    """Writes all files into a folder."""
    x, y = in_units(results), labels(results)
    given = results["examples"]
    np.savez_compressed(
        folder / f"{EXAMPLES}.npz",
        allow_pickle=False,
        x=x.reshape(-1, *(table.image or x.shape[1:])),
        y=y,
        classes=np.array(results["data"]["classes"]),
        mean=np.array(given["mean"], np.float32),
        scale=np.array(given["scale"], np.float32),
    )
    if table.image is None:
        frame = pd.DataFrame(x, columns=results["examples"]["names"])
        frame.assign(**{table.label: y}).to_csv(folder / f"{EXAMPLES}.csv", index=False)
    else:
        _write_sheet(folder, results, table)
    _write_outcome(folder, results)
    title = f"hindgrad distill: {results['data']['name']}"
    *words, how, minutes = summary(results)
    shown = Shown(HEADS, _rows(results), frozenset({1, 2, 3, 4}), ABOUT)
    write_page(folder, title, [*words, minutes], [shown], FILES, [how])


def in_units(results: Results) -> np.ndarray:
    """The examples in the data's units, [examples, features]."""
    given = {name: np.array(values) for name, values in results["examples"].items()}
    return (given["mean"] + given["scale"] * given["x"]).astype(np.float32)


def labels(results: Results) -> np.ndarray:
    """The examples' labels as the data has them: whole numbers, or text."""
    names = np.array(results["data"]["classes"])[results["examples"]["y"]]
    try:
        return names.astype(np.int64)
    except ValueError:
        return names


def show(results: Results, out: Path, console: Console) -> None:
    """Prints the outcome, and where everything is."""
    shown = titled(f"{results['data']['name']}: {ABOUT}")
    for i, title in enumerate(HEADS):
        shown.add_column(title, justify="right" if i else "left")
    for row in _rows(results):
        shown.add_row(*row)
    console.print(shown)
    say(console, summary(results))
    list_files(console, results, out, FILES)


def _rows(results: Results) -> list[list[str]]:
    """The table's, an arm each."""
    rows = []
    for name, arm in results["arms"].items():
        rate = "learned" if arm["rate"] is None else f"{arm['rate']:g}"
        cells = [f"{count(results, name):,}", accuracy(arm), rate, f"{arm['steps']:,}"]
        rows.append([titles(results)[name], *cells])
    return rows


def summary(results: Results) -> list[str]:
    """The outcome in words, whichever way it went."""
    means = {name: float(np.mean(arm["accuracy"])) for name, arm in results["arms"].items()}
    rows, n = results["data"]["rows"], results["call"]["per-class"]
    learned, names = means["learned"], titles(results)
    rivals = sorted((means[name], name) for name in ("random", "centres"))
    best, rival = rivals[-1]
    gain = 100 * (learned - best)
    verdict = (
        f"{gain:.1f} points more than {names[rival]}, the best of the others as small"
        if gain > 0
        else f"no more than {names[rival]} ({best:.3f}): here learning them was not worth it"
    )
    part = count(results, "learned") / rows["train"]
    return [
        f"A network trained on {n} learned example{'s' * (n > 1)} for each class gets "
        f"{learned:.3f} of {rows['test']:,} test rows right, {verdict}.",
        f"That is {learned / means['all']:.1%} of the accuracy that all {rows['train']:,} rows "
        f"give ({means['all']:.3f}), with {part:.1%} of their number.",
        "To train on them: standardise by `mean` and `scale` in distilled.npz, take all examples "
        "at each step, and the rates in results.json.",
        f"{results['minutes']:.1f} minutes.",
    ]


def titles(results: Results) -> dict[str, str]:
    """What the arms are called."""
    n = results["call"]["per-class"]
    return {
        "learned": "learned examples",
        "random": "random real examples",
        "centres": "class means" if n == 1 else f"{n} k-means centres per class",
        "all": "all rows, once",
    }


def count(results: Results, name: str) -> int:
    """How many examples an arm trains on."""
    return results["data"]["rows"]["train"] if name == "all" else len(results["examples"]["y"])


def accuracy(arm: dict[str, Any]) -> str:
    values = arm["accuracy"]
    spread = f" ±{np.std(values, ddof=1):.3f}".replace("±0.", "±.") if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def _write_sheet(folder: Path, results: Results, table: Table) -> None:
    given, shape = results["examples"], table.image or ()
    y, classes = np.array(given["y"]), results["data"]["classes"]
    title = f"hindgrad distill: {figures.plain(results['data']['name'])}"
    images = _signed(np.array(given["x"]), shape)
    about = "minus the mean image, in standard deviations of the pixels"
    if images is None:
        low, high = float(table.x.min()), float(table.x.max())
        scaled = np.clip((in_units(results) - low) / (high - low or 1.0), 0, 1)
        images = _coloured(scaled, shape)
        about = "values outside of the data's range are cut"
    if images is not None:
        sheet = learned_images.sheet_figure(images, y, classes, title=title, about=about)
        figures.save(sheet, folder / "sheet.png")


def _signed(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Images of one channel, [images, height, width]; None if they are not."""
    plain = tuple(size for size in shape if size != 1) if len(shape) == 3 else shape
    return x.reshape(-1, *plain) if len(plain) == 2 else None


def _coloured(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Images in colours, [images, height, width, 3 or 4]; None if they are not."""
    if len(shape) != 3:
        return None
    images = x.reshape(-1, *shape)
    if shape[0] in (3, 4) and shape[2] not in (3, 4):
        images = np.moveaxis(images, 1, 3)
    return images if images.shape[3] in (3, 4) else None


def _write_outcome(folder: Path, results: Results) -> None:
    arms = {titles(results)[name]: arm["accuracy"] for name, arm in results["arms"].items()}
    outcome = learned_images.outcome_figure(
        {"learned": np.array([results["losses"]])},
        arms,
        loss="loss on real rows while learning",
        what="test accuracy",
        smaller_is_better=False,
    )
    figures.save(outcome, folder / "outcome.png")

"""What `hindgrad clean` leaves behind: files, pictures and words, all made from its results."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from hindgrad.apps import datasets
from hindgrad.apps.clean import pictures as suspects
from hindgrad.apps.console import list_files, say
from hindgrad.apps.report import figures
from hindgrad.apps.table import Table
from hindgrad.apps.work import RESULTS

Results = dict[str, Any]

SUSPECTS = "suspects.csv"
CLEANED = "cleaned"
FILES = {
    SUSPECTS: "every row, the most suspicious first",
    f"{CLEANED}.csv": "the data set without them",
    f"{CLEANED}.parquet": "the data set without them",
    f"{CLEANED}.npz": "the data set without them",
    "found.png": "the weights, and which labels were mistaken for which",
    "suspects.png": "the most suspicious images",
    RESULTS: "everything in numbers",
}

SHOWN = 10
"""How many of the suspicious rows are printed."""


def write(folder: Path, results: Results, table: Table, data: str) -> None:
    """Writes all files into a folder."""
    _write_suspects(folder / SUSPECTS, results)
    _write_cleaned(folder, np.array(results["removed"], int), table, data)
    _write_pictures(folder, results, table)


def show(results: Results, out: Path, console: Console) -> None:
    """Prints what was found, what to do next, and where everything is."""
    say(console, summary(results, out))
    list_files(console, results, out, FILES)


def summary(results: Results, out: Path) -> list[str]:
    """The outcome in words."""
    data, weights = results["data"], np.array(results["weight"])
    rows, count, removed = data["rows"], results["suspicious"], len(results["removed"])
    trusted = f", {data['trusted']:,} trusted" if data["trusted"] else ""
    lines = [
        f"{data['name']}: {rows:,} rows, {len(data['classes'])} classes{trusted}. "
        f"{_labels(count)} wrong rather than right (weight below .5; {count / rows:.1%} of the "
        f"rows), {int(np.sum(weights < 0.1)):,} of them almost surely (below .1)."
    ]
    if count:
        lines.append("The most suspicious rows (counted from 0), label → likelier:")
    names, label, likelier = data["classes"], results["label"], results["likelier"]
    for row in results["order"][: min(SHOWN, count)]:
        lines.append(
            f"  row {row}: {names[label[row]]} → {names[likelier[row]]}, weight {weights[row]:.3f}"
        )
    lines.append(f"The cleaned data set leaves out {removed:,} rows and keeps {rows - removed:,}.")
    if count:
        lines.append(
            f"Next: look through {out / SUSPECTS} from the top until the labels are right; then "
            "fix them, or train on the cleaned data set. --remove SHARE leaves out more or fewer."
        )
    return lines


def _labels(count: int) -> str:
    return "1 label looks" if count == 1 else f"{count:,} labels look"


def _write_suspects(path: Path, results: Results) -> None:
    names = results["data"]["classes"]
    label, likelier, weight = results["label"], results["likelier"], results["weight"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "label", "likelier", "weight"])
        for row in results["order"]:
            writer.writerow([row, names[label[row]], names[likelier[row]], f"{weight[row]:.6f}"])


def _write_cleaned(folder: Path, removed: np.ndarray, table: Table, data: str) -> None:
    """The data in its own format, with all its columns, without the removed rows."""
    kept = np.setdiff1d(np.arange(len(table.y)), removed)
    suffix = ".npz" if data in datasets.NAMES else Path(data).suffix.lower()
    path = folder / f"{CLEANED}{suffix}"
    if suffix == ".csv":
        # As text, so that every number, and the header, stays as it was written.
        lines = pd.read_csv(data, dtype=str, keep_default_na=False, header=None)
        lines.iloc[[0, *(kept + 1)]].to_csv(path, index=False, header=False)
    elif suffix == ".parquet":
        frame = pd.read_parquet(data)
        left = frame.iloc[kept]
        plain = isinstance(frame.index, pd.RangeIndex)
        (left.reset_index(drop=True) if plain else left).to_parquet(path)
    else:
        arrays = _kept_arrays(_arrays(data, table), kept, len(table.y))
        np.savez_compressed(path, allow_pickle=False, **arrays)


def _arrays(data: str, table: Table) -> dict[str, np.ndarray]:
    if data in datasets.NAMES:
        given = datasets.load(data)
        return {"x": given.x.reshape(-1, *(table.image or given.x.shape[1:])), "y": given.y}
    with np.load(data, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return {name: a for name, a in arrays.items() if isinstance(a, np.ndarray)}


def _kept_arrays(
    arrays: dict[str, np.ndarray], kept: np.ndarray, rows: int
) -> dict[str, np.ndarray]:
    """Those with an entry for each row lose the removed rows; others stay."""
    return {name: a[kept] if a.shape[:1] == (rows,) else a for name, a in arrays.items()}


def _write_pictures(folder: Path, results: Results, table: Table) -> None:
    data = results["data"]
    found = suspects.Found(
        tuple(data["classes"]),
        np.array(results["weight"]),
        table.y,
        np.array(results["likelier"]),
        np.array(results["order"]),
        results["suspicious"],
        len(results["removed"]),
    )
    title = f"hindgrad clean: {figures.plain(data['name'])}, {data['rows']:,} rows"
    figures.save(suspects.found_figure(found, title=title), folder / "found.png")
    images = None if table.image is None else suspects.as_images(table.x, table.image)
    if images is not None:
        sheet = suspects.sheet_figure(found, images, title=title)
        figures.save(sheet, folder / "suspects.png")

"""What `hindgrad clean` leaves behind: files, pictures and words, all made from its results."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from hindgrad.apps.clean import pictures as suspects
from hindgrad.apps.console import list_files, say
from hindgrad.apps.report import figures
from hindgrad.apps.report.page import Table as Shown
from hindgrad.apps.report.pages import REPORT, write_page
from hindgrad.apps.table import Table
from hindgrad.apps.tables.formats import READERS, TEXTS
from hindgrad.apps.tables.text import COMPRESSED
from hindgrad.apps.work import RESULTS

Results = dict[str, Any]

SUSPECTS = "suspects.csv"
CLEANED = "cleaned"
SUFFIXES = [*READERS, *(text + packed for text in TEXTS for packed in COMPRESSED)]
FILES = {
    REPORT: "what was found, on one page: open it in a browser",
    SUSPECTS: "every row, the most suspicious first",
    **{f"{CLEANED}{suffix}": "the data set without them" for suffix in SUFFIXES},
    "found.png": "the weights, and which labels were mistaken for which",
    "suspects.png": "the most suspicious images",
    RESULTS: "everything in numbers",
}

SHOWN = 10
"""How many of the suspicious rows are printed."""

LISTED = 50
"""How many are on the page."""


def write(folder: Path, results: Results, table: Table) -> None:
    """Writes all files into a folder."""
    _write_suspects(folder / SUSPECTS, results)
    _write_cleaned(folder, np.array(results["removed"], int), table)
    _write_pictures(folder, results, table)
    _write_page(folder, results)


def show(results: Results, out: Path, console: Console) -> None:
    """Prints what was found, what to do next, and where everything is."""
    say(console, summary(results, out))
    list_files(console, results, out, FILES)


def summary(results: Results, out: Path) -> list[str]:
    """The outcome in words."""
    data, weights, count = results["data"], results["weight"], results["suspicious"]
    lines = [_found(results), _judged(results)]
    if count:
        lines.append("The most suspicious rows (counted from 0), label → likelier:")
    names, label, likelier = data["classes"], results["label"], results["likelier"]
    for row in results["order"][: min(SHOWN, count)]:
        change = f"{names[label[row]]} → {names[likelier[row]]}"
        lines.append(f"  row {results['rows'][row]}: {change}, weight {weights[row]:.3f}")
    lines.append(_kept(results))
    lines.append(f"Next: look through {out / SUSPECTS} {AFTER}")
    return lines


AFTER = (
    "from the top until the labels are right; then fix them, or train on the cleaned data set. "
    "--remove SHARE leaves out more or fewer."
)


def _found(results: Results) -> str:
    """How many labels look wrong."""
    data, count = results["data"], results["suspicious"]
    trusted = f", {data['trusted']:,} trusted" if data["trusted"] else ""
    share = f" (weight below .5; {count / data['rows']:.1%} of the rows)" if count else ""
    return (
        f"{data['name']}: {data['rows']:,} rows, {len(data['classes'])} classes{trusted}. "
        f"{_labels(count)} wrong{share}."
    )


def _judged(results: Results) -> str:
    """Who says so, and what speaks for that."""
    precision = results["precision"]
    if not precision:
        return f"Judged by {results['judge']}."
    others = [f"{name} {value:.2f}" for name, value in precision.items()]
    return (
        f"Judged by {results['judge']}. Of labels that were made wrong to see who finds them, the "
        f"average precision was: {', '.join(others)}."
    )


def _kept(results: Results) -> str:
    """How many rows are left out."""
    rows, removed = results["data"]["rows"], len(results["removed"])
    return f"The cleaned data set leaves out {removed:,} rows and keeps {rows - removed:,}."


def _labels(count: int) -> str:
    return {0: "No label looks", 1: "1 label looks"}.get(count, f"{count:,} labels look")


def _write_suspects(path: Path, results: Results) -> None:
    names = results["data"]["classes"]
    label, likelier, weight = results["label"], results["likelier"], results["weight"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "label", "likelier", "weight"])
        for row in results["order"]:
            number, classes = results["rows"][row], [names[label[row]], names[likelier[row]]]
            writer.writerow([number, *classes, f"{weight[row]:.6f}"])


def _write_page(folder: Path, results: Results) -> None:
    names = results["data"]["classes"]
    found = results["order"][: min(LISTED, results["suspicious"])]
    rows = [
        [
            f"row {results['rows'][row]}",
            names[results["label"][row]],
            names[results["likelier"][row]],
            f"{results['weight'][row]:.3f}",
        ]
        for row in found
    ]
    about = "The most suspicious rows, counted from 0 without the header"
    table = Shown(["", "label", "likelier", "weight"], rows, frozenset({3}), about)
    words, after = (
        [_found(results), _judged(results), _kept(results)],
        f"Look through {SUSPECTS} {AFTER}",
    )
    title = f"hindgrad clean: {results['data']['name']}"
    write_page(folder, title, words, [table] if rows else [], FILES, [after] if rows else [])


def _write_cleaned(folder: Path, removed: np.ndarray, table: Table) -> None:
    """The data in its own format, with all its columns, without the removed rows."""
    assert table.origin is not None
    kept = np.setdiff1d(np.arange(table.origin.rows), removed)
    table.origin.write(folder / f"{CLEANED}{table.origin.suffix}", kept)


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

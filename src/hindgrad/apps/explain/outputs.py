"""What `hindgrad explain` leaves behind: the page, tables and words, all made from its results."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from hindgrad.apps.console import list_files, say
from hindgrad.apps.explain import page
from hindgrad.apps.explain.asked import Questions
from hindgrad.apps.explain.attribution import Found
from hindgrad.apps.explain.measures import measure_of, number, percent
from hindgrad.apps.explain.rows import Shown
from hindgrad.apps.explain.start import Start
from hindgrad.apps.explain.words import HEADS, lines
from hindgrad.apps.report.pages import REPORT
from hindgrad.apps.saved import softmax
from hindgrad.apps.work import RESULTS, finite

Results = dict[str, Any]

FILES = {
    REPORT: "the page: open it in a browser",
    "predictions.csv": "the asked rows, and how far what is said of each can be trusted",
    "influences.csv": "the training rows that spoke most for and against",
    "effects.csv": "what leaving out each training row would do to each prediction",
    "labels.csv": "training rows whose labels look wrong because of these predictions",
    "moments.csv": "the predictions while the network was trained",
    "settings.csv": "what ten percent more of each setting would do",
    RESULTS: "everything in numbers",
}

SHOWN = 8
"""Training rows for each prediction, for and against."""

SUSPECTS = 5
"""Labels that look wrong for each prediction."""

MORE = 0.1
"""By this part settings grow."""

WINDOWS = 30
"""Parts of the training in which the steps' scores are summed."""


def queries(
    data: dict[str, Any],
    start: Start,
    asked: Questions,
    explained: Sequence[int | float],
    found: Found,
    certificate: dict[str, Any],
) -> list[dict[str, Any]]:
    """What was found of each asked row, without what is in the arrays."""
    classes = data["kind"] == "classification"
    numbers, results = start.table.numbers[start.pool], []
    for q, query in enumerate(asked.queries):
        last = np.asarray(found.outputs[-1, q], np.float64)
        entry: dict[str, Any] = {
            "name": query.name,
            "row": query.row,
            "part": query.part,
            "label": query.label,
            "right": query.right,
            "explained": int(explained[q]) if classes else None,
            "value": float(found.values[q]),
            "answer": int(last.argmax())
            if classes
            else data["mean"] + data["scale"] * float(found.values[q]),
            "chances": softmax(last[None])[0].tolist() if classes else None,
            "lds": None if certificate["lds"][q] is None else finite(certificate["lds"][q]),
            "settled": _settled(found, q, classes),
        }
        measure = measure_of(entry, data)
        itself = np.flatnonzero(numbers == query.row) if query.part == "train" else []
        spoke = measure.helps * found.removed[q]
        order = np.argsort(-spoke, kind="stable")
        entry["for"] = [int(i) for i in order[:SHOWN] if spoke[i] > 0]
        entry["against"] = [int(i) for i in order[::-1][:SHOWN] if spoke[i] < 0]
        entry["suspects"] = []
        if query.right is not None:
            better = measure.helps * found.relabelled[q]
            odd = found.suspicious & (better < 0) & (spoke < 0)
            odd[itself] = False
            rows = np.flatnonzero(odd)
            order = rows[np.argsort(better[rows], kind="stable")]
            entry["suspects"] = [int(i) for i in order[:SUSPECTS]]
        entry["settings"] = _settings(found, q)
        results.append(entry)
    return results


def _settled(found: Found, q: int, classes: bool) -> int:
    """The step from which on the prediction is what it is in the end."""
    outputs = found.outputs[:, q]
    if classes:
        other = outputs.argmax(-1) != outputs[-1].argmax()
    else:
        other = np.abs(outputs[:, 0] - outputs[-1, 0]) > page.CLOSE
    since = np.flatnonzero(other)
    return int(found.times[since[-1] + 1]) if len(since) else 0


def _settings(found: Found, q: int) -> dict[str, list[float]]:
    """How what is asked changes if a setting grows by a tenth, for each layer."""
    return {
        "rate": (MORE * found.rate[q].sum(0)).tolist(),
        "memory": (MORE * found.memory[q]).tolist(),
        "weight decay": (MORE * found.weight_decay[q]).tolist(),
        "initial scale": (np.log1p(MORE) * found.scale[q]).tolist(),
    }


def write(folder: Path, results: Results, found: Found, start: Start, asked: Questions) -> None:
    """Writes all files into a folder."""
    trained = _trained(start)
    view = page.View(results, found, start, asked, trained, moments(results, found))
    (folder / REPORT).write_text(page.page(view).html(), encoding="utf-8")
    _predictions(folder / "predictions.csv", results)
    _influences(folder / "influences.csv", view)
    _effects(folder / "effects.csv", view)
    _labels(folder / "labels.csv", view)
    _moments(folder / "moments.csv", results, found)
    _settings_table(folder / "settings.csv", results)


def _trained(start: Start) -> Shown:
    """The rows that were trained on."""
    table = start.table
    coded = type(table.coded)(table.coded.columns, table.x[start.pool])
    return Shown.of(coded, table.image, table.x)


def moments(results: Results, found: Found) -> tuple[np.ndarray, np.ndarray]:
    """The parts of the training [windows + 1], as steps, and how what is asked changes if the
    steps in each were a tenth longer, [queries, windows]."""
    steps = results["network"]["steps"]
    edges = np.unique(np.linspace(0, steps, min(WINDOWS, steps) + 1).round().astype(int))
    sums = np.add.reduceat(found.rate.sum(-1, dtype=np.float64), edges[:-1], axis=1)
    return edges, MORE * sums


def show(results: Results, out: Path, console: Console) -> None:
    """Prints what was found, what to do next, and where everything is."""
    say(console, summary(results, out))
    list_files(console, results, out, FILES)


def summary(results: Results, out: Path) -> list[str]:
    """The outcome in words."""
    certificate, entries = results["certificate"], results["queries"]
    names = [entry["name"] for entry in entries]
    found = [page.trained_on(results), page.asked_for(results)]
    found += [f"  {one_answer(entry, results)}" for entry in entries]
    found += ["", HEADS[certificate["verdict"]]]
    found += [
        f"  {line}" for line in lines(certificate, names, tuned=bool(results["call"]["from"]))
    ]
    return [*found, f"Next: open {out / REPORT} in a browser."]


def one_answer(entry: dict[str, Any], results: Results) -> str:
    """A prediction in one line."""
    classes, data = results["data"]["classes"], results["data"]
    truth = page.truth(entry, data) or "no label is known"
    if data["kind"] == "classification":
        chance = percent(entry["chances"][entry["answer"]])
        return f"{entry['name']}: '{classes[entry['answer']]}' ({chance}); {truth}"
    return f"{entry['name']}: {number(entry['answer'])}; {truth}"


def _predictions(path: Path, results: Results) -> None:
    classes = results["data"]["classes"]
    titles = ["row", "part", "label", "predicted", "rank correlation"]
    titles += [f"probability of {name}" for name in classes]
    rows = []
    for entry in results["queries"]:
        answer = classes[entry["answer"]] if classes else f"{entry['answer']:.10g}"
        rank = "" if entry["lds"] is None else f"{entry['lds']:.4f}"
        chances = [f"{p:.6g}" for p in entry["chances"] or ()]
        rows.append([entry["row"], entry["part"], entry["label"], answer, rank, *chances])
    _csv(path, titles, rows)


def _influences(path: Path, view: "page.View") -> None:
    data, rows = view.results["data"], []
    for q, entry in enumerate(view.results["queries"]):
        measure = measure_of(entry, data)
        for side in ("for", "against"):
            for i in entry[side]:
                change = float(view.found.removed[q, i])
                without = f"{measure.becomes(change):.8g}"
                given = [entry["name"], side, view.number(i), view.label(i), without]
                rows.append([*given, f"{measure.becomes(0.0):.8g}", *view.trained.cells(i)])
    titles = ["prediction", "spoke", "row", "label", "without it", "with it"]
    _csv(path, [*titles, *view.trained.names], rows)


def _effects(path: Path, view: "page.View") -> None:
    names = [entry["name"] for entry in view.results["queries"]]
    rows = (
        [view.number(i), view.label(i), *(f"{x:.6g}" for x in view.found.removed[:, i])]
        for i in range(view.found.removed.shape[1])
    )
    _csv(path, ["row", "label", *names], rows)


def _labels(path: Path, view: "page.View") -> None:
    rows = [
        [entry["name"], view.number(i), view.label(i), view.likelier(i), *view.trained.cells(i)]
        for entry in view.results["queries"]
        for i in entry["suspects"]
    ]
    titles = ["prediction", "row", "label", "likelier", *view.trained.names]
    _csv(path, titles, rows)


def _moments(path: Path, results: Results, found: Found) -> None:
    classes, rows = results["data"]["classes"], []
    for q, entry in enumerate(results["queries"]):
        outputs = np.asarray(found.outputs[:, q], np.float64)
        shown = softmax(outputs) if classes else page.in_units(outputs, results)
        for time, values in zip(found.times, shown, strict=True):
            rows.append([entry["name"], int(time), *(f"{x:.6g}" for x in values)])
    names = [f"probability of {name}" for name in classes] or ["predicted"]
    _csv(path, ["prediction", "step", *names], rows)


def _settings_table(path: Path, results: Results) -> None:
    rows = []
    for entry in results["queries"]:
        measure = measure_of(entry, results["data"])
        for name, layers in entry["settings"].items():
            for layer, change in enumerate(layers):
                after = f"{measure.becomes(change):.8g}"
                rows.append([entry["name"], name, layer + 1, after, f"{measure.becomes(0.0):.8g}"])
    _csv(path, ["prediction", "setting", "layer", "with a tenth more", "as it is"], rows)


def _csv(path: Path, titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(titles)
        writer.writerows(rows)

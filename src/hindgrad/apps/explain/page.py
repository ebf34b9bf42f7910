"""The page of an explanation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hindgrad.apps.explain import figures
from hindgrad.apps.explain.asked import Questions, label_of
from hindgrad.apps.explain.attribution import Found
from hindgrad.apps.explain.measures import Measure, measure_of, number, percent
from hindgrad.apps.explain.rows import Shown, cut
from hindgrad.apps.explain.start import Start
from hindgrad.apps.explain.words import HEADS, lines
from hindgrad.apps.report.page import (
    Cell,
    Figure,
    Gallery,
    Link,
    Page,
    Part,
    Picture,
    Section,
    Table,
    Verdict,
    Words,
)
from hindgrad.apps.tables.words import counted

Results = dict[str, Any]

COLUMNS = 16
"""So many columns of a table are shown."""

CLOSE = 0.25
"""A quantity has settled within this part of its standard deviation."""

TONES: dict[str, Literal["good", "unsure", "bad"]] = {
    "certified": "good",
    "undecided": "unsure",
    "not to be trusted": "bad",
}


@dataclass(frozen=True)
class View:
    """All that the page shows."""

    results: Results
    found: Found
    start: Start
    asked: Questions
    trained: Shown
    """The rows that were trained on."""
    moments: tuple[np.ndarray, np.ndarray]
    """Parts of the training, and what longer steps there would do to each prediction."""

    def number(self, i: int) -> int:
        """The number in the file of the `i`th row that was trained on."""
        return int(self.start.table.numbers[self.start.pool[i]])

    def label(self, i: int) -> str:
        """Its label as it is written."""
        table = self.start.table
        return label_of(table, table.y[self.start.pool[i]].item())

    def likelier(self, i: int) -> str:
        """The label that the network found likelier."""
        data, likelier = self.results["data"], self.found.likelier[i].item()
        if data["kind"] == "classification":
            return data["classes"][likelier]
        return number(data["mean"] + data["scale"] * likelier)


def page(view: View) -> Page:
    """The page."""
    results = view.results
    data, certificate = results["data"], results["certificate"]
    names = [entry["name"] for entry in results["queries"]]
    head, *why = [
        HEADS[certificate["verdict"]],
        *lines(certificate, names, tuned=bool(results["call"]["from"])),
    ]
    sections = [_overview(view)]
    if any(entry["suspects"] for entry in results["queries"]):
        sections.append(_suspects(view))
    for q in range(len(names)):
        sections += _prediction(view, q)
    return Page(
        f"hindgrad explain: {data['name']}",
        [*sections, _reading(results)],
        about=[trained_on(results), asked_for(results), *data["notes"]],
        top=[Verdict(TONES[certificate["verdict"]], head, why)],
    )


def trained_on(results: Results) -> str:
    """What was trained, on what, and how well it does."""
    data, network = results["data"], results["network"]
    hidden = " × ".join(map(str, network["sizes"][1:-1])) or "no hidden"
    how = (
        f"with the settings of {results['call']['from']}"
        if results["call"]["from"]
        else "with default settings"
    )
    test = network["test_error"]
    error = f"error {test:.1%}" if data["kind"] == "classification" else f"RMSE {number(test)}"
    return (
        f"{data['name']}: a network ({hidden} units) for '{data['label']}', trained on "
        f"{data['trained']:,} of {data['rows']:,} rows, {data['features']} columns, {how}; on the "
        f"{data['tested']:,} rows to test on, {error}."
    )


def asked_for(results: Results) -> str:
    """Which rows are explained."""
    worst, call = results["worst"], results["call"]
    many = counted(len(results["queries"]), "row")
    if worst is not None:
        which = f"the {many} to test on that it gets most wrong"
    elif call["new"]:
        which = f"all {many} of {call['new']}"
    else:
        which = f"the {many} named by --rows"
    return f"Explained: {which}. Rows are counted from 0, without the header."


def in_units(outputs: np.ndarray, results: Results) -> np.ndarray:
    """A quantity in its own units."""
    return results["data"]["mean"] + results["data"]["scale"] * np.asarray(outputs, np.float64)


def _answer(entry: dict[str, Any], data: dict[str, Any]) -> tuple[str, str]:
    """What the network says, and how sure it is of it."""
    if data["kind"] == "classification":
        return data["classes"][entry["answer"]], percent(entry["chances"][entry["answer"]])
    return number(entry["answer"]), ""


def truth(entry: dict[str, Any], data: dict[str, Any]) -> str:
    """What is known of the right answer; nothing if nothing is."""
    if not entry["label"]:
        return ""
    quoted = f"'{entry['label']}'" if data["kind"] == "classification" else entry["label"]
    return f"the label is {quoted}"


def _overview(view: View) -> Section:
    results, rows = view.results, []
    data, classes = results["data"], results["data"]["kind"] == "classification"
    pictures = view.asked.shown.pictures is not None
    for q, entry in enumerate(results["queries"]):
        answer, chance = _answer(entry, data)
        rank = "nothing to be said" if entry["lds"] is None else f"{entry['lds']:.2f}"
        right = percent(entry["chances"][entry["right"]]) if _judged(entry) else ""
        row: list[Cell] = [
            Link(_whole(entry["name"]), _anchor(entry)),
            *_picture(view.asked.shown, q),
        ]
        row += [entry["label"] or "not known", answer, *([chance, right] if classes else []), rank]
        rows.append(row)
    titles = ["", *([""] if pictures else []), data["label"], "predicted"]
    titles += ["chance of that", "chance of the label"] if classes else []
    titles.append("agreement with retraining")
    count = len(titles)
    numbers = frozenset(range(count - (3 if classes else 1), count))
    return Section("The predictions", [Table(titles, rows, numbers)])


def _judged(entry):
    return entry["chances"] is not None and entry["right"] is not None


def _suspects(view: View) -> Section:
    """The rows whose labels look wrong, and because of which predictions."""
    because: dict[int, list[str]] = {}
    for entry in view.results["queries"]:
        for i in entry["suspects"]:
            because.setdefault(i, []).append(_whole(entry["name"]))
    order = sorted(because, key=lambda i: -len(because[i]))
    clean = "; hindgrad clean goes through all rows" if view.results["data"]["classes"] else ""
    words = Words(
        "While it learned, the network found another label likelier for these training rows, and "
        "they speak against the predictions named. Look at them: the label is wrong, or the row is "
        f"unusual. Correct what is wrong, and run this again{clean}."
    )
    titles = ["label", "likelier", "speaks against"]
    rows = [(i, [view.label(i), view.likelier(i), ", ".join(because[i])]) for i in order]
    return Section("Labels that look wrong", [words, _listed(view, titles, rows)])


def _listed(
    view: View,
    titles: Sequence[str],
    rows: Sequence[tuple[int, Sequence[str]]],
    numbers: frozenset[int] = frozenset(),
) -> Part:
    """Training rows, each with some words: as pictures if they are such."""
    shown = view.trained
    if shown.pictures is None:
        lines = [[_numbered(view.number(i)), *words, *_cells(shown, i)] for i, words in rows]
        return Table(["", *titles, *_titles(shown)], lines, numbers, caption=_caption(shown))
    pictures = []
    for i, words in rows:
        name = f"row {view.number(i)}"
        lines = [f"{title}: {word}" for title, word in zip(titles, words, strict=True)]
        pictures.append((Picture(shown.png(i), name, 88), [name, *lines]))
    return Gallery(pictures)


def _prediction(view: View, q: int) -> list[Section]:
    results, entry = view.results, view.results["queries"][q]
    data = results["data"]
    measure = measure_of(entry, data)
    answer, chance = _answer(entry, data)
    said = f"'{answer}' ({chance})" if chance else answer
    right = f", {truth(entry, data)}" if entry["label"] else ""
    parts: list[Part] = [_row(view, q), *map(Words, _about(entry, measure))]
    first = Section(f"{entry['name'].capitalize()}: {said}{right}", parts, _anchor(entry))
    return [first, *_sides(view, q, measure), *_drawn(view, q, measure)]


def _row(view: View, q: int) -> Part:
    shown = view.asked.shown
    if shown.pictures is not None:
        return Picture(shown.png(q), f"{view.results['queries'][q]['name']}", 140)
    return Table(_titles(shown), [_cells(shown, q)], caption=_caption(shown))


def _about(entry: dict[str, Any], measure: Measure):
    part = {
        "test": "It was not trained on.",
        "train": "The network was trained on this very row, which speaks for its own label.",
        "new": "It is from the other table.",
    }[entry["part"]]
    yield f"{part} The {measure.name} is {measure.shown(measure.becomes(0.0))}."
    if entry["label"] and entry["right"] is None:
        yield f"'{entry['label']}' is no label that the network knows; its prediction is explained."
    if _judged(entry) and entry["answer"] != entry["right"]:
        yield (
            "The prediction differs from the label. If the label of this very row is wrong, the "
            "training rows below that speak against it are those that are right."
        )
    rank = entry["lds"]
    if rank is None:
        yield "Whatever was left out, this prediction did not change: nothing can be said of it."
    elif rank < 0.5:
        yield f"Retraining agrees with what follows by {rank:.2f} only: do not rely on it."


def _sides(view: View, q: int, measure: Measure):
    """The training rows that spoke for and against."""
    entry, data = view.results["queries"][q], view.results["data"]
    if data["kind"] == "classification":
        explained = data["classes"][entry["explained"]]
        heads = [f"Spoke for '{explained}'", f"Spoke against '{explained}'"]
    elif entry["right"] is not None:
        heads = ["Pulled towards the label", "Pulled away from the label"]
    else:
        heads = ["Pushed the prediction up", "Pushed the prediction down"]
    for head, side in zip(heads, ("for", "against"), strict=True):
        yield Section(head, [_influences(view, q, entry[side], measure)], level=3)
    if entry["suspects"]:
        rows = [
            (
                i,
                [
                    view.label(i),
                    view.likelier(i),
                    measure.after(float(view.found.relabelled[q, i])),
                ],
            )
            for i in entry["suspects"]
        ]
        titles = ["label", "likelier", f"{measure.name} with that"]
        parts = [_listed(view, titles, rows, frozenset({3}))]
        yield Section("Labels that look wrong because of it", parts, level=3)


def _influences(view: View, q: int, rows: Sequence[int], measure: Measure) -> Part:
    if not rows:
        return Words("No training row did.")
    words = [(i, [view.label(i), measure.after(float(view.found.removed[q, i]))]) for i in rows]
    return _listed(view, ["label", f"{measure.name} without it"], words, frozenset({2}))


def _drawn(view: View, q: int, measure: Measure):
    """When it was decided, and by which settings."""
    entry, data = view.results["queries"][q], view.results["data"]
    steps = view.results["network"]["steps"]
    edges, scores = view.moments
    outputs = view.found.outputs[:, q]
    if data["kind"] == "regression":
        outputs = in_units(outputs, view.results)
    drawn = figures.moments(view.found.times, outputs, edges, scores[q], measure, entry, data)
    since = f"From step {entry['settled']} of {steps} on, the prediction"
    if data["kind"] == "classification":
        since += " is what it is in the end."
    else:
        near = f"a quarter of the standard deviation of '{data['label']}'"
        since += f" is as near to its end as {number(CLOSE * data['scale'])}, {near}."
    words = Words(
        f"{since} Below: what ten percent longer steps in that part of the training would have "
        f"done to the {measure.name}."
    )
    yield Section("When it was decided", [words, Figure(drawn, 400)], level=3)
    names = sum(map(len, entry["settings"].values()))
    yield Section(
        "Which settings mattered",
        [
            Words(f"What ten percent more of each would do to the {measure.name}."),
            Figure(figures.settings(entry, measure), 110 + 24 * names),
        ],
        level=3,
    )


def _reading(results: Results) -> Section:
    return Section(
        "How to read this",
        [
            Words(
                "Every number says what this very training would have given with a little less of "
                "one thing: one row left out, one label changed, one setting larger, all else the "
                "same. It is the slope of the prediction, followed back exactly through all "
                f"{results['network']['steps']} steps, and so it holds for small changes; the "
                "certificate above says how far. Of many rows at once, the effects add up only "
                "roughly, and two copies of a row share the credit."
            ),
            Words(
                "It does not say what is true, nor what another training, with another seed, would "
                "have made of the data. A row can be right and speak against a prediction, if what "
                "it is like is rare."
            ),
            Words(
                "The memory of the momentum is the number of earlier steps that each step follows; "
                "the weight decay pulls all weights to zero; the initial scale is the size of the "
                "weights before training."
            ),
        ],
    )


def _titles(shown: Shown) -> list[str]:
    return shown.names[:COLUMNS]


def _cells(shown: Shown, row: int) -> list[Cell]:
    return [*map(cut, shown.cells(row)[:COLUMNS])]


def _picture(shown: Shown, row: int) -> list[Cell]:
    if shown.pictures is None:
        return []
    return [Picture(shown.png(row), "the row as a picture", 56)]


def _caption(shown: Shown) -> str:
    if shown.pictures is not None or len(shown.names) <= COLUMNS:
        return ""
    return f"The first {COLUMNS} of {len(shown.names)} columns; influences.csv has all."


def _numbered(row: int) -> str:
    return _whole(f"row {row}")


def _whole(name: str) -> str:
    """A name that no line breaks."""
    return name.replace(" ", "\N{NO-BREAK SPACE}")


def _anchor(entry: dict[str, Any]) -> str:
    return entry["name"].replace(" ", "-")

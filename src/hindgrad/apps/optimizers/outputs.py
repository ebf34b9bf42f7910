"""Tables, pictures and words on learned optimizers beside tuned ones, made from results."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from hindgrad.apps.console import list_files, say
from hindgrad.apps.optimizers.comparison import LEARNED
from hindgrad.apps.report.figures import save
from hindgrad.apps.report.optimizer_curves import Panel, curves_figure, from_json
from hindgrad.apps.report.tables import titled
from hindgrad.apps.work import infinite

Found = Mapping[str, Mapping[str, Any]]
"""What `Comparison.run` gives."""

COLUMNS = ("optimizer", "step", "mean", "median", "low", "high", "rate", "decay")

Line = Literal["mean", "median"]


def write(folder: Path, found: Found, *, title: str, horizon: int | None, lines: list[str]) -> None:
    """Writes the tables and the picture into a folder."""
    _write_csv(folder / "table.csv", found)
    _write_markdown(folder / "table.md", found, title, lines)
    curves = {name: from_json(one["curve"]) for name, one in found.items()}
    learned = {LEARNED: curves.pop(LEARNED)}
    panels = [
        Panel(f"{title}: {line}", learned, curves, horizon, line=line)
        for line in ("mean", "median")
    ]
    save(curves_figure(panels), folder / "curves.png")


def tables(found: Found, title: str) -> list[Table]:
    """What is printed: mean and median losses by step, the lowest of each step in bold."""
    shown = []
    for line in ("mean", "median"):
        table = titled(f"{title}: {line} loss at step")
        table.add_column("", no_wrap=True)
        steps = list(found[LEARNED]["at"])
        for step in steps:
            table.add_column(f"{int(step):,}", justify="right", no_wrap=True)
        if line == "mean":
            table.add_column("rate", justify="right", no_wrap=True)
        best = {step: min(_value(one, step, line) for one in found.values()) for step in steps}
        for name, one in found.items():
            values = {step: _value(one, step, line) for step in steps}
            cells = [_bold(_number(v), v == best[step]) for step, v in values.items()]
            table.add_row(name, *cells, *([_rate(one, steps[-1])] if line == "mean" else []))
        shown.append(table)
    return shown


def summary(found: Found, problems: int, tuning: int) -> list[str]:
    """The outcome in words, whichever way it went."""
    said = [_verdict(found, line) for line in ("mean", "median")]
    said.append(
        f"On {_count(problems)} that neither learning nor tuning saw. Each rate, and decay, is the "
        f"best in the mean over {_count(tuning)}, for each step in the table by itself; the curves "
        "in the picture are those of the last."
    )
    return said + [one["note"] for one in found.values() if one["note"]]


def _verdict(found: Found, line: Line) -> str:
    """Where the learned optimizer is below all others, and by how much at the end."""
    steps = list(found[LEARNED]["at"])
    others = {name: one for name, one in found.items() if name != LEARNED}
    rivals = {s: min(others, key=lambda name, s=s: _value(others[name], s, line)) for s in steps}
    ours = {step: _value(found[LEARNED], step, line) for step in steps}
    theirs = {step: _value(others[rivals[step]], step, line) for step in steps}
    below = [step for step in steps if ours[step] < theirs[step]]
    if len(below) == len(steps):
        where = f"is below every tuned optimizer at all of the steps {_list(steps)}"
    elif below:
        above = [step for step in steps if step not in below]
        where = f"is below every tuned optimizer at {_list(below)}, but not at {_list(above)}"
    else:
        where = f"is below the best tuned optimizer at none of the steps {_list(steps)}"
    last = steps[-1]
    own, other = _number(ours[last]), _number(theirs[last])
    verb = "is " if np.isfinite(ours[last]) else ""
    end = f"At {int(last):,} it {verb}{own}, {rivals[last]} {other}"
    if np.isfinite(ours[last]) and np.isfinite(theirs[last]) and theirs[last] > 0:
        end += f" (ratio {ours[last] / theirs[last]:.2g})"
    return f"In the {line}, the learned optimizer {where}. {end}."


def show(
    results: Mapping[str, Any],
    lines: Sequence[str],
    about: Mapping[str, str],
    out: Path,
    title: str,
    console: Console,
) -> None:
    """Prints the tables, the outcome in words, and where everything is."""
    for table in tables(results["found"], title):
        console.print(table)
    say(console, lines)
    list_files(console, results, out, about)


def _value(one: Mapping[str, Any], step: str, line: Line) -> float:
    return infinite(one["at"][step][line])


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "diverges"
    return f"{value:.3g}" if 1e-4 <= abs(value) < 1e4 or value == 0 else f"{value:.1e}"


def _bold(text: str, bold: bool) -> str:
    return f"[bold]{text}[/]" if bold else text


def _rate(one: Mapping[str, Any], step: str) -> str:
    """The rate, and the decay, for a step."""
    rate, decay = one["at"][step]["rate"], one["at"][step]["decay"]
    if rate is None:
        return ""
    return f"{rate:.3g}" + ("" if decay is None else f", decay {decay:g}")


def _list(steps: Sequence[str]) -> str:
    *rest, last = [f"{int(step):,}" for step in steps]
    return f"{', '.join(rest)} and {last}" if rest else last


def _count(problems: int) -> str:
    return f"{problems:,} problem{'s' * (problems != 1)}"


def _write_csv(path: Path, found: Found) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for name, one in found.items():
            for step, values in one["at"].items():
                cells = [values[column] for column in COLUMNS[2:]]
                # An infinite loss is "inf"; a rate that there is none of is empty.
                writer.writerow([name, step, *("inf" if c is None else c for c in cells[:4])]
                                + ["" if c is None else c for c in cells[4:]])  # fmt: skip


def _write_markdown(path: Path, found: Found, title: str, lines: Sequence[str]) -> None:
    steps = list(found[LEARNED]["at"])
    text = [f"# {title}", ""]
    for line in ("mean", "median"):
        heads = ["", *(f"{int(step):,}" for step in steps), f"rate for {int(steps[-1]):,}"]
        text += [f"The {line} loss at step", "", f"| {' | '.join(heads)} |"]
        text.append("|---|" + "---:|" * (len(steps) + 1))
        for name, one in found.items():
            cells = [_number(_value(one, step, line)) for step in steps]
            text.append(f"| {' | '.join([name, *cells, _rate(one, steps[-1])])} |")
        text.append("")
    path.write_text("\n".join([*text, *lines]) + "\n", encoding="utf-8")

"""What `l2l-quadratic` leaves behind: a table, words and pictures, made from its results."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from experiments import reporting
from experiments.reporting import number
from experiments.runner import Results
from hindgrad.apps.report.optimizer_curves import Panel, Summary, curves_figure, from_json

PAPERS, RELATIVE = "LSTM", "relative LSTM"
LEARNED = (PAPERS, RELATIVE)

LINES = ("mean", "median")

OTHERS, HINDSIGHT = "other problems", "these problems"
"""What the baselines' rates are tuned on: for the mean at one step, or, in hindsight, for each
number alone."""

TUNING = 1_000
"""The tuning of a baseline takes about as long as so many gradients."""

GOAL = {10: 1.23, 20: 0.70, 50: 0.22, 100: 0.118, 200: 0.084}
"""Mean losses of the paper's LSTM, learned once by another implementation on other problems of the
same kind: what is to be reached."""

READ_OFF = {
    PAPERS: {10: 0.27, 20: 0.154, 50: 0.067, 98: 0.041},
    "Adam": {10: 6.97, 20: 2.1, 50: 0.144, 98: 0.052},
    "RMSprop": {10: 1.54, 20: 0.64, 50: 0.115, 98: 0.062},
    "SGD": {10: 0.60, 20: 0.45, 50: 0.30, 98: 0.22},
    "Nesterov": {10: 0.33, 20: 0.20, 50: 0.112, 98: 0.082},
}
"""Mean losses by step, read off the paper's figure to 5 %."""


def write(results: Results, folder: Path) -> None:
    """Writes the tables and the pictures into a folder."""
    columns = ("seed", "optimizer", "tuned on", "problems", "step", *LINES)
    reporting.write_csv(folder / "table.csv", columns, _singles(results))
    reporting.write_markdown(folder, reporting.markdown(_columns(results), _rows(results)))
    pictures = {
        line: curves_figure(_panels(results, line), line=line, source="the paper's figure")
        for line in LINES
    }
    reporting.save(folder, pictures)


def _singles(results: Results) -> Iterator[list[Any]]:
    for seed in results["seeds"]:
        for name, found in seed["optimizers"].items():
            tuned = {"": found} if name in LEARNED else {OTHERS: found, HINDSIGHT: found["best"]}
            for (on, by_count), count in itertools.product(tuned.items(), _counts(results)):
                losses = [map(number, by_count[str(count)][line]) for line in LINES]
                for step, *values in zip(results["call"]["at"], *losses, strict=True):
                    yield [seed["seed"], name, on, count, step, *values]


def _panels(results: Results, line: str) -> list[Panel]:
    """The horizon, and beyond, of the first seed; baselines at their best in hindsight."""
    optimizers = results["seeds"][0]["optimizers"]
    curves = {
        name: from_json(found.get("hindsight", found)["curves"])
        for name, found in optimizers.items()
    }
    horizon = results["call"]["tuned_at"]
    panels = []
    for steps in sorted({horizon, max(results["call"]["at"])}):
        until = {name: Summary(*(line[: steps + 1] for line in c)) for name, c in curves.items()}
        panels.append(
            Panel(
                f"Quadratics, {steps} steps",
                {name: until[name] for name in LEARNED},
                {name: c for name, c in until.items() if name not in LEARNED},
                horizon,
                READ_OFF if line == "mean" and steps == horizon else {},
            )
        )
    return panels


def table(results: Results) -> Table:
    """Means and medians at the reported steps."""
    count = max(_counts(results))
    title = (
        f"Mean and median loss of {count:,} held-out quadratics at each step; baselines tuned on "
        f"others for the mean at {results['call']['tuned_at']}, and (best) on these very problems, "
        "for each number alone"
    )
    steps = results["call"]["at"]
    shown = reporting.table(title, ("step", *map(str, steps)), ())
    rows = _rows(results)
    for what, first in (("mean", 1), ("median", 1 + len(steps))):
        shown.add_section()
        shown.add_row(what)
        for name, *cells in ([row[0], *row[first : first + len(steps)]] for row in rows):
            if set(cells) != {"–"}:
                shown.add_row(f"  {name}", *cells)
    return shown


def summary(results: Results) -> list[str]:
    """The outcome in words, whichever way it went."""
    call, lines = results["call"], []
    for count in _counts(results):
        lines += [_goal_words(results, name, count) for name in LEARNED if _aims(results)]
    count = max(_counts(results))
    for name in LEARNED:
        for what in ("mean", "median"):
            lines.append(_rival_words(results, name, what, count))
    lines.append(_length_words(results, count))
    for name, tuned in results["tuned"].items():
        rate, decay = tuned["hyper"]
        of = f"{rate:.3g}" + (f" and decay {decay:g}" if decay is not None else "")
        edge = ", at the edge of those tried" if tuned["at_edge"] else ""
        end = _values(results, name, "mean", count)[call["at"].index(call["tuned_at"])]
        lines.append(
            f"{name}, tuned on {call['validation']:,} other problems: rate {of}{edge}; mean "
            f"{_show(end)} at step {call['tuned_at']}."
        )
    lines.append(_minutes_words(results))
    lines.append(
        "Read off the paper's figure, its LSTM is at .27/.154/.067/.041 at steps 10/20/50/98, and "
        "its SGD at .60/.45/.30/.22: lower than here from the start, so its problems or its losses "
        "are not quite these. What can be compared is the order of the optimizers."
    )
    return lines


def _goal_words(results: Results, name: str, count: int) -> str:
    steps = _aims(results)
    means = _values(results, name, "mean", count)
    at = [results["call"]["at"].index(step) for step in steps]
    reached = [bool(means[i] <= GOAL[step]) for i, step in zip(at, steps, strict=True)]
    missed = [str(step) for step, r in zip(steps, reached, strict=True) if not r]
    outcome = "all reached" if all(reached) else f"not reached at {', '.join(missed)}"
    return (
        f"{name}, mean loss on {count:,} held-out problems{_over(results)} at steps "
        f"{'/'.join(map(str, steps))}: {'/'.join(_show(means[i]) for i in at)}; aimed at "
        f"{'/'.join(_show(GOAL[step]) for step in steps)}: {outcome}."
    )


def _rival_words(results: Results, name: str, what: str, count: int) -> str:
    """Against each baseline at its best in hindsight for each number."""
    steps, own = results["call"]["at"], _values(results, name, what, count)
    rivals = {rival: _best(results, rival, what, count) for rival in results["tuned"]}
    rival = [min(rivals, key=lambda r: rivals[r][i]) for i in range(len(steps))]
    losing = [
        f"{step} ({rival[i]} {_show(rivals[rival[i]][i])} against {_show(own[i])})"
        for i, step in enumerate(steps)
        if not own[i] < rivals[rival[i]][i]
    ]
    if losing:
        return (
            f"{name}: in the {what}, a baseline at its best in hindsight is lower at step "
            f"{', '.join(losing)}."
        )
    i = steps.index(results["call"]["tuned_at"])
    return (
        f"{name}: in the {what}, lower than every baseline at every step, each with the rate and "
        f"decay that are best there on these very problems; at {steps[i]}, {_show(own[i])} against "
        f"{_show(rivals[rival[i]][i])} ({rival[i]})."
    )


def _length_words(results: Results, count: int) -> str:
    steps, last = results["call"]["at"], max(results["call"]["at"])
    i, j = steps.index(results["call"]["tuned_at"]), steps.index(last)
    ends = [
        f"{name} goes from {_show(v[i])} to {_show(v[j])}"
        for name in LEARNED
        for v in [_values(results, name, "mean", count)]
    ]
    return (
        f"Learned for {steps[i]} steps, from there to step {last} in the mean: {', '.join(ends)}."
    )


def _minutes_words(results: Results) -> str:
    learning = [
        f"{name} {np.mean([s['optimizers'][name]['minutes'] for s in results['seeds']]):.1f}"
        for name in LEARNED
    ]
    tuning = sum(tuned["minutes"] for tuned in results["tuned"].values())
    hindsight = sum(
        s["optimizers"][n]["minutes"] for s in results["seeds"] for n in results["tuned"]
    )
    return (
        f"Minutes of wall-clock: {', '.join(learning)} to learn, each time, compiling included; "
        f"{tuning:.1f} to tune the baselines, {hindsight:.1f} for their best in hindsight."
    )


def _columns(results: Results) -> list[str]:
    steps = results["call"]["at"]
    return ["optimizer", *(f"mean {s}" for s in steps), *(f"median {s}" for s in steps)]


def _rows(results: Results) -> list[list[str]]:
    count = max(_counts(results))
    show = lambda mean, median: [_show(v) for v in (*mean, *median)]
    rows = [
        [name, *show(*(_values(results, name, what, count) for what in ("mean", "median")))]
        for name in results["seeds"][0]["optimizers"]
    ]
    rows += [
        [f"{name}, best", *show(*(_best(results, name, w, count) for w in ("mean", "median")))]
        for name in results["tuned"]
    ]
    steps = results["call"]["at"]
    for name, points in READ_OFF.items():
        # Their curves end at step 98, for 100.
        at = {100 if step == 98 else step: value for step, value in points.items()}
        cells = [f"{at[step]:.3g}" if step in at else "–" for step in steps]
        rows.append([f"{name}, paper", *cells, *["–"] * len(steps)])
    return rows


def _values(results: Results, name: str, what: str, count: int) -> list[float]:
    """At the reported steps, averaged over the seeds."""
    found = [s["optimizers"][name][str(count)][what] for s in results["seeds"]]
    return np.mean([[*map(number, row)] for row in found], axis=0).tolist()


def _best(results: Results, name: str, what: str, count: int) -> list[float]:
    """Those of a baseline at its best in hindsight for each number alone."""
    found = [s["optimizers"][name]["best"][str(count)][what] for s in results["seeds"]]
    return np.mean([[*map(number, row)] for row in found], axis=0).tolist()


def _counts(results: Results) -> list[int]:
    return sorted({results["call"]["few"], results["call"]["many"]})


def _aims(results: Results) -> list[int]:
    return [step for step in GOAL if step in results["call"]["at"]]


def _over(results: Results) -> str:
    seeds = len(results["seeds"])
    return f" (average of {seeds} seeds)" if seeds > 1 else ""


def _show(value: float) -> str:
    if not np.isfinite(value):
        return "inf"
    return f"{value:.0e}" if 0 < value < 1e-3 or value >= 1e3 else f"{value:.3g}"

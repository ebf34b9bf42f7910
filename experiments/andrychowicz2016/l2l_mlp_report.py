"""What `l2l-mlp` leaves behind: a table, words and pictures, made from its results."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from experiments import reporting
from experiments.reporting import number
from experiments.runner import Results
from hindgrad.apps.report.optimizer_curves import Panel, Summary, curves_figure, from_json

Found = Mapping[str, Any]
"""The results of one task."""
Kind = Literal["mean", "median"]

RELU = "ReLU"
"""The networks that none is learned on."""

PAPER_CURVES = {
    "LSTM": {20: 0.456, 50: 0.313, 98: 0.256, 198: 0.210},
    "Adam": {20: 1.46, 50: 0.489, 98: 0.357, 198: 0.303},
    "RMSprop": {20: 1.74, 50: 0.503, 98: 0.357, 198: 0.289},
    "SGD": {20: 1.94, 50: 0.829, 98: 0.468, 198: 0.327},
    "Nesterov": {20: 1.47, 50: 0.462, 98: 0.332, 198: 0.261},
}
"""Read off the paper's figure 4, to about 5 %."""

PAPER_RATIO = 0.256 / 0.332
"""There, the LSTM's loss at step 98 against the best baseline's."""

FAILS = 1.5
"""From how many times the tuned Adam's loss on an optimizer counts as having failed."""


def write(results: Results, folder: Path) -> None:
    """Writes the table and the pictures into a folder."""
    columns = ("networks", "step", "optimizer", "tuned", "rate", "decay", "mean", "median")
    reporting.write_csv(folder / "table.csv", columns, _singles(results))
    text = reporting.markdown(_columns(results), _rows(results), words=2)
    reporting.write_markdown(folder, text)
    paper = PAPER_CURVES if results["call"]["data"] == "mnist" else {}
    (name, base), *others = results["tasks"].items()
    last = results["call"]["steps"]
    lengths = [_panel(f"{name}: {steps} steps", base, steps, paper) for steps in (last // 2, last)]
    networks = [_panel(name, found, last // 2, {}) for name, found in others]
    pictures = {
        "curves": curves_figure(lengths, columns=2),
        "other_networks": curves_figure(networks),
    }
    reporting.save(folder, pictures)


def _panel(title: str, found: Found, steps: int, paper: Mapping[str, Mapping[int, float]]) -> Panel:
    """Curves up to a step, the baselines tuned for their loss there."""
    cut = lambda saved: Summary(*(v[: steps + 1] for v in from_json(_curves(saved))))
    own = found["baselines"]["own"]
    points = {n: {t: v for t, v in curve.items() if t <= steps} for n, curve in paper.items()}
    return Panel(
        title,
        {name: cut(saved) for name, saved in found["learned"].items()},
        {name: cut(tuned[str(steps)]) for name, tuned in own.items()},
        points={name: p for name, p in points.items() if name in {*own, *found["learned"]}},
    )


def _curves(saved: Found) -> Found:
    return {name: saved[name] for name in Summary._fields}


def table(results: Results) -> Table:
    """Mean losses at the reported steps; medians are in the files."""
    problems = results["call"]["problems"]
    columns = [column.removeprefix("step ") for column in _columns(results)]
    rows = [[*row[:2], *(cell.split(" (")[0] for cell in row[2:])] for row in _rows(results)]
    title = f"Mean loss over {problems} held-out problems, by steps"
    return reporting.table(title, columns, rows, words=2)


def summary(results: Results) -> list[str]:
    """Where the learned optimizers win, and where not."""
    tasks = results["tasks"]
    lines = [_task_words(results, name, found) for name, found in tasks.items()]
    base = next(iter(tasks.values()))
    step = results["call"]["steps"] // 2
    (_, ours), (_, others) = best_learned(base, step), best_baseline(base, step)
    lines.append(
        f"The best learned optimizer's loss at step {step} is {ours / others:.3f} of the best "
        f"baseline's (the paper's, at step 98: {PAPER_RATIO:.3f})."
    )
    if RELU in tasks:
        lines.append(_failure_words(tasks[RELU], step))
    lines.append(_edge_words(tasks))
    return [*lines, _cost_words(results)]


def best_baseline(found: Found, step: int, kind: Kind = "mean") -> tuple[str, float]:
    """The baseline that is lowest at a step, each tuned on this task for this very step."""
    own = found["baselines"]["own"]
    return _lowest({name: tuned[str(step)] for name, tuned in own.items()}, step, kind)


def best_learned(found: Found, step: int, kind: Kind = "mean") -> tuple[str, float]:
    """The learned optimizer that is lowest at a step."""
    return _lowest(found["learned"], step, kind)


def _lowest(curves: Mapping[str, Found], step: int, kind: Kind) -> tuple[str, float]:
    values = {name: _at(saved, step, kind) for name, saved in curves.items()}
    name = min(values, key=values.__getitem__)
    return name, values[name]


def _at(saved: Found, step: int, kind: Kind) -> float:
    return number(saved[kind][step])


def _task_words(results: Results, name: str, found: Found) -> str:
    parts = []
    for step in _steps(results, found):
        (learner, ours), (baseline, others) = best_learned(found, step), best_baseline(found, step)
        won = "below" if ours < others else "above"
        parts.append(f"step {step}: {learner} {ours:.3g}, {won} {baseline}'s {others:.3g}")
    return f"Networks {name}: {'; '.join(parts)}."


def _failure_words(found: Found, step: int) -> str:
    """Which of the learned optimizers fail on ReLU."""
    adam = _at(found["baselines"]["own"]["Adam"][str(step)], step, "mean")
    ratios = {name: _at(saved, step, "mean") / adam for name, saved in found["learned"].items()}
    told = ", ".join(
        f"{name} {ratio:.2f}{' (fails)' * (ratio > FAILS)}" for name, ratio in ratios.items()
    )
    return (
        f"ReLU, which none was learned on, at step {step}, as multiples of the loss of Adam tuned "
        f"on ReLU: {told}. (The paper's LSTM: 2.6 against .366, 7.1.)"
    )


def _edge_words(tasks: Mapping[str, Found]) -> str:
    edges = sorted(
        {
            f"{name} on networks {task} at step {step}"
            for task, found in tasks.items()
            for name, tuned in found["baselines"]["own"].items()
            for step, chosen in tuned.items()
            if chosen["at_edge"]
        }
    )
    if not edges:
        return "No baseline's best rate is the smallest or largest of those tried."
    return f"A better rate may lie beyond those tried for: {', '.join(edges)}."


def _cost_words(results: Results) -> str:
    learning = {
        name: sum(how["minutes"] for how in seeds.values())
        for name, seeds in results["learning"].items()
    }
    tasks = results["tasks"].values()
    baselines = sum(sum(found["baselines"]["minutes"].values()) for found in tasks)
    curves = sum(saved["minutes"] for found in tasks for saved in found["learned"].values())
    call = results["call"]
    return (
        f"Minutes: learning {reporting.minutes_in_words(learning)}; tuning and running the "
        f"baselines {baselines:.1f} (rates on "
        f"{call['validation']} problems of their own), running the learned ones {curves:.1f}."
    )


def _steps(results: Results, found: Found) -> list[int]:
    """The reported steps of a task."""
    last = len(next(iter(found["learned"].values()))["mean"]) - 1
    return [t for t in results["call"]["at"] if t <= last]


def _columns(results: Results) -> list[str]:
    return ["networks", "optimizer", *(f"step {t}" for t in results["call"]["at"])]


def _rows(results: Results) -> list[list[str]]:
    """Learned ones, and baselines tuned for each step; also tuned on the base task."""
    rows = []
    for task, found in results["tasks"].items():
        steps = _steps(results, found)
        blank = [""] * (len(results["call"]["at"]) - len(steps))
        for name, saved in found["learned"].items():
            rows.append([task, name, *(_cell(saved, t) for t in steps), *blank])
        for name, tuned in found["baselines"]["own"].items():
            rows.append([task, name, *(_cell(tuned[str(t)], t) for t in steps), *blank])
        if len(rows) and found is not next(iter(results["tasks"].values())):
            for name, saved in found["baselines"]["base"].items():
                label = f"{name}, tuned on the first"
                rows.append([task, label, *(_cell(saved, t) for t in steps), *blank])
    return rows


def _cell(saved: Found, step: int) -> str:
    return f"{_at(saved, step, 'mean'):.3g} ({_at(saved, step, 'median'):.3g})"


def _singles(results: Results) -> Iterator[list[Any]]:
    for task, found in results["tasks"].items():
        for step in _steps(results, found):
            for name, tuned, saved in _optimizers(found, step):
                hyper = [saved["rate"], saved["decay"] or ""] if tuned else ["", ""]
                losses = [_at(saved, step, kind) for kind in ("mean", "median")]
                yield [task, step, name, tuned, *hyper, *losses]


def _optimizers(found: Found, step: int) -> Iterator[tuple[str, str, Found]]:
    """All optimizers of a task, what their rates were tuned on, and their losses."""
    for name, saved in found["learned"].items():
        yield name, "", saved
    for name, tuned in found["baselines"]["own"].items():
        yield name, "for this", tuned[str(step)]
    for name, saved in found["baselines"]["base"].items():
        yield name, "on the first", saved

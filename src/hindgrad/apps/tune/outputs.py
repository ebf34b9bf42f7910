"""What `hindgrad tune` leaves behind: files and words, all made from its results."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from hindgrad.apps.console import list_files, say
from hindgrad.apps.model import Network
from hindgrad.apps.report import figures, interactive, page, tables
from hindgrad.apps.report.figures import Curve, Tuned
from hindgrad.apps.report.page import Section, Words
from hindgrad.apps.report.pages import REPORT, write_page
from hindgrad.apps.report.tables import METRICS, Arm, Paired
from hindgrad.apps.tune import recall
from hindgrad.apps.tune.hyperfile import FORMAT, every_step, load_form, to_units
from hindgrad.apps.tune.trials import load_hyper
from hindgrad.apps.work import RESULTS, infinite
from hindgrad.cost import HYPERGRADIENT
from hindgrad.files import write_json

NEXT = (
    "hindgrad predict FOLDER MORE --out answers.csv predicts the rows of another table by the "
    "model in this folder.",
    "hindgrad explain DATA --from FOLDER says which rows, labels and settings made its "
    "predictions.",
    "hindgrad tune DATA --from FOLDER/hyperparameters.json goes on from these hyperparameters.",
)

Results = dict[str, Any]
Runs = Sequence[Mapping[str, Any]]

MODEL = "model"

FILES = {
    "hyperparameters.json": "the hyperparameters, for --from",
    MODEL: "the trained networks, for hindgrad predict",
    REPORT: "the tables and pictures on one page, and what to do next: open it in a browser",
    "table.csv": "every arm on every seed",
    "table.md": "the tables, to be read",
    "overview.png": "the story at a glance",
    "curves.png": "learning curves before and after",
    "schedules.png": "what was learned, by layer and step",
    "progress.png": "tuning against the searches at equal cost",
    RESULTS: "everything in numbers",
}


def answer(runs: Runs) -> str:
    """The name of the arm that is the command's answer: the last."""
    return list(runs[0]["arms"])[-1]


def best_seed(runs: Runs, name: str | None = None) -> int:
    """The seed whose answer, or other arm, validates best."""
    arm = name or answer(runs)
    return min(runs, key=lambda run: infinite(run["arms"][arm]["valid_loss"]))["seed"]


def recommended(runs: Runs) -> str:
    """The arm that validates best in the mean over the seeds: the answer unless another does."""
    names = list(runs[0]["arms"])
    return min(reversed(names), key=lambda name: _arm(runs, name).mean("valid_loss"))


def compared(runs: Runs) -> list[str]:
    """The arms of the table: of each search, the space that served it better in validation."""
    names = list(runs[0]["arms"])
    chosen = []
    for name in names:
        family = [other for other in names if other.split(",")[0] == name.split(",")[0]]
        if name == min(family, key=lambda other: _arm(runs, other).mean("valid_loss")):
            chosen.append(name)
    return chosen


def write(folder: Path, results: Results, model: Path) -> None:
    """Writes all files into a folder."""
    runs = results["runs"]
    arms, comparisons = _arms(results)
    write_json(folder / "hyperparameters.json", _hyper_file(results))
    shutil.copytree(model, folder / MODEL)
    seeds = [run["seed"] for run in runs]
    every = [_arm(runs, name) for name in runs[0]["arms"]]
    rivals = beside(runs)
    tables.write_csv(folder / "table.csv", [*every, *rivals], seeds)
    error, words = _error_name(results), summary(results)
    recalls = recall.of(results, compared(runs))
    further = tables.recall_markdown(*recalls) if recalls else []
    tables.write_markdown(folder / "table.md", [*arms, *rivals], comparisons, error, words, further)
    drawn = _Drawn.of(results, arms)
    _write_pictures(folder, results, drawn)
    title = f"hindgrad tune: {results['data']['name']}"
    shown = tables.page_tables([*arms, *rivals], comparisons, error, answer(runs))
    shown += [tables.recall_page(*recalls)] if recalls else []
    words += results["data"]["notes"]
    write_page(folder, title, words, shown, FILES, NEXT, figures=_sections(drawn))


def show(results: Results, out: Path, console: Console) -> None:
    """Prints the tables, a summary in words, and where everything is."""
    arms, comparisons = _arms(results)
    error = _error_name(results)
    runs = results["runs"]
    console.print(tables.results_table(arms, error, len(runs), beside(runs)))
    if comparisons:
        console.print(tables.paired_table(comparisons, error, answer(runs)))
    if recalls := recall.of(results, compared(runs)):
        console.print(tables.recall_table(*recalls))
    say(console, summary(results))
    list_files(console, results, out, FILES)


def summary(results: Results) -> list[str]:
    """The outcome in words, whichever way it went."""
    runs, data = results["runs"], results["data"]
    seeds = [run["seed"] for run in runs]
    arms, _ = _arms(results)
    last = arms[-1]
    which = f"seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"seed {seeds[0]}"
    lines = [
        f"{data['name']}: {data['rows']:,} rows, {data['features']} features, {data['kind']}; "
        f"{which}, {results['call']['steps']} training steps.",
        _outcome(arms) if len(arms) > 1 else "Nothing was tuned.",
    ]
    kept = results["kept"]
    if kept["arm"] != last.name:
        lines.append(f"Here {last.name} did not pay: {kept['arm']} validates better.")
    lines.append(
        f"Kept: the hyperparameters of {kept['arm']}, seed {kept['seed']}, which validate best, "
        f"and {_networks(kept)} trained with them for {kept['steps']:,} steps on all "
        f"{kept['rows']:,} rows but those for testing; on these {kept['test_rows']:,} "
        f"the loss of {'it' if kept['networks'] == 1 else 'their mean'} is "
        f"{infinite(kept['test_loss']):.4f}, the {_error_name(results)} "
        f"{infinite(kept['test_error']):.4g}."
    )
    lines += _beside_in_words(results)
    run = next(run for run in runs if run["seed"] == results["best_seed"])
    if "how" in run:
        lines.append(f"How seed {run['seed']} was tuned: {' '.join(run['how'].split())}")
    return lines


def _networks(kept: Mapping[str, Any]) -> str:
    count = kept["networks"]
    what = "a network" if count == 1 else f"{count} networks"
    return what + (" that take numbers by rank, in waves, too," if kept["bent"] else "")


def _outcome(arms: Sequence[Arm]) -> str:
    """The last arm beside the best of the others."""
    last, rivals = arms[-1], arms[1:-1] or arms[:1]
    rival = min(rivals, key=lambda arm: arm.mean("valid_loss"))
    what = f"the better search ({rival.name})" if len(arms) > 2 else "the defaults"
    loss, other = last.mean("test_loss"), rival.mean("test_loss")
    change, found = loss / other - 1, tables.paired(last, rival, "test_loss")
    side = "below" if change < 0 else "above"
    return (
        f"{last.name}: test loss {loss:.4f}, {abs(change):.0%} {side} {what}, {other:.4f}; "
        f"lower on {found.wins} of {found.seeds} seeds."
    )


def _arms(results: Results) -> tuple[list[Arm], list[Paired]]:
    runs = results["runs"]
    arms = [_arm(runs, name) for name in compared(runs)]
    pairs = [(arm, metric) for arm in arms[:-1] for metric in ("valid_loss", "test_loss")]
    pairs += [(rival, "test_error") for rival in beside(runs)]  # trees are often too sure
    test = results["call"]["test"]
    redrawn = test / (1 - test)
    return arms, [tables.paired(arms[-1], rival, metric, redrawn) for rival, metric in pairs]


def _arm(runs: Runs, name: str) -> Arm:
    found = [run["arms"][name] for run in runs]
    return Arm(name, [arm["evaluations"] for arm in found], _values(found))


def beside(runs: Runs) -> list[Arm]:
    """What a person would use instead, which costs no training gradients."""
    names = list(runs[0]["rivals"])
    each = {name: [run["rivals"][name] for run in runs] for name in names}
    return [Arm(name, [0] * len(runs), _values(found)) for name, found in each.items()]


def _values(found: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    return {m: np.array([infinite(one[m]) for one in found]) for m in METRICS}


def _beside_in_words(results: Results) -> list[str]:
    """Whether the kept network is the best to be had, by the error in validation."""
    runs, rivals = results["runs"], beside(results["runs"])
    if not rivals:
        return []
    every = [(name, one) for run in runs for name, one in run["rivals"].items()]
    failed = {name: one["failed"] for name, one in every if "failed" in one}
    kept = _arm(runs, results["kept"]["arm"])
    rival = min(rivals, key=lambda arm: arm.mean("valid_error"))
    error, mean = _error_name(results), lambda arm, part: f"{arm.mean(f'{part}_error'):.4g}"
    line = (
        f"Beside the network ({kept.name}), whose {error} is {mean(kept, 'valid')} in validation "
        f"and {mean(kept, 'test')} on the test rows: {rival.name}, {mean(rival, 'valid')} and "
        f"{mean(rival, 'test')}."
    )
    if rival.mean("valid_error") < kept.mean("valid_error"):
        line += f" Here you may do better with {rival.name}."
    return [line, *(f"{name} could not be trained: {why}" for name, why in failed.items())]


def _error_name(results: Results) -> str:
    return "error" if results["data"]["kind"] == "classification" else "RMSE"


def _hyper_file(results: Results) -> dict[str, Any]:
    runs, kept = results["runs"], results["kept"]
    units = {run["seed"]: to_units(load_hyper(run["arms"][kept["arm"]]["hyper"])) for run in runs}
    return {
        "format": FORMAT,
        "about": "rate and decay: a row for each knot of the schedule (windows: equal parts of the "
        "training; linear, spline: joined in the scale of log and logit), a column for each layer; "
        "weight_decay and scale: one for each layer. 'hyper' is the best seed's.",
        "schedule": results["schedule"],
        "sizes": results["sizes"],
        "steps": kept["steps"],
        "batch": results["call"]["batch"],
        "arm": kept["arm"],
        "seed": kept["seed"],
        "hyper": units[kept["seed"]],
        "every_seed": {str(seed): values for seed, values in units.items()},
    }


@dataclass(frozen=True)
class _Drawn:
    """What the pictures and the figures of the page show."""

    arms: Sequence[Arm]
    curves: Mapping[str, tuple[Curve, Curve]]
    tuned: Tuned
    progress: Mapping[str, Curve]
    answers: figures.Answers
    loss: str
    """What it is called."""

    @classmethod
    def of(cls, results: Results, arms: Sequence[Arm]) -> "_Drawn":
        """From the results."""
        is_regression = results["data"]["kind"] == "regression"
        progress = _progress(results, [arm.name for arm in arms])
        drawn = (arm for arm in arms if arm.name in progress)
        return cls(
            arms=arms,
            curves={name: _curve_pair(curve) for name, curve in results["curves"].items()},
            tuned=_tuned(results),
            progress=progress,
            answers={arm.name: (max(arm.evaluations), arm.mean("valid_loss")) for arm in drawn},
            loss="squared error (standardised)" if is_regression else "loss",
        )

    @property
    def default(self) -> float:
        """The loss that all arms begin at."""
        return self.arms[0].mean("valid_loss")


def _write_pictures(folder: Path, results: Results, drawn: _Drawn) -> None:
    data = results["data"]
    name = figures.plain(data["name"])
    title = f"hindgrad tune: {name}, {data['rows']:,} rows, {len(results['runs'])} seeds"
    overview = figures.overview_figure(
        drawn.arms,
        drawn.curves,
        drawn.tuned,
        drawn.progress,
        drawn.answers,
        title=title,
        loss=drawn.loss,
    )
    figures.save(overview, folder / "overview.png")
    figures.save(figures.curves_figure(drawn.curves, drawn.loss), folder / "curves.png")
    figures.save(figures.schedules_figure(drawn.tuned), folder / "schedules.png")
    if drawn.progress:
        given = drawn.progress, drawn.answers, drawn.default, drawn.loss
        figures.save(figures.progress_figure(*given), folder / "progress.png")


def _sections(drawn: _Drawn) -> list[Section]:
    """The figures of the page."""
    shown = {"The outcome, seed by seed": interactive.outcome(drawn.arms, drawn.loss)}
    if drawn.progress:
        given = drawn.progress, drawn.answers, drawn.default, drawn.loss
        shown["Tuning, beside the searches at equal cost"] = interactive.progress(*given)
    shown["What was learned, by layer and step"] = interactive.schedules(drawn.tuned)
    shown["Learning curves"] = interactive.curves(drawn.curves, drawn.loss)
    hint = Words("Point at a line to read its numbers; a click in the legend hides or shows one.")
    sections = [Section(title, [page.Figure(figure, 360)]) for title, figure in shown.items()]
    return [Section("In pictures", [hint]), *sections]


def _curve_pair(curve: Mapping[str, Any]) -> tuple[Curve, Curve]:
    steps = np.array(curve["steps"])
    values = [np.array(curve[part], float) for part in ("train", "valid")]
    return Curve(steps, values[0]), Curve(steps, values[1])


def _tuned(results: Results) -> Tuned:
    runs, best, call = results["runs"], results["best_seed"], results["call"]
    form, kind = load_form(results["schedule"]), results["data"]["kind"]
    network = Network(tuple(results["sizes"]), kind, call["steps"], call["batch"], form)
    learned = {run["seed"]: load_hyper(run["arms"][answer(runs)]["hyper"]) for run in runs}
    values = {seed: every_step(hyper, network) for seed, hyper in learned.items()}
    others = [shown for seed, shown in values.items() if seed != best]
    return Tuned(values[best], others, every_step(network.defaults(), network), network.steps)


def _progress(results: Results, names: Sequence[str]) -> dict[str, Curve]:
    """Validation loss against training gradients: the tuning's is that of its latest iterates,
    each on a fresh draw; a search's that of the candidate it would answer with, on fresh draws."""
    runs, steps = results["runs"], results["call"]["steps"]
    curves = {}
    for name in names:
        if name in runs[0]["traces"]:
            budget = max(run["traces"][name][-1][0] for run in runs)
            grid = np.arange(1, budget + 1)
            values = [_staircase(run["traces"][name], grid) for run in runs]
            curves[name] = Curve(grid * steps, np.array(values))
    if runs[0]["history"]:
        length = min(len(run["history"]) for run in runs)
        values = np.array([_smooth(run["history"][:length]) for run in runs])
        curves["tuned"] = Curve(HYPERGRADIENT * steps * np.arange(1, length + 1), values)
    return curves


def _smooth(values: Sequence[float | None], width: int = 5) -> np.ndarray:
    """Means over the latest few, since each is of one draw only."""
    array = np.array(values, float)
    return np.array([array[max(0, i - width + 1) : i + 1].mean() for i in range(len(array))])


def _staircase(trace: Sequence[Sequence[Any]], grid: np.ndarray) -> np.ndarray:
    """The value that holds at each point of the grid; a trace begins at 1."""
    counts = np.array([count for count, _ in trace])
    values = np.array([infinite(value) for _, value in trace])
    return values[np.searchsorted(counts, grid, side="right") - 1]

"""`hindgrad learn-optimizer`: learns an optimizer, and measures it beside tuned ones."""

import shutil
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from hindgrad.apps.console import say
from hindgrad.apps.optimizers import outputs as optimizer_outputs
from hindgrad.apps.optimizers import recipes
from hindgrad.apps.optimizers.compare import WEIGHTS
from hindgrad.apps.optimizers.comparison import COARSE, PIECES, Comparison
from hindgrad.apps.optimizers.recipes import Recipe
from hindgrad.apps.optimizers.settings import LearnOptimizer
from hindgrad.apps.report import figures
from hindgrad.apps.report.optimizer_curves import history_figure
from hindgrad.apps.settings import ArgumentError, identity
from hindgrad.apps.work import RESULTS, Work, finite
from hindgrad.learned.store import load, save
from hindgrad.progress import Bar

FILES = {
    WEIGHTS: "the optimizer: hg.learned.load reads it",
    "curves.png": "losses over the steps, mean and median",
    "history.png": "how the learning went",
    "table.md": "the tables, to be read",
    "table.csv": "the same, with the rates for each step and quantiles",
    RESULTS: "everything in numbers",
}

PROBLEMS = {"quadratic": 128, "mlp": 128, "conv": 16}
TUNING = {"quadratic": 1024, "mlp": 64, "conv": 8}

DEFAULTS = {"steps": 100, "unroll": 20, "batch": 128}
"""Those of `fit`."""

DECAYS = (0.9,)


def run(settings: LearnOptimizer, console: Console) -> None:
    """Runs the command: prints the outcome, and where everything is."""
    work = Work.of(settings)
    recipe = getattr(recipes, settings.family.upper())
    chosen = arguments(settings, recipe)
    # The data are read, or refused, before anything begins.
    problems = recipe.settings.get("held_out") or recipe.family()
    call = identity(settings)
    results = work.results(
        call,
        lambda: {"call": call, **_results(settings, recipe, chosen, problems, work)},
        lambda folder, results: write(folder, results, work.folder / WEIGHTS),
        report=partial(say, console),
    )
    title, lines = results["call"]["family"], summary(results)
    optimizer_outputs.show(results, lines, FILES, settings.out, title, console)


def arguments(settings: LearnOptimizer, recipe: Recipe) -> dict[str, Any]:
    """What `fit` is given in place of the recipe's arguments.

    Raises `ArgumentError` if they do not fit together.
    """
    chosen = {name: getattr(settings, name) for name in ("iterations", *DEFAULTS)}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    steps, unroll = (_setting(chosen, recipe, name) for name in ("steps", "unroll"))
    if steps % min(steps, unroll):
        raise ArgumentError(
            f"--steps {steps} is no multiple of --unroll {unroll}; give two numbers that fit."
        )
    if "steps" in chosen or "unroll" in chosen:
        # A curriculum and weights of steps are for the recipe's own lengths.
        chosen |= {"horizons": (), "step_weights": None}
    return chosen


def _setting(chosen: dict[str, Any], recipe: Recipe, name: str) -> int:
    return chosen.get(name, recipe.settings.get(name, DEFAULTS[name]))


def _results(
    settings: LearnOptimizer, recipe: Recipe, chosen: dict[str, Any], problems: Any, work: Work
) -> dict[str, Any]:
    steps = _setting(chosen, recipe, "steps")
    with Bar(2 * PIECES) as bar:
        bar.stage("learning")
        learn = lambda: _learn(settings, recipe, chosen, work, bar)
        learning = work.kept("learning", learn, arrays=work.folder / WEIGHTS)
        bar.done(PIECES)
        comparison = Comparison(
            trained=load(work.folder / WEIGHTS),
            family=problems,
            steps=steps,
            problems=settings.problems or PROBLEMS[settings.family],
            tuning=settings.tuning or TUNING[settings.family],
            seed=settings.seed,
            rates=COARSE,
            decays=DECAYS,
        )
        found = comparison.run(work, bar)
    return {
        "found": found,
        "learning": learning,
        "problems": comparison.problems,
        "tuning": comparison.tuning,
        "minutes": {
            "learning": learning["notes"]["minutes"],
            "comparing": sum(one["seconds"] for one in found.values()) / 60,
        },
    }


def _learn(
    settings: LearnOptimizer, recipe: Recipe, chosen: dict[str, Any], work: Work, bar: Bar
) -> dict[str, Any]:
    """Learns the optimizer and saves it; returns how it went."""
    with bar.paused():
        begun = time.monotonic()
        result = recipe.fit(
            key=settings.seed,
            checkpoint=work.folder / "states",
            progress=bar.shown,
            **chosen,
        )
    notes = {
        "family": settings.family,
        "iterations": chosen.get("iterations", recipe.iterations),
        **{name: _setting(chosen, recipe, name) for name in DEFAULTS},
        "seed": settings.seed,
        "held-out": finite(result.value),
        "hindgrad": version("hindgrad"),
        "minutes": (time.monotonic() - begun) / 60,
    }
    save(work.folder / WEIGHTS, recipe.optimizer, result.weights, notes)
    return {
        "notes": notes,
        "optimizer": repr(recipe.optimizer),
        "message": result.message,
        "history": [
            {"iteration": e.iteration, "value": finite(e.value), "training": finite(e.training)}
            for e in result.history
        ],
    }


def write(folder: Path, results: dict[str, Any], weights: Path) -> None:
    """Writes all files into a folder."""
    shutil.copyfile(weights, folder / WEIGHTS)
    title = results["call"]["family"]
    lines = summary(results)
    optimizer_outputs.write(folder, results["found"], title=title, horizon=None, lines=lines)
    learning = results["learning"]
    history = [(e["iteration"], e["value"]) for e in learning["history"]]
    best = next((i for i, v in history if v == learning["notes"]["held-out"]), 0)
    drawn = history_figure(history, about="what is lowered, on held-out problems", best=best)
    figures.save(drawn, folder / "history.png")


def summary(results: dict[str, Any]) -> list[str]:
    """The outcome in words."""
    minutes, notes = results["minutes"], results["learning"]["notes"]
    return [
        *optimizer_outputs.summary(results["found"], results["problems"], results["tuning"]),
        f"Rates are from a coarse grid, and the decay is {DECAYS[0]:g}: hindgrad "
        "compare-optimizers tunes both finely.",
        f"{results['learning']['message']} {minutes['learning']:.1f} minutes of learning "
        f"({notes['iterations']:,} gradients of {notes['batch']} problems), "
        f"{minutes['comparing']:.1f} of comparing.",
    ]

"""`hindgrad compare-optimizers`: a learned optimizer beside tuned ones."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from hindgrad.apps.console import say
from hindgrad.apps.optimizers import outputs as optimizer_outputs
from hindgrad.apps.optimizers.comparison import PIECES, Comparison, family
from hindgrad.apps.optimizers.settings import OPTIONS, CompareOptimizers
from hindgrad.apps.settings import ArgumentError, identity
from hindgrad.apps.work import RESULTS, Work
from hindgrad.learned.problems import Family
from hindgrad.learned.store import SHIPPED, Trained, load, shipped
from hindgrad.progress import Bar

WEIGHTS = "optimizer.safetensors"

FILES = {
    "curves.png": "losses over the steps, mean and median",
    "table.md": "the tables, to be read",
    "table.csv": "the same, with the rates for each step and quantiles",
    RESULTS: "everything in numbers",
}


def run(settings: CompareOptimizers, console: Console) -> None:
    """Runs the command: prints the outcome, and where everything is."""
    work = Work.of(settings)
    path = find(settings.optimizer)
    trained = read(path)
    options = {name: getattr(settings, name) for name in OPTIONS[settings.on]}
    problems = family(settings.on, **options)
    call = identity(settings) | {"fingerprint": hashlib.sha256(path.read_bytes()).hexdigest()}
    results = work.results(
        call,
        lambda: {"call": call, **_results(settings, trained, problems, options, work)},
        write,
        report=partial(say, console),
    )
    lines = summary(results)
    title = results["title"]
    optimizer_outputs.show(results, lines, FILES, settings.out, title, console)


def find(name: str) -> Path:
    """The file of a learned optimizer: in a folder, the file itself, or one that ships.

    Raises `ArgumentError` if there is none.
    """
    path = Path(name)
    if path.is_dir():
        if (path / WEIGHTS).is_file():
            return path / WEIGHTS
        if (path / ".work").exists():
            raise ArgumentError(
                f"{name}: the learning in this folder is not finished; go on with "
                f"hindgrad learn-optimizer … --out {name} --resume."
            )
        raise ArgumentError(
            f"{name}: there is no {WEIGHTS} in this folder; name one that hindgrad "
            "learn-optimizer wrote."
        )
    if path.is_file():
        return path
    if name in shipped():
        return SHIPPED / f"{name}.safetensors"
    names = ", ".join(shipped()) or "none"
    raise ArgumentError(
        f"{name}: no such folder or file, and no optimizer that comes with the package ({names})."
    )


def read(path: Path) -> Trained:
    """The optimizer in a file.

    Raises `ArgumentError` if it is damaged or of another kind.
    """
    try:
        return load(path)
    except ValueError as error:
        raise ArgumentError(str(error)) from error


def _results(
    settings: CompareOptimizers,
    trained: Trained,
    problems: Family,
    options: dict[str, Any],
    work: Work,
) -> dict[str, Any]:
    comparison = Comparison(
        trained=trained,
        family=problems,
        steps=settings.steps,
        problems=settings.problems,
        tuning=settings.tuning,
        seed=settings.seed,
    )
    with Bar(PIECES) as bar:
        found = comparison.run(work, bar)
    given = [f"{name} {value}" for name, value in options.items() if value is not None]
    return {
        "title": ", ".join([settings.on, *given]),
        "found": found,
        "horizon": trained.notes.get("steps"),
        "notes": dict(trained.notes),
        "minutes": sum(one["seconds"] for one in found.values()) / 60,
    }


def write(folder: Path, results: dict[str, Any]) -> None:
    """Writes all files into a folder."""
    horizon = results["horizon"]
    optimizer_outputs.write(
        folder,
        results["found"],
        title=results["title"],
        horizon=horizon if isinstance(horizon, int) else None,
        lines=summary(results),
    )


def summary(results: dict[str, Any]) -> list[str]:
    """The outcome in words."""
    call = results["call"]
    lines = optimizer_outputs.summary(results["found"], call["problems"], call["tuning"])
    return [*lines, f"{results['minutes']:.1f} minutes."]

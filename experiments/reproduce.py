"""`python -m experiments`: runs an experiment from a paper, and reports it."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.base import Experiment, Pieces
from experiments.settings import Reproduce
from hindgrad.apps.console import list_files, say
from hindgrad.apps.work import Work
from hindgrad.progress import Bar as Line

ROOT = Path(__file__).parent
PAPERS = ("maclaurin2015", "franceschi2017", "andrychowicz2016")


def find(name: str) -> Experiment:
    """The experiment of that name, `EXPERIMENT` in the module of that name."""
    file = name.replace("-", "_")
    paper = next(paper for paper in PAPERS if (ROOT / paper / f"{file}.py").exists())
    return importlib.import_module(f"experiments.{paper}.{file}").EXPERIMENT


def settings_of(asked: Reproduce, experiment: Experiment) -> Any:
    """The experiment's settings, with what was asked for otherwise."""
    settings = experiment.full if asked.full else experiment.default
    seeds = settings.seeds if asked.seeds is None else asked.seeds
    return dataclasses.replace(settings, seeds=seeds, seed=asked.seed)


def run(asked: Reproduce, console: Console) -> None:
    """Runs the command: prints the table, and where everything is."""
    asked.check()
    experiment = find(asked.name)
    reproduce(experiment, settings_of(asked, experiment), asked, console)


def reproduce(experiment: Experiment, settings: Any, asked: Reproduce, console: Console) -> None:
    """Runs an experiment with these settings in the folder that was asked for."""
    folder, report = asked.folder, experiment.report
    work = Work(folder, resume=asked.resume, overwrite=asked.overwrite)
    work.check()
    call = {"name": experiment.name, **dataclasses.asdict(settings)}

    def compute():
        with Line(experiment.total(settings)) as line:
            return {"call": call, **experiment.run(settings, Pieces(work), line)}

    def write(final, results):
        report.write(results, final)
        lines = [f"# {experiment.name}", "", experiment.about, "", *report.summary(results)]
        (final / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")

    results = work.results(call, compute, write, report=lambda lines: say(console, lines))
    console.print(report.table(results))
    say(console, report.summary(results))
    list_files(console, results, folder, {})

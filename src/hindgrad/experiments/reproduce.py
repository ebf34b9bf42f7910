"""`hindgrad reproduce`: runs an experiment from a paper, and reports it."""

import dataclasses
import importlib
from typing import Any

from rich.console import Console

from hindgrad.experiments.base import Experiment, Pieces
from hindgrad.tools.progress import Line
from hindgrad.tools.settings import Reproduce
from hindgrad.tools.work import RESULTS, Work, write_json


def find(name: str) -> Experiment:
    """The experiment of that name, `EXPERIMENT` in the module of that name."""
    module = importlib.import_module("hindgrad.experiments." + name.replace("-", "_"))
    return module.EXPERIMENT


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
    work = Work(folder)
    work.check(resume=asked.resume, overwrite=asked.overwrite)
    call = {"name": experiment.name, **dataclasses.asdict(settings)}
    call = {name: list(v) if isinstance(v, tuple) else v for name, v in call.items()}

    def compute():
        with Line(experiment.total(settings)) as line:
            return {"call": call, **experiment.run(settings, Pieces(work), line)}

    def write(final, results):
        report.write(results, final)
        lines = [f"# {experiment.name}", "", experiment.about, "", *report.summary(results)]
        (final / "summary.md").write_text("\n".join(lines) + "\n")
        write_json(final / RESULTS, results)

    results = work.results(
        call,
        compute,
        write,
        resume=asked.resume,
        tell=lambda text: console.print(text, soft_wrap=True),
    )
    console.print(report.table(results))
    for line in report.summary(results):
        console.print(line, soft_wrap=True)
    console.print()
    for path in sorted(folder.iterdir()):
        if path.is_file():
            console.print(str(path), soft_wrap=True, highlight=False)

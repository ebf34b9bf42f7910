"""What an experiment from a paper is here, and how it is run: settings, pieces, a report."""

import dataclasses
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import tyro
from rich.console import Console
from rich.table import Table

import hindgrad as hg
from experiments.settings import Reproduce
from hindgrad.apps.cli import CommandLine
from hindgrad.apps.console import list_files, say
from hindgrad.apps.engine import Engine
from hindgrad.apps.settings import ArgumentError
from hindgrad.apps.work import Work
from hindgrad.apps.work import finite as finite
from hindgrad.progress import Bar as Line

ROOT = Path(__file__).parent
FOLDERS = ("maclaurin2015", "franceschi2017", "andrychowicz2016", "attribution", "text")

Results = dict[str, Any]
"""Everything that the report is made of, as JSON can hold it."""

Kept = Callable[[str, Callable[[], Any]], Any]
"""`kept(name, compute)` is the piece of that name: computed once, and read again when an
interrupted run goes on."""


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """Settings of an experiment: numbers, texts and tuples, and"""

    seeds: int
    """how many repetitions; each has a seed of its own."""
    seed: int = 0
    """The first one."""

    def each_seed(self) -> range:
        """All of them."""
        return range(self.seed, self.seed + self.seeds)


@dataclass(frozen=True, kw_only=True)
class BySeed(Repeated):
    """Settings of an experiment of which every piece is of one seed, and nothing in it depends on
    the other seeds; it is called `seed-N`, or lies in that folder. Other processes may compute it.
    """


@final
@dataclass(frozen=True)
class Pieces:
    """A `Kept` that also has room for the checkpoints of a piece that takes long."""

    work: Work
    seeds: tuple[int, ...] | None = None
    """The seeds that a piece may be of, where all are of one."""

    @classmethod
    def of(cls, settings: Repeated, work: Work) -> "Pieces":
        """Those of a run with these settings."""
        return cls(work, tuple(settings.each_seed()) if isinstance(settings, BySeed) else None)

    def __call__(self, name: str, compute: Callable[[], Any], *, arrays: Path | None = None) -> Any:
        """The piece; `arrays` is a file of arrays that `compute` writes, if it does."""
        known = self.seeds is None or name.split("/")[0] in {f"seed-{n}" for n in self.seeds}
        assert known, f"The piece {name!r} is of none of the seeds {self.seeds}."
        return self.work.kept(name, compute, arrays=arrays)

    def folder(self, name: str) -> Path:
        """A folder that lasts until the whole run is finished."""
        path = self.work.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path


@runtime_checkable
class Report(Protocol):
    """What an experiment leaves behind; a module with these functions is one."""

    def write(self, results: Results, folder: Path, /) -> None:
        """Writes pictures and tables into a folder."""
        ...

    def table(self, results: Results, /) -> Table:
        """What is printed."""
        ...

    def summary(self, results: Results, /) -> list[str]:
        """The outcome in words, whichever way it went, beside the paper's."""
        ...


@runtime_checkable
class Experiment(Protocol):
    """One experiment: a module that has these, and reads from top to bottom, is one."""

    ABOUT: str
    """One line, with the paper."""
    DEFAULT: Any
    """The settings of an ordinary run, `Repeated`."""
    FULL: Any
    """The paper's own settings, of the same class."""
    SMALL: Any
    """Settings for the tests: seconds, on the same code."""
    report: Report

    def run(self, settings: Any, kept: Pieces, line: Line, /) -> Results:
        """Does the work, and tells `line` how much of it is done. All that it needs of `kept` may
        be that it is a `Kept`."""
        ...

    def total(self, settings: Any, /) -> int:
        """The whole work of some settings, in the units that `run` tells `line`."""
        ...


tune = partial(hg.tune, patience=None, progress=False, diagnose=False)
"""`hg.tune` as a paper tunes: all outer steps, without a look around before them."""


def find(name: str) -> Experiment:
    """The experiment of that name, a module in one of the folders."""
    file = name.replace("-", "_")
    folder = next(folder for folder in FOLDERS if (ROOT / folder / f"{file}.py").exists())
    module = importlib.import_module(f"experiments.{folder}.{file}")
    assert isinstance(module, Experiment)
    return module


def settings_of(asked: Reproduce, experiment: Experiment) -> Any:
    """The experiment's settings, with what was asked for otherwise."""
    settings = experiment.FULL if asked.full else experiment.DEFAULT
    seeds = settings.seeds if asked.seeds is None else asked.seeds
    return dataclasses.replace(settings, seeds=seeds, seed=asked.seed)


def run(asked: Reproduce, console: Console) -> None:
    """Runs the command: prints the table, and where everything is."""
    asked.check()
    experiment = find(asked.name)
    reproduce(experiment, settings_of(asked, experiment), asked, console)


def reproduce(experiment: Experiment, settings: Any, asked: Reproduce, console: Console) -> None:
    """Runs an experiment with these settings in the folder that was asked for."""
    if asked.engine is not None and not isinstance(settings, BySeed):
        raise ArgumentError(
            f"--engine: {asked.name} is not made of seeds that do not need each other; leave it "
            "out."
        )
    folder, report = asked.folder, experiment.report
    work = Work(folder, resume=asked.resume, overwrite=asked.overwrite)
    work.check()
    call = {"name": asked.name, **dataclasses.asdict(settings)}

    def compute():
        if isinstance(settings, BySeed):
            one = partial(_one_seed, asked.name, settings)
            parts = [partial(one, seed) for seed in settings.each_seed()]
            Engine(asked.engine, asked.address).compute(parts, work)
        with Line(experiment.total(settings)) as line:
            pieces = Pieces.of(settings, work)
            return {"call": call, **experiment.run(settings, pieces, line)}

    def write(final, results):
        report.write(results, final)
        lines = [f"# {asked.name}", "", experiment.ABOUT, "", *report.summary(results)]
        (final / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")

    results = work.results(call, compute, write, report=lambda lines: say(console, lines))
    console.print(report.table(results))
    say(console, report.summary(results))
    list_files(console, results, folder, {})


def _one_seed(name: str, settings: Any, seed: int, work: Work) -> None:
    """All pieces of one seed, in another process."""
    experiment, alone = find(name), dataclasses.replace(settings, seeds=1, seed=seed)
    experiment.run(alone, Pieces.of(alone, work), Line(experiment.total(alone), shown=False))


main = CommandLine(prog="python -m experiments", parse=partial(tyro.cli, Reproduce), run=run).main

"""What an experiment from a paper is here: settings, a run in pieces, pictures, words."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

from rich.table import Table

from hindgrad.apps.work import Work
from hindgrad.progress import Bar as Line

Results = dict[str, Any]
"""Everything that the report is made of, as JSON can hold it."""

Kept = Callable[[str, Callable[[], Any]], Any]
"""`kept(name, compute)` is the piece of that name: computed once, and read again when an
interrupted run goes on."""


@final
@dataclass(frozen=True)
class Pieces:
    """A `Kept` that also has room for the checkpoints of a piece that takes long."""

    work: Work

    def __call__(self, name: str, compute: Callable[[], Any], *, arrays: Path | None = None) -> Any:
        """The piece; `arrays` is a file of arrays that `compute` writes, if it does."""
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


@dataclass(frozen=True)
class Experiment:
    """One experiment, in a file of its own that reads from top to bottom."""

    name: str
    about: str
    """One line, with the paper."""
    default: Any
    """The settings of an ordinary run: a frozen dataclass of numbers, texts and tuples, with
    `seeds`, how many repetitions, and `seed`, the first one."""
    full: Any
    """The paper's own settings, of the same class."""
    small: Any
    """Settings for the tests: seconds, on the same code."""
    run: Callable[[Any, Pieces, Line], Results]
    """`run(settings, kept, line)` does the work, and tells `line` how much of it is done. All that
    it needs of `kept` may be that it is a `Kept`."""
    total: Callable[[Any], int]
    """The whole work of some settings, in the units that `run` tells `line`."""
    report: Report

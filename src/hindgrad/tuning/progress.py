"""A progress line for loops that take minutes."""

import sys
from typing import IO, Any, cast

from rich import console, progress


class Bar:
    """Shows on standard error how much is done, something in words, and the time left."""

    def __init__(self, total: int, name: str, *, shown: bool):
        self.line = progress.Progress(
            progress.TextColumn(name),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.description}"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("left"),
            console=console.Console(file=cast(IO[str], _Patient())),
            disable=not shown,
        )
        self._task = self.line.add_task("", total=total)

    def __enter__(self):
        self.line.__enter__()
        return self

    def __exit__(self, *exception):
        self.line.__exit__(*exception)

    def show(self, done: int, text: str) -> None:
        """Brings the line up to date."""
        self.line.update(self._task, completed=done, description=text)


class _Patient:
    """Standard error, to which nobody need listen: rich would end the program with a closed pipe,
    and with it the work that the line is about."""

    def __init__(self):
        self.file = sys.stderr

    def write(self, text: str) -> int:
        self._attempt("write", text)
        return len(text)

    def flush(self) -> None:
        self._attempt("flush")

    def isatty(self) -> bool:
        return bool(self._attempt("isatty"))

    def _attempt(self, name, *args):
        try:
            return getattr(self.file, name)(*args)
        except (AttributeError, OSError, ValueError):  # there is none, or it is closed
            return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def show_record(bar: Bar, record, best: float) -> None:
    """Brings the line of a tuning up to date; an undone step gets a line of its own."""
    if record.status != "accepted" and not bar.line.disable:
        bar.line.console.print(
            f"step {record.step}: {record.value:.4g} is {record.status}; turned back, rate halved"
        )
    bar.show(record.step + 1, f"value {record.value:.4g}, best {best:.4g},")

"""One line of progress, with the time left, for a command that takes minutes."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hindgrad.apps.console import Output


class Line:
    """Shows on standard error what is being done, what share is done and the time left.

    `total` is the work in any unit, `done` is told how much of it was done.
    """

    def __init__(self, total: int):
        self._bar = Progress(
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("left · {task.description}"),
            console=Output(stderr=True),
            speed_estimate_period=600,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=total)

    def __enter__(self) -> "Line":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    @property
    def shown(self) -> bool:
        """Whether somebody may be looking: standard error is a terminal."""
        return self._bar.console.is_terminal

    def stage(self, name: str) -> None:
        """Says what is being done."""
        self._bar.update(self._task, description=name)

    def done(self, amount: int) -> None:
        """Counts work as done."""
        self._bar.advance(self._task, amount)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hides the line while something else shows its own."""
        if not self.shown:
            yield
            return
        self._bar.stop()
        try:
            yield
        finally:
            self._bar.start()

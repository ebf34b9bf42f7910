"""A progress bar for what takes minutes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast


class Bar:
    """Shows on standard error what share of the work is done, the time left, and what is being
    done.

    **Arguments:**

    - `total`: the whole work, in any unit.
    - `stage`: what is being done first.
    - `shown`: whether to show it; unless given it is shown where standard error is a terminal, and
      vanishes in the end.
    """

    def __init__(self, total: int, stage: str = "starting", *, shown: bool | None = None):
        self._total, self._name = total, stage
        shown = False if _is_another_process() else shown
        self._bar = None if shown is False else _progress(transient=shown is None)
        if self._bar and shown is None and not self._bar.console.is_terminal:
            self._bar = None
        if self._bar:
            self._task = self._bar.add_task(stage, total=total)

    def __enter__(self) -> "Bar":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def shown(self) -> bool:
        """Whether somebody may be looking."""
        return self._bar is not None

    def stage(self, name: str) -> None:
        """Says what is being done."""
        self._name = name
        if self._bar:
            self._bar.update(self._task, description=name)

    def done(self, amount: int) -> None:
        """Counts work as done."""
        if self._bar:
            self._bar.advance(self._task, amount)

    def show(self, done: int, text: str = "") -> None:
        """Says how much work is done in all, and how it goes."""
        if self._bar:
            about = f"{self._name} {done}/{self._total}" + (f": {text}" if text else "")
            self._bar.update(self._task, completed=done, description=about)

    def note(self, text: str) -> None:
        """Prints a line that stays."""
        if self._bar:
            self._bar.console.print(text)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hides the bar while something else shows its own."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()


def _is_another_process():
    """Whether this is one of several processes of a run, and not the first."""
    jax: Any = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized():
        return False
    return jax.process_index() > 0


def _progress(*, transient: bool) -> Any:
    from rich import console, progress  # slow to import, and most calls show nothing

    return progress.Progress(
        progress.BarColumn(bar_width=30),
        progress.TextColumn("{task.percentage:>3.0f}%"),
        progress.TimeRemainingColumn(),
        progress.TextColumn("left · {task.description}"),
        console=console.Console(file=cast(IO[str], _Patient())),
        speed_estimate_period=600,
        transient=transient,
    )


class _Patient:
    """Standard error, to which nobody need listen: Rich would end the program with a closed pipe,
    and with it the work that the bar is about."""

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

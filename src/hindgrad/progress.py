"""A progress bar for what takes minutes."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import IO, Any, cast

EVERY = 30.0
"""Seconds between two lines where there is no terminal."""
LOOKS = 1.0
"""Seconds after which it is looked whether one is due, though nothing more was done."""


class Bar:
    """Shows on standard error what share of the work is done, the time left, and what is being
    done: in a terminal as a bar, elsewhere (a log, say) as a line every half minute.

    **Arguments:**

    - `total`: the whole work, in any unit.
    - `stage`: what is being done first.
    - `shown`: True lets the last of it stay, and False shows nothing; unless given, a bar vanishes
      in the end, and of work that takes less than half a minute there is no line.
    """

    def __init__(self, total: int, stage: str = "starting", *, shown: bool | None = None):
        self._total, self._name, self._about, self._done = total, stage, stage, 0
        is_silent = shown is False or _is_another_process()
        self._view = None if is_silent else _view(total, lasting=bool(shown))

    def __enter__(self) -> "Bar":
        if self._view:
            self._view.start(self._done, self._about)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._view:
            self._view.stop(self._done, self._about)

    @property
    def shown(self) -> bool | None:
        """How another bar is to be shown in place of this one, while it is paused."""
        return False if self._view is None else self._view.shown

    def stage(self, name: str) -> None:
        """Says what is being done."""
        self._name = name
        self._look(self._done, name)

    def done(self, amount: int) -> None:
        """Counts work as done."""
        self._look(self._done + amount, self._about)

    def show(self, done: int, text: str = "") -> None:
        """Says how much work is done in all, and how it goes."""
        self._look(done, f"{self._name} {done}/{self._total}" + (f": {text}" if text else ""))

    def note(self, text: str) -> None:
        """Prints a line that stays."""
        if self._view:
            self._view.note(text)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Hides the bar while something else shows its own."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    def _look(self, done, about):
        self._done, self._about = done, about
        if self._view:
            self._view.look(done, about)


def _is_another_process():
    """Whether this is one of several processes of a run, and not the first."""
    jax: Any = sys.modules.get("jax")
    if jax is None or not jax.distributed.is_initialized():
        return False
    return jax.process_index() > 0


def _view(total: int, *, lasting: bool) -> Any:
    from rich.console import Console  # slow to import, and most calls show nothing

    console = Console(file=cast(IO[str], _Patient()))
    return (_Moving if console.is_terminal else _Lines)(console, total, lasting)


class _Moving:
    """A bar in a terminal."""

    def __init__(self, console: Any, total: int, lasting: bool):
        from rich import progress

        self.shown = True
        self._bar = progress.Progress(
            progress.BarColumn(bar_width=30),
            progress.TextColumn("{task.percentage:>3.0f}%"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("left · {task.description}", markup=False),
            console=console,
            speed_estimate_period=600,
            transient=not lasting,
        )
        self._task = self._bar.add_task("", total=total)

    def start(self, done: int, about: str) -> None:
        self.look(done, about)
        self._bar.start()

    def stop(self, done: int, about: str) -> None:
        del done, about
        self._bar.stop()

    def look(self, done: int, about: str) -> None:
        self._bar.update(self._task, completed=done, description=about)

    def note(self, text: str) -> None:
        self._bar.console.print(text, markup=False)


class _Lines:
    """Lines in a log."""

    def __init__(self, console: Any, total: int, lasting: bool):
        self._console, self._total, self._lasting = console, total, lasting
        self._begun = self._latest = time.monotonic()
        self._notes: list[str] = []
        self._now = 0, ""
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self.shown = lasting or None

    def start(self, done: int, about: str) -> None:
        self._now, self._stopped = (done, about), threading.Event()
        threading.Thread(target=self._watch, args=(self._stopped,), daemon=True).start()

    def stop(self, done: int, about: str) -> None:
        self._stopped.set()
        if self._lasting:
            with self._lock:
                self._print(done, about)

    def look(self, done: int, about: str) -> None:
        self._now = done, about
        self._print_if_due()

    def note(self, text: str) -> None:
        with self._lock:
            self._notes.append(text)
            if self._lasting:
                self._flush()

    def _watch(self, stopped):
        while not stopped.wait(LOOKS):
            self._print_if_due()

    def _print_if_due(self):
        with self._lock:
            if not self._stopped.is_set() and time.monotonic() - self._latest >= EVERY:
                self._print(*self._now)

    def _flush(self):
        for text in self._notes:
            self._console.print(text, markup=False, soft_wrap=True)
        self._notes.clear()

    def _print(self, done, about):
        self._latest = time.monotonic()
        share = done / max(self._total, 1)
        left = (self._latest - self._begun) * (1 / share - 1) if share else None
        time_left = "-:--:--" if left is None else str(timedelta(seconds=round(left)))
        self._notes.append(f"{share:.0%} {time_left} left · {about}")
        self._flush()


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

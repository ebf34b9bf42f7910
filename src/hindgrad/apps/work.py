"""An output folder: results are kept piece by piece in a hidden folder while a command runs, and
appear all at once when it is done."""

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np

from hindgrad.apps.settings import ArgumentError, check_not_within
from hindgrad.checkpoint import Call, difference
from hindgrad.files import as_json, locked, read_arrays, read_json, write_json

RESULTS = "results.json"
"""The file that is there when a command has finished, with the arguments it was given."""

CALL = "call.json"
"""The file of the arguments of a run that is not finished, in its hidden folder."""

FILES = "files"
"""The names of all files that a run wrote, in its results."""


class Resumable(KeyboardInterrupt):
    """The interruption of a run that --resume goes on with."""


class Work:
    """The work on what a command writes into `out`.

    A run has begun when its call is kept, and is over when that is removed: the call is the first
    to come and the first to go.
    """

    def __init__(self, out: Path, *, resume: bool = False, overwrite: bool = False):
        self.out, self.resume, self.overwrite = out, resume, overwrite
        self.folder = out / ".work"
        self.call = self.folder / CALL

    @classmethod
    def of(cls, settings: Any) -> "Work":
        """The work of a command.

        Raises `ArgumentError` if its settings, or its folder, cannot be used.
        """
        settings.check()
        for name in ("data", "trusted", "new"):
            check_not_within(getattr(settings, name, None), settings.out)
        work = cls(settings.out, resume=settings.resume, overwrite=settings.overwrite)
        work.check()
        return work

    def check(self) -> None:
        """Raises `ArgumentError` if a run may not begin, or not go on, in this folder."""
        with self._in_one_line(), self._locked() if self.out.is_dir() else nullcontext():
            self._check()

    def results(
        self,
        call: dict[str, Any],
        compute: Callable[[], dict[str, Any]],
        write: Callable[[Path, dict[str, Any]], None],
        *,
        report: Callable[[list[str]], None],
    ) -> dict[str, Any]:
        """The results of this call: those of a finished run that is to go on, or computed and
        written now. `report` is given lines to print."""
        call = as_json(call)
        with self._in_one_line():
            self.out.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._check()  # another call may have begun or finished since
                results = self.finished() if self.resume else None
                if results is not None:
                    check_same_call(results["call"], call)
                    report([f"The run in {self.out} is finished."])
                    return results
                self.open(call)
                try:
                    results = compute()
                    self.publish(results, write)
                except KeyboardInterrupt as interruption:
                    raise Resumable from interruption
                return read_json(self.out / RESULTS)

    def open(self, call: dict[str, Any]) -> None:
        """Begins, or goes on if the call is the same."""
        if self.resume:
            check_same_call(self._read(self.call), as_json(call))
            return
        self._remove()
        self.folder.mkdir(parents=True)
        write_json(self.call, call)

    def finished(self) -> dict[str, Any] | None:
        """The results of a finished run that no later one has begun to replace."""
        path = self.out / RESULTS
        if self.call.exists() or not path.exists():
            return None
        results = self._read(path)
        if not isinstance(results.get("call"), dict):
            raise ArgumentError(_damaged(path))
        return results

    def kept(self, name: str, compute: Callable[[], Any], *, arrays: Path | None = None) -> Any:
        """The piece of that name, computed unless it is there already, undamaged, and with it the
        file of arrays that `compute` writes, if it does."""
        path = self.folder / f"{name}.json"
        try:
            if arrays is not None:
                read_arrays(arrays)
            return read_json(path)
        except (FileNotFoundError, ValueError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, compute())
        return read_json(path)

    def publish(
        self, results: dict[str, Any], write: Callable[[Path, dict[str, Any]], None]
    ) -> None:
        """Lets `write` fill a folder, and moves its files into `out`, the results last. Files of
        an earlier run that this one does not have are removed."""
        folder = self.folder / "final"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write(folder, results)
        names = sorted(path.name for path in folder.iterdir())
        write_json(folder / RESULTS, results | {FILES: names})
        for name in self._earlier() - {*names, RESULTS}:
            _remove(self.out / name)
        for name in [*names, RESULTS]:
            if (self.out / name).is_dir():  # is not replaced by another unless it is empty
                _remove(self.out / name)
            os.replace(folder / name, self.out / name)
        self._remove()

    def _check(self) -> None:
        if self.out.exists() and not self.out.is_dir():
            raise ArgumentError(f"--out {self.out} is a file; name a folder.")
        begun, finished = self.call.exists(), (self.out / RESULTS).exists()
        if self.resume and not begun and not finished:
            raise ArgumentError(f"--resume: there is no run in --out {self.out}; leave it out.")
        if self.resume or self.overwrite or not self.out.exists():
            return
        if begun:
            raise ArgumentError(
                f"--out {self.out} holds an interrupted run; go on with --resume, or start anew "
                "with --overwrite."
            )
        if any(path != self.folder for path in self.out.iterdir()):
            raise ArgumentError(
                f"--out {self.out} is not empty; name another folder, or replace the results in it "
                "with --overwrite."
            )

    def _earlier(self) -> set[str]:
        """The files of the run whose results are in the folder now."""
        try:
            names = read_json(self.out / RESULTS)[FILES]
        except (OSError, ValueError, TypeError, KeyError):
            return set()
        return {name for name in names if Path(name).name == name}

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            content = read_json(path)
        except ValueError as error:
            raise ArgumentError(_damaged(path)) from error
        if not isinstance(content, dict):
            raise ArgumentError(_damaged(path))
        return content

    def _remove(self) -> None:
        self.call.unlink(missing_ok=True)
        if self.folder.exists():
            shutil.rmtree(self.folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keeps other calls out of the folder."""
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.out))
            except BlockingIOError:
                raise ArgumentError(
                    f"--out {self.out}: another call is at work in this folder; wait until it has "
                    "ended, or name another folder."
                ) from None
            yield

    @contextmanager
    def _in_one_line(self) -> Iterator[None]:
        """What the file system refuses, and what is damaged, as an `ArgumentError`."""
        try:
            yield
        except OSError as error:
            raise self._refused(error) from error
        except (ValueError, RuntimeError) as error:
            if (code := os_error_code(error)) is not None:
                raise self._refused(OSError(code, os.strerror(code))) from error
            if str(self.folder) in str(error):  # of a checkpoint: it says what to do
                raise ArgumentError(" ".join(str(error).split())) from error
            raise

    def _refused(self, error: OSError) -> ArgumentError:
        where = "" if error.filename is None else f" ({error.filename})"
        what = f"--out {self.out}: {error.strerror or error}{where}"
        kept = "fix that; what is done so far is kept, go on with --resume."
        begun = False
        with suppress(OSError):
            begun = self.call.exists()
        return ArgumentError(f"{what}; {kept if begun else 'name another folder.'}")


def _remove(path: Path) -> None:
    """Removes a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def timed(compute: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """The same, with the seconds that it took."""

    def compute_and_time():
        begun = time.monotonic()
        return {**compute(), "seconds": time.monotonic() - begun}

    return compute_and_time


def finite(value: Any) -> float | None:
    """A number as results hold it: None, null in JSON, unless it is finite."""
    return float(value) if np.isfinite(value) else None


def infinite(value: float | None) -> float:
    """A number of the results, where None stands for infinity."""
    return float("inf") if value is None else value


def os_error_code(error: Exception) -> int | None:
    """The number of what the operating system refused, where a checkpoint could not be written."""
    found = re.search(r"\[os_error_code='(\d+)'\]", str(error))
    return int(found[1]) if found else None


def check_same_call(saved: dict[str, Any], call: dict[str, Any]) -> None:
    """Raises `ArgumentError` naming the first argument that differs."""
    name = difference(Call(saved), Call(call))
    if name == "fingerprint":
        raise ArgumentError("--resume: the data changed since the run began; use --overwrite.")
    if name is not None:
        raise ArgumentError(
            f"--resume: the run was begun with --{name} {_show(saved.get(name))}, not "
            f"{_show(call[name])}; give the same, or start anew with --overwrite."
        )


def _damaged(path: Path) -> str:
    return f"{path} is damaged; start anew with --overwrite."


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)

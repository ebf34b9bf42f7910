"""An output folder: results are kept piece by piece in a hidden folder while a command runs, and
appear all at once when it is done."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hindgrad.tools.settings import ArgumentError

RESULTS = "results.json"
"""The file that is there when a command has finished, with the arguments it was given."""


class Work:
    """The work on what a command writes into `out`."""

    def __init__(self, out: Path):
        self.out = out
        self.folder = out / ".work"

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """Raises `ArgumentError` if a run may not begin, or not go on, in this folder."""
        if self.out.exists() and not self.out.is_dir():
            raise ArgumentError(f"--out {self.out} is a file; name a folder.")
        begun = (self.folder / "call.json").exists()
        if resume and not begun and not (self.out / RESULTS).exists():
            raise ArgumentError(f"--resume: there is no run in --out {self.out}; leave it away.")
        if resume or overwrite or not self.out.exists() or not any(self.out.iterdir()):
            return
        if begun:
            raise ArgumentError(
                f"--out {self.out} holds an interrupted run; go on with --resume, or start anew "
                "with --overwrite."
            )
        raise ArgumentError(
            f"--out {self.out} is not empty; name another folder, or replace the results in it "
            "with --overwrite."
        )

    def open(self, call: dict[str, Any], *, resume: bool) -> None:
        """Begins, or goes on if the call is the same."""
        call = json.loads(json.dumps(call))
        if resume:
            saved = json.loads((self.folder / "call.json").read_text())
            check_same_call(saved, call)
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        write_json(self.folder / "call.json", call)

    def finished(self) -> dict[str, Any] | None:
        """The results of a finished run that no later one has begun to replace."""
        path = self.out / RESULTS
        if self.folder.exists() or not path.exists():
            return None
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise ArgumentError(f"{path} is damaged; start anew with --overwrite.") from error

    def results(
        self,
        call: dict[str, Any],
        compute: Callable[[], dict[str, Any]],
        write: Callable[[Path, dict[str, Any]], None],
        *,
        resume: bool,
        tell: Callable[[str], None],
    ) -> dict[str, Any]:
        """The results of this call: those of a finished run that is to go on, or computed and
        written now. `tell` is told of the former."""
        results = self.finished() if resume else None
        if results is not None:
            check_same_call(results["call"], call)
            tell(f"The run in {self.out} is finished.")
            return results
        self.open(call, resume=resume)
        results = compute()
        self.publish(lambda folder: write(folder, results))
        return results

    def kept(self, name: str, compute: Callable[[], Any]) -> Any:
        """The piece of that name, computed unless it is there already."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, compute())
        return json.loads(path.read_text())

    def publish(self, write: Callable[[Path], None]) -> None:
        """Lets `write` fill a folder, and moves its files into `out`, the results last."""
        folder = self.folder / "final"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write(folder)
        for path in sorted(folder.iterdir(), key=lambda path: path.name == RESULTS):
            os.replace(path, self.out / path.name)
        shutil.rmtree(self.folder)


def check_same_call(saved: dict[str, Any], call: dict[str, Any]) -> None:
    """Raises `ArgumentError` naming the first argument that differs."""
    for name, value in call.items():
        if saved.get(name) == value:
            continue
        if name == "fingerprint":
            raise ArgumentError("--resume: the data changed since the run began; use --overwrite.")
        raise ArgumentError(
            f"--resume: the run was begun with --{name} {_show(saved.get(name))}, not "
            f"{_show(value)}; give the same, or start anew with --overwrite."
        )


def write_json(path: Path, value: Any) -> None:
    """Writes a file that is there either whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")
    os.replace(temporary, path)


def _show(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)

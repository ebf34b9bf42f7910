"""What is printed, also into a pipe that nobody reads any more: results are never lost by it."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from hindgrad.apps.work import FILES, RESULTS


class Output(Console):
    """A console that falls silent when its pipe is closed, where Rich ends the program."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.file.fileno())


def say(console: Console, lines: Sequence[str]) -> None:
    """Prints lines as they are: names of data and files may have brackets."""
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def list_files(
    console: Console, results: Mapping[str, Any], out: Path, about: Mapping[str, str]
) -> None:
    """Prints where the files are that a run wrote, and what they are."""
    console.print()
    written = [*results.get(FILES, []), RESULTS]
    for name in [*about, *(name for name in written if name not in about)]:
        if name in written:
            line = Text(str(out / name))
            line.append(f"  {about.get(name, '')}".rstrip(), style="dim")
            console.print(line, soft_wrap=True)

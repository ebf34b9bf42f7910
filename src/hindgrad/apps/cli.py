"""The `hindgrad` command, and what it has in common with other programs: they say in one line what
went wrong."""

import io
import itertools
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import tyro
from rich.console import Console

from hindgrad.apps.clean.settings import Clean
from hindgrad.apps.datasets import DataError, one_line
from hindgrad.apps.distill.settings import Distill
from hindgrad.apps.explain.settings import Explain
from hindgrad.apps.optimizers.settings import CompareOptimizers, LearnOptimizer
from hindgrad.apps.predict.settings import Predict
from hindgrad.apps.settings import ArgumentError
from hindgrad.apps.tune.settings import Tune

INTERRUPTED = 130
NOBODY_READS = 141


@dataclass(frozen=True)
class CommandLine:
    """A program: parses its arguments, runs what they ask for, and says in one line what went
    wrong."""

    prog: str
    """How it is called."""
    parse: Callable[..., Any]
    """One of tyro's parsers, which makes settings of `args`."""
    run: Callable[[Any, Console], None]
    """Does what the settings ask for."""
    commands: Collection[str] = ()
    """First arguments that have a --help of their own."""

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Returns the exit code: 0, 2 if it cannot be done as asked, 130 if it was interrupted,
        141 if what reads its output is gone. Without arguments it is the process's own command,
        which then ends."""
        if arguments is not None:
            return self._main(list(arguments))
        for name in ("absl", "asyncio"):  # of a checkpoint's errors, which are reported anyway
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if isinstance(sys.stdout, io.TextIOWrapper):  # results are printed in any encoding
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            code = self._main(sys.argv[1:])
        except KeyboardInterrupt:
            code = INTERRUPTED
        except BrokenPipeError:  # who reads has seen enough
            code = NOBODY_READS
        if code:
            _leave(code)
        return code

    def _main(self, arguments: list[str]) -> int:
        if arguments == ["--version"]:
            print(f"hindgrad {version('hindgrad')}")
            return 0
        said = io.StringIO()
        try:
            with redirect_stderr(said):
                asked = self.parse(prog=self.prog, args=arguments)
        except SystemExit as end:
            if end.code in (0, None):
                return 0
            return self._refuse(_one_line(said.getvalue()) + f"; see {self._help(arguments)}.")
        try:
            return self._outcome(asked, arguments)
        except KeyboardInterrupt:
            print("\nInterrupted before anything was begun.", file=sys.stderr)
            return INTERRUPTED

    def _outcome(self, asked: Any, arguments: Sequence[str]) -> int:
        from hindgrad.apps.console import Output
        from hindgrad.apps.work import Resumable

        try:
            self.run(asked, Output())
        except (ArgumentError, DataError) as error:
            return self._refuse(str(error))
        except Resumable:
            print(f"\nInterrupted; go on with: {self._again(arguments)}", file=sys.stderr)
            return INTERRUPTED
        return 0

    def _help(self, arguments: Sequence[str]) -> str:
        command = [name for name in arguments[:1] if name in self.commands]
        return " ".join([self.prog, *command, "--help"])

    def _again(self, arguments: Sequence[str]) -> str:
        kept = [a for a in arguments if a not in ("--overwrite", "--resume")]
        return f"{self.prog} {shlex.join([*kept, '--resume'])}"

    def _refuse(self, message: str) -> int:
        print(f"{self.prog}: {one_line(message)}", file=sys.stderr)
        return 2


def _leave(code: int) -> None:
    """Ends the process at once. Threads may still be training or saving, and Python's own end,
    which takes their ground away, does not always survive that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _one_line(box: str) -> str:
    """What the parser's box says: its first section, and the option that was perhaps meant."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    _title, *inside = [line.strip("│╭╮╰╯ ") for line in plain.splitlines()] or [""]
    is_rule = lambda line: not set(line) - set("─-")
    message = list(itertools.dropwhile(is_rule, inside))
    message = list(itertools.takewhile(lambda line: not is_rule(line), message))
    meant = re.search(r"Perhaps you meant:\s+(--[\w-]+)", " ".join(inside))
    if meant:
        message.append(f"(perhaps {meant[1]})")
    plain = " ".join(message).rstrip(".")
    return re.sub(NO_NUMBER, r"\2 is no whole number", plain)


NO_NUMBER = r"no type matching (\{None\}\|INT) could be instantiated from \[(.*)\]"
"""What the parser says of an option that need not be given."""


Command = Tune | Predict | Explain | Clean | Distill | LearnOptimizer | CompareOptimizers
COMMANDS: dict[str, type] = {
    "tune": Tune,
    "predict": Predict,
    "explain": Explain,
    "clean": Clean,
    "distill": Distill,
    "learn-optimizer": LearnOptimizer,
    "compare-optimizers": CompareOptimizers,
}


def _run(command: Command, console: Console) -> None:
    match command:
        case Tune():
            from hindgrad.apps.tune import command as tune

            tune.run(command, console)
        case Predict():
            from hindgrad.apps.predict import command as predict

            predict.run(command, console)
        case Explain():
            from hindgrad.apps.explain import command as explain

            explain.run(command, console)
        case Clean():
            from hindgrad.apps.clean import command as clean

            clean.run(command, console)
        case Distill():
            from hindgrad.apps.distill import command as distill

            distill.run(command, console)
        case LearnOptimizer():
            from hindgrad.apps.optimizers import learn as learn_optimizer

            learn_optimizer.run(command, console)
        case CompareOptimizers():
            from hindgrad.apps.optimizers import compare as compare_optimizers

            compare_optimizers.run(command, console)


ABOUT = """Differentiates through training.

  hindgrad tune flowers.csv --out flowers
  hindgrad predict flowers/model more.csv --out said.csv
  hindgrad clean flowers.csv --out cleaned

Each command has its own --help."""

HINDGRAD = CommandLine(
    prog="hindgrad",
    parse=partial(
        tyro.extras.subcommand_cli_from_dict,
        COMMANDS,
        description=ABOUT,
    ),
    run=_run,
    commands=COMMANDS,
)

main = HINDGRAD.main


if __name__ == "__main__":
    sys.exit(main())

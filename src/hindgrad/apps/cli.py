"""The command line: parses, calls a tool, and says in one line what went wrong."""

import io
import itertools
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from importlib.metadata import version

import tyro

from hindgrad.apps.clean.settings import Clean
from hindgrad.apps.datasets import DataError, one_line
from hindgrad.apps.distill.settings import Distill
from hindgrad.apps.optimizers.settings import CompareOptimizers, LearnOptimizer
from hindgrad.apps.settings import ArgumentError
from hindgrad.apps.tune.settings import Tune

Command = Tune | Clean | Distill | LearnOptimizer | CompareOptimizers
COMMANDS: dict[str, type] = {
    "tune": Tune,
    "clean": Clean,
    "distill": Distill,
    "learn-optimizer": LearnOptimizer,
    "compare-optimizers": CompareOptimizers,
}

ABOUT = "Differentiates through training. Each command has its own --help."


INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0, 2 if it cannot be done as asked, 130 if it was
    interrupted. Without arguments it is the process's own command, which then ends."""
    if arguments is not None:
        return _main(list(arguments))
    for name in ("absl", "asyncio"):  # of a checkpoint's errors, which are told anyway
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if isinstance(sys.stdout, io.TextIOWrapper):  # results are printed in any encoding
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = _main(sys.argv[1:])
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code:
        _leave(code)
    return code


def _main(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"hindgrad {version('hindgrad')}")
        return 0
    command = _parse(arguments)
    if isinstance(command, int):
        return command
    try:
        return _outcome(command, arguments)
    except KeyboardInterrupt:
        print("\nInterrupted before anything was begun.", file=sys.stderr)
        return INTERRUPTED


def _outcome(command: Command, arguments: list[str]) -> int:
    from hindgrad.apps.work import Resumable

    try:
        _run(command)
    except (ArgumentError, DataError) as error:
        return _refuse(str(error))
    except Resumable:
        print(f"\nInterrupted; go on with: {_again(arguments)}", file=sys.stderr)
        return INTERRUPTED
    return 0


def _leave(code: int) -> None:
    """Ends the process at once. Threads may still be training or saving, and Python's own end,
    which takes their ground away, does not always survive that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _run(command: Command) -> None:
    from hindgrad.apps.console import Output

    console = Output()
    match command:
        case Tune():
            from hindgrad.apps.tune import command as tune

            tune.run(command, console)
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


def _parse(arguments: Sequence[str]) -> Command | int:
    """The command with its settings, or the exit code if there is nothing left to do."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.extras.subcommand_cli_from_dict(
                COMMANDS, prog="hindgrad", description=ABOUT, args=list(arguments)
            )
    except SystemExit as end:
        if end.code in (0, None):
            return 0
        return _refuse(_one_line(said.getvalue(), arguments))


def _one_line(box: str, arguments: Sequence[str]) -> str:
    """What the parser's box says: its first section, and the option that was perhaps meant."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    _title, *inside = [line.strip("│╭╮╰╯ ") for line in plain.splitlines()] or [""]
    is_rule = lambda line: not set(line) - set("─-")
    message = list(itertools.dropwhile(is_rule, inside))
    message = list(itertools.takewhile(lambda line: not is_rule(line), message))
    meant = re.search(r"Perhaps you meant:\s+(--[\w-]+)", " ".join(inside))
    if meant:
        message.append(f"(perhaps {meant[1]})")
    command = next((f" {name}" for name in arguments[:1] if name in COMMANDS), "")
    return " ".join(message).rstrip(".") + f"; see hindgrad{command} --help."


def _again(arguments: Sequence[str]) -> str:
    kept = [a for a in arguments if a not in ("--overwrite", "--resume")]
    return shlex.join(["hindgrad", *kept, "--resume"])


def _refuse(message: str) -> int:
    print(f"hindgrad: {one_line(message)}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())

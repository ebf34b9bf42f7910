"""The `hindgrad` command while it is loading. Importing the package takes seconds, and so would an
interruption in them end in a traceback if the command were a part of it."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType


def main() -> None:
    """Loads the command line and runs it."""
    load_and_run(_load)


def load_and_run(load: Callable[[], Callable[[], int]]) -> None:
    """Runs the program that `load` imports; exits with 2 if its packages are not installed. An
    interruption while it loads ends in one line."""
    signal.signal(signal.SIGINT, _leave)
    try:
        run = load()
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name in ("", "hindgrad"):
            raise
        install = 'pip install "hindgrad[cli]"'
        print(f"hindgrad: the commands need {name}, which is missing: {install}", file=sys.stderr)
        sys.exit(2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run())


def _load() -> Callable[[], int]:
    from hindgrad.apps.cli import main

    return main


def _leave(number: int, frame: FrameType | None) -> None:
    del number, frame
    os.write(2, b"\nInterrupted before anything was begun.\n")
    os._exit(130)


if __name__ == "__main__":
    main()

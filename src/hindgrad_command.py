"""The `hindgrad` command while it is loading. Importing the package takes seconds, and so would an
interruption in them end in a traceback if the command were a part of it."""

import os
import signal
import sys
from types import FrameType


def main() -> None:
    """Loads the command line and runs it."""
    signal.signal(signal.SIGINT, _leave)
    from hindgrad.apps.cli import main as run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run())


def _leave(number: int, frame: FrameType | None) -> None:
    del number, frame
    os.write(2, b"\nInterrupted before anything was begun.\n")
    os._exit(130)


if __name__ == "__main__":
    main()

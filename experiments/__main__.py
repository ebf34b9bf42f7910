"""`python -m experiments NAME`: runs an experiment from a paper on real data, and reports it."""

from collections.abc import Callable

from hindgrad_command import load_and_run


def _load() -> Callable[[], int]:
    from experiments.runner import main

    return main


if __name__ == "__main__":
    load_and_run(_load)

"""What the commands are asked to do."""

import dataclasses
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hindgrad.apps.datasets import one_line

_arg = tyro.conf.arg

Flag = tyro.conf.FlagCreatePairsOff[bool]

Out = Annotated[Path, _arg(metavar="DIR", help="Where the results go.")]
Label = Annotated[
    str | None,
    _arg(
        metavar="COLUMN",
        help="The label's column; unless given, found by its name or place.",
    ),
]
Classes = Annotated[
    Literal["auto", "classification"],
    _arg(
        help="auto takes text and few integers for classes; classification takes any label so.",
    ),
]
Task = Annotated[
    Literal["auto", "classification", "regression"],
    _arg(
        help="Whether the label is a class or a quantity; auto: text and few integers are classes.",
    ),
]
Drop = Annotated[tuple[str, ...], _arg(metavar="COLUMN ...", help="Columns to leave out.")]
Keep = Annotated[
    tuple[str, ...],
    _arg(
        metavar="COLUMN ...",
        help="Columns to learn from even if they look like ids or give the label away.",
    ),
]
Group = Annotated[
    str | None,
    _arg(metavar="COLUMN", help="Rows of one value, such as a patient's, stay in one part."),
]
Rows = Annotated[int | None, _arg(help="Take this many rows, at random.")]
Seed = Annotated[int, _arg(help="It decides everything that is random.")]
Resume = Annotated[Flag, _arg(help="Go on with an interrupted run in --out.")]
Overwrite = Annotated[Flag, _arg(help="Replace the results of an earlier run in --out.")]

Engine = Annotated[
    Literal["loky", "dask"] | None,
    _arg(
        help="Compute what is independent in other processes: loky, one for each core of this "
        "machine; dask, the workers of a Dask cluster."
    ),
]
Address = Annotated[
    str | None,
    _arg(
        metavar="HOST",
        help="The scheduler of the Dask cluster, such as tcp://10.0.0.1:8786; a cluster on this "
        "machine unless given.",
    ),
]


class ArgumentError(Exception):
    """An argument cannot be used; the message is one line that names it and says what to do."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


GREATEST = 2**31 - 1
"""Steps, rows and sizes are counted in 32 bits."""

GREATEST_SEED = 2**32 - 1

POSITIONS = 2**32
"""Steps times the rows of a batch stay below this, as `minibatches` counts them."""


def check_counts(ranges: Mapping[str, tuple[int | None, int]]) -> None:
    """Raises `ArgumentError` if an option is below the least that is allowed, or beyond what can be
    counted; None is not given."""
    for name, (value, least) in ranges.items():
        if value is not None and value < least:
            raise ArgumentError(f"--{name} is {value}; it must be at least {least}.")
        if value is not None and value > GREATEST:
            raise ArgumentError(f"--{name} is {value}; it must be at most {GREATEST}.")


def hidden_layers(hidden: tuple[int, ...]) -> tuple[int, ...]:
    """The widths of the hidden layers there are: a single 0 stands for none."""
    return () if hidden == (0,) else hidden


def check_widths(hidden: tuple[int, ...]) -> None:
    """Raises `ArgumentError` if a hidden layer's width is out of range."""
    for width in hidden:
        check_counts({"hidden": (width, 1)})


def check_seed(seed: int, seeds: int | None = None) -> None:
    """Raises `ArgumentError` if a seed, or the last of several, is out of range."""
    if seed < 0:
        raise ArgumentError(f"--seed is {seed}; it must be at least 0.")
    last = seed + (seeds or 1) - 1
    if last > GREATEST_SEED:
        which = "" if last == seed else f", and the last of {seeds} seeds {last}"
        raise ArgumentError(f"--seed is {seed}{which}; it must be at most {GREATEST_SEED}.")


def check_positions(steps: int, batch: int) -> None:
    """Raises `ArgumentError` if the rows of all steps are too many to be counted."""
    if (steps + 1) * batch >= POSITIONS:
        raise ArgumentError(
            f"--steps {steps} times --batch {batch} is too much to be counted; lower one of them."
        )


def check_room(floats: int, options: str) -> None:
    """Raises `ArgumentError` if so many floats have no room on this machine."""
    if not hasattr(os, "sysconf"):
        return
    room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 4 * floats > room:
        raise ArgumentError(
            f"{options} would take {4 * floats / 2**30:,.0f} GiB and more, of the "
            f"{room / 2**30:,.0f} that this machine has; lower one of them."
        )


def check_shares(test: float, valid: float, use: str) -> None:
    """Raises `ArgumentError` if the shares of rows leave too few for `use`."""
    for name, share in (("test", test), ("valid", valid)):
        if not 0.0 < share < 1.0:
            raise ArgumentError(f"--{name} is {share:g}; a share between 0 and 1 is needed.")
    if test + valid > 0.9:
        raise ArgumentError(
            f"--test {test:g} and --valid {valid:g} leave less than a tenth of the rows to {use}; "
            "lower them."
        )


def check_not_within(data: object, out: Path) -> None:
    """Raises `ArgumentError` if the data are a file in the folder of the results, which may have
    its name."""
    path = Path(str(data))
    if path.is_file() and out.resolve() in path.resolve().parents:
        raise ArgumentError(
            f"--out {out} is the folder that {path} is in, which could be replaced by the results; "
            "name another folder."
        )


def check_one(resume: bool, overwrite: bool) -> None:
    """Raises `ArgumentError` if both are given."""
    if resume and overwrite:
        raise ArgumentError("--resume and --overwrite exclude each other; give one.")


def check_engine(engine: str | None, address: str | None) -> None:
    """Raises `ArgumentError` if they do not go together, or what is needed is not installed."""
    if address is not None and engine != "dask":
        raise ArgumentError("--address is that of a Dask cluster; give --engine dask with it.")
    if engine == "dask" and importlib.util.find_spec("distributed") is None:
        raise ArgumentError("--engine dask needs it: pip install 'dask[distributed]'.")


def identity(settings: Any, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The arguments that decide the result, as JSON can hold them, by the names of their options:
    those of the fields, if `names` does not say otherwise."""
    names = names or {}
    values = {
        names.get(field.name, field.name.replace("_", "-")): getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.name not in ("out", "resume", "overwrite", "storage", "engine", "address")
    }
    return {name: _plain(value) for name, value in values.items()}


def _plain(value):
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value

"""What the commands are asked to do."""

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from hindgrad.datasets import one_line

Flag = tyro.conf.FlagCreatePairsOff[bool]


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


def check_one(resume: bool, overwrite: bool) -> None:
    """Raises `ArgumentError` if both are given."""
    if resume and overwrite:
        raise ArgumentError("--resume and --overwrite exclude each other; give one.")


def identity(settings: Any, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The arguments that decide the result, by the names of their options: those of the fields,
    if `names` does not say otherwise."""
    names = names or {}
    values = {
        names.get(field.name, field.name.replace("_", "-")): getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if field.name not in ("out", "resume", "overwrite")
    }
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


@dataclass(frozen=True)
class Tune:
    """Tune a network's training by hypergradient, and compare with what else you might do.

    Splits the data into train, valid and test, trains an MLP, and tunes rate and decay for each
    layer and part of the training, weight decay and initial scale for each layer.

    Writes into --out: the hyperparameters (JSON), trained weights (safetensors), pictures, and a
    table against the defaults, random search and TPE at an equal budget of training gradients,
    with validation and test loss over several seeds.

    Example: hindgrad tune flowers.csv --label species --out flowers
    """

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")] = "digits"
    """A .csv, .parquet or .npz file (arrays x and y), or a built-in: digits, mnist, phoneme,
    cifar10, omniglot."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("tuned")
    """Where the results go."""
    label: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None
    """The label's column; found if it is called label, target, y or class."""
    task: Literal["auto", "classification", "regression"] = "auto"
    """Whether the label is a class or a quantity; auto: text and few integers are classes."""
    drop: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN ...")] = ()
    """Columns to leave out."""
    rows: int | None = None
    """Take this many rows, at random."""
    test: float = 0.2
    """The share of the rows kept for testing, which no tuning ever sees."""
    valid: float = 0.2
    """The share of the rows by which the tuning judges."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers."""
    steps: int = 300
    """Training steps."""
    batch: int = 64
    """Examples in a training step."""
    schedule: Literal["windows", "linear", "spline"] = "spline"
    """How rate and decay change over the training: in windows, along lines, or smoothly."""
    knots: int | None = None
    """How many numbers each layer's rate has, and its decay: 4, or 10 windows, unless given."""
    steps_outer: int = 30
    """Tuning steps; 0 trains with the given hyperparameters and tunes nothing."""
    seeds: int = 5
    """How many whole tunings, each with its own test set and initialisations."""
    seed: int = 0
    """The first seed: it decides everything that is random."""
    start: Annotated[Path | None, tyro.conf.arg(name="from", metavar="FILE")] = None
    """Hyperparameters to start from: the hyperparameters.json of an earlier run."""
    searches: bool = True
    """Compare with random search and TPE at an equal budget."""
    resume: Flag = False
    """Go on with an interrupted run in --out."""
    overwrite: Flag = False
    """Replace the results of an earlier run in --out."""

    def check(self) -> None:
        """Raises `ArgumentError` if an argument is out of its range."""
        ranges = {
            "steps": (self.steps, 10),
            "batch": (self.batch, 1),
            "steps-outer": (self.steps_outer, 0),
            "seeds": (self.seeds, 1),
            "rows": (self.rows, 1),
            "knots": (
                2 if self.knots is None else self.knots,
                2 if self.schedule == "spline" else 1,
            ),
        }
        check_counts(ranges)
        check_widths(self.hidden)
        check_seed(self.seed, self.seeds)
        check_positions(self.steps, self.batch)
        check_shares(self.test, self.valid, "train on")
        check_one(self.resume, self.overwrite)

    def identity(self) -> dict:
        """The arguments that decide the result, by the names of their options."""
        start = None if self.start is None else str(self.start)
        return identity(self, {"start": "from"}) | {"from": start}


@dataclass(frozen=True)
class Reproduce:
    """Reproduce an experiment from a paper on the real data, with its table and pictures.

    hyper-cleaning: which labels are wrong? (Franceschi et al. 2017, section 5.1)
    task-interactions: which tasks help each other? (the same, section 5.2)
    phones: rates tuned in real time, during one run (the same, section 5.3)
    modes: time and memory of forward and reverse mode
    schedules: a rate for every step and layer (Maclaurin et al. 2015, section 3.1)
    regularisation: a penalty for every pixel and weight (the same, section 3.2)
    training-data: ten images to learn from, learned themselves (the same, section 3.3)
    sharing: which alphabets should share weights? (the same, section 3.4)
    chaos: where hypergradients become meaningless (the same, section 4)
    l2l-quadratic, l2l-mlp, l2l-conv: learned optimizers (Andrychowicz et al. 2016)

    Example: hindgrad reproduce hyper-cleaning
    """

    name: Annotated[
        tyro.conf.Positional[
            Literal[
                "hyper-cleaning",
                "task-interactions",
                "phones",
                "modes",
                "schedules",
                "regularisation",
                "training-data",
                "sharing",
                "chaos",
                "l2l-quadratic",
                "l2l-mlp",
                "l2l-conv",
            ]
        ],
        tyro.conf.arg(metavar="NAME"),
    ]
    """Which one."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where the results go; reproduced/NAME unless given."""
    full: Flag = False
    """The paper's own settings: hours."""
    seeds: int | None = None
    """How many repetitions, if not the experiment's own number."""
    seed: int = 0
    """The first seed: it decides everything that is random."""
    resume: Flag = False
    """Go on with an interrupted run in --out."""
    overwrite: Flag = False
    """Replace the results of an earlier run in --out."""

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or Path("reproduced") / self.name

    def check(self) -> None:
        """Raises `ArgumentError` if an argument is out of its range."""
        check_counts({"seeds": (self.seeds, 1)})
        check_seed(self.seed, self.seeds)
        check_one(self.resume, self.overwrite)

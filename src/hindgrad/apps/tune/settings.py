"""What `hindgrad tune` is asked to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hindgrad.apps.settings import (
    Address,
    ArgumentError,
    Drop,
    Engine,
    Group,
    Keep,
    Label,
    Out,
    Overwrite,
    Resume,
    Rows,
    Task,
    check_counts,
    check_engine,
    check_one,
    check_positions,
    check_seed,
    check_shares,
    check_widths,
)

BATCH = 64
"""Examples in a training step unless --batch is given."""

LEAST_STEPS, MOST_STEPS, PASSES = 300, 1000, 15
"""Training steps unless --steps is given: those of so many passes through the rows, in these
bounds."""


def steps_for(rows: int) -> int:
    """Training steps for so many rows to train on."""
    return min(max(LEAST_STEPS, -(-PASSES * rows // BATCH)), MOST_STEPS)


@dataclass(frozen=True)
class Tune:
    """Tune a network's training by hypergradient, and compare with what else you might do.

    Splits the data into train, valid and test, trains an MLP, and tunes rate and decay for each
    layer and part of the training, weight decay and initial scale for each layer.

    Writes into --out: a model for hindgrad predict, the hyperparameters (JSON), pictures, and a
    table against the defaults, random search and TPE at an equal budget of training gradients,
    with validation and test loss over several seeds.

    Example: hindgrad tune flowers.csv --label species --out flowers
    """

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")] = "digits"
    """A table (CSV and the like, gzipped or not, Parquet, Feather, JSON, Excel, ARFF), an NPZ file
    (arrays x and y), or a built-in: digits, mnist, phoneme,
    cifar10, omniglot."""
    out: Out = Path("tuned")
    label: Label = None
    task: Task = "auto"
    drop: Drop = ()
    keep: Keep = ()
    group: Group = None
    rows: Rows = None
    test: float = 0.2
    """The share of the rows kept for testing, which no tuning ever sees."""
    valid: float = 0.2
    """The share of the rows by which the tuning judges."""
    hidden: tuple[int, ...] = (128, 128)
    """Widths of the hidden layers."""
    steps: int | None = None
    """Training steps: 300, or those of 15 passes through the rows if that is more, up to 1,000,
    unless given."""
    batch: int | None = None
    """Examples in a training step: 64, or all to train on if these are fewer, unless given."""
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
    rivals: bool = True
    """Compare with scikit-learn's models at their defaults: logistic or ridge regression, a random
    forest, gradient boosting, its own network; and with always saying the same."""
    also: tuple[Literal["catboost", "tabpfn"], ...] = ()
    """Further rivals, from libraries that are installed."""
    storage: Annotated[str | None, tyro.conf.arg(metavar="URL|FILE")] = None
    """An Optuna storage, such as sqlite:///runs.db, in which every trial is entered as it ends, for
    optuna-dashboard to show; several calls may share one."""
    engine: Engine = None
    address: Address = None
    resume: Resume = False
    overwrite: Overwrite = False

    @property
    def shares(self) -> dict[str, float]:
        """The shares of the rows to test on and to validate on."""
        return {"test": self.test, "valid": self.valid}

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
        check_positions(self.steps or MOST_STEPS, self.batch or BATCH)
        check_shares(self.test, self.valid, "train on")
        check_one(self.resume, self.overwrite)
        check_engine(self.engine, self.address)
        if self.also and not self.rivals:
            raise ArgumentError("--also names rivals, and --no-rivals leaves them out; give one.")

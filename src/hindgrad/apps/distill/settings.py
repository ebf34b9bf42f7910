"""What `hindgrad distill` is asked to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hindgrad.apps.settings import (
    Classes,
    Drop,
    Group,
    Keep,
    Label,
    Out,
    Overwrite,
    Resume,
    Rows,
    Seed,
    check_counts,
    check_one,
    check_seed,
    check_shares,
    check_widths,
    hidden_layers,
)


@dataclass(frozen=True)
class Distill:
    """Learn a few examples that a network can be trained on instead of the whole data set.

    Learns N examples for each class, and a rate for each training step, by hypergradient: a fresh
    network that trains on them alone is to do well on the real rows.

    Writes into --out: the examples (NPZ, for tables CSV too), for image data a sheet of them, a
    picture of the outcome, and everything in numbers: the test accuracy of fresh networks trained
    on the examples only, beside random real examples, class means, and all rows.

    Example: hindgrad distill flowers.csv --label species --per-class 2 --out few
    """

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")] = "digits"
    """A table (CSV and the like, gzipped or not, Parquet, Feather, JSON, Excel, ARFF), an NPZ file
    (arrays x and y), or a built-in: digits, mnist, phoneme,
    cifar10."""
    out: Out = Path("distilled")
    per_class: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """How many examples are learned for each class."""
    label: Label = None
    task: Classes = "auto"
    drop: Drop = ()
    keep: Keep = ()
    group: Group = None
    rows: Rows = None
    test: float = 0.2
    """The share of the rows kept for testing, which nothing is learned from or chosen by."""
    valid: float = 0.2
    """The share of the rows by which everything is chosen."""
    hidden: tuple[int, ...] = (64,)
    """Widths of the hidden layers; 0 for softmax regression."""
    steps: int = 20
    """Steps of a training on the learned examples."""
    steps_outer: int = 600
    """Steps of learning them."""
    seed: Seed = 0
    resume: Resume = False
    overwrite: Overwrite = False

    @property
    def layers(self) -> tuple[int, ...]:
        """The widths of the hidden layers there are."""
        return hidden_layers(self.hidden)

    def check(self) -> None:
        """Raises `ArgumentError` if an argument is out of its range."""
        ranges = {
            "per-class": (self.per_class, 1),
            "rows": (self.rows, 1),
            "steps": (self.steps, 2),
            "steps-outer": (self.steps_outer, 3),
        }
        check_counts(ranges)
        check_widths(self.layers)
        check_seed(self.seed)
        check_shares(self.test, self.valid, "learn from")
        check_one(self.resume, self.overwrite)

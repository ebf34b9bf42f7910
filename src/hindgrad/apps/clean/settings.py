"""What `hindgrad clean` is asked to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hindgrad.apps.settings import (
    Address,
    ArgumentError,
    Classes,
    Engine,
    Group,
    Keep,
    Label,
    Out,
    Overwrite,
    Resume,
    Seed,
    check_counts,
    check_engine,
    check_one,
    check_seed,
    check_widths,
    hidden_layers,
)


@dataclass(frozen=True)
class Clean:
    """Find the rows of a data set whose labels are wrong, and write the data set without them.

    Learns a weight between 0 and 1 for every row, by hypergradient: a row is worth what it does
    for networks that train on it, judged on rows that they did not train on. Networks and a
    random forest say how sure they are of its label; labels made wrong on purpose show which of
    them to believe, and how many labels are wrong.

    Writes into --out: suspects.csv (every row, the most suspicious first), the cleaned data set,
    a picture of what was found, for image data a sheet of the most suspicious images, and
    everything in numbers.

    Example: hindgrad clean flowers.csv --label species --out flowers
    """

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")] = "digits"
    """A table (CSV and the like, gzipped or not, Parquet, Feather, JSON, Excel, ARFF), an NPZ file
    (arrays x and y), or a built-in: digits, mnist, phoneme."""
    out: Out = Path("cleaned")
    label: Label = None
    trusted: Annotated[str | None, tyro.conf.arg(metavar="FILE|FRACTION")] = None
    """Labels known to be right: a file with the same columns; or, if you know that a random part
    of the rows is right, its share (the rows are then drawn by --seed)."""
    task: Classes = "auto"
    drop: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN ...")] = ()
    """Columns not to learn from; they stay in the cleaned data set."""
    keep: Keep = ()
    group: Group = None
    remove: Annotated[float | None, tyro.conf.arg(metavar="SHARE")] = None
    """The share of the rows that the cleaned data set leaves out; found unless given."""
    hidden: tuple[int, ...] = (64,)
    """Widths of the hidden layers; 0 for softmax regression."""
    steps: int = 200
    """Training steps."""
    steps_outer: int = 40
    """Tuning steps of each repetition."""
    repeats: int = 4
    """How many times the weights are learned, each time anew; the answer is their mean."""
    seed: Seed = 0
    engine: Engine = None
    address: Address = None
    resume: Resume = False
    overwrite: Overwrite = False

    @property
    def layers(self) -> tuple[int, ...]:
        """The widths of the hidden layers there are."""
        return hidden_layers(self.hidden)

    @property
    def fraction(self) -> float | None:
        """The share of trusted rows, if --trusted is a number."""
        try:
            return float(self.trusted or "")
        except ValueError:
            return None

    def check(self) -> None:
        """Raises `ArgumentError` if an argument is out of its range."""
        ranges = {
            "steps": (self.steps, 10),
            "steps-outer": (self.steps_outer, 2),
            "repeats": (self.repeats, 1),
        }
        check_counts(ranges)
        check_widths(self.layers)
        check_seed(self.seed)
        if self.remove is not None and not 0.0 <= self.remove < 1.0:
            raise ArgumentError(
                f"--remove is {self.remove:g}; a share of the rows is needed, from 0 to below 1."
            )
        if self.fraction is not None and not 0.0 < self.fraction < 1.0:
            raise ArgumentError(
                f"--trusted is {self.trusted}; a share between 0 and 1 or a file is needed."
            )
        if self.trusted is not None and self.fraction is None and not Path(self.trusted).is_file():
            raise ArgumentError(
                f"--trusted {self.trusted}: no such file; give a file with the columns of the "
                "data, or a share between 0 and 1."
            )
        check_one(self.resume, self.overwrite)
        check_engine(self.engine, self.address)

"""What `hindgrad predict` is asked to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hindgrad.apps.settings import ArgumentError, Flag

SUFFIXES = (".csv", ".parquet")


@dataclass(frozen=True)
class Predict:
    """Predict the label of rows by a model that hindgrad tune has kept.

    Writes into --out, for each row in order, the likeliest class and the probability of each, or
    the quantity. The columns are found by their names, in any order; others are ignored. If the
    label is there too, says how often it was right.

    Example: hindgrad predict flowers/model more.csv --out answers.csv
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """The folder model in the results of hindgrad tune, or the folder of these results."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """A table with the columns that the model was trained on."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Where the predictions go: a .csv or .parquet file."""
    overwrite: Annotated[Flag, tyro.conf.arg(help="Replace the file in --out.")] = False

    def check(self) -> None:
        """Raises `ArgumentError` if --out cannot be used."""
        if self.out.suffix.lower() not in SUFFIXES:
            raise ArgumentError(f"--out {self.out}: name a file that ends with .csv or .parquet.")
        if self.out.is_dir() or not self.out.parent.is_dir():
            what = "a folder" if self.out.is_dir() else "in a folder that is not there"
            raise ArgumentError(f"--out {self.out} is {what}; name a file.")
        if self.out.exists() and self.data.exists() and self.out.samefile(self.data):
            raise ArgumentError(f"--out {self.out} is the table to predict; name another file.")
        if self.out.exists() and not self.overwrite:
            raise ArgumentError(f"--out {self.out} is there already; replace it by --overwrite.")

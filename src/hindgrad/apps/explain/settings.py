"""What `hindgrad explain` is asked to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hindgrad.apps.settings import (
    ArgumentError,
    Drop,
    Group,
    Keep,
    Label,
    Out,
    Overwrite,
    Resume,
    Task,
    check_counts,
    check_one,
    check_seed,
    check_widths,
    hidden_layers,
)

WORST = 5
"""How many rows are explained unless they are named."""

MOST = 50
"""So many at the most."""

LEAST_RUNS = 10


@dataclass(frozen=True)
class Explain:
    """Explain predictions: which rows, labels and settings made a network say what it says.

    Trains a network on all rows but those to test on, and follows each asked prediction back
    through the whole training. Then trains again without some rows, to find out whether what was
    found holds: the certificate.

    Writes into --out: report.html, a page for any browser, which needs no network: for each asked
    row the training rows that spoke for and against, the labels that look wrong because of it, when
    it was decided and by which settings. The same in tables (CSV), and everything in numbers.

    Example: hindgrad explain flowers.csv --label species --from flowers --rows 17,42
    """

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")] = "digits"
    """A table (CSV and the like, gzipped or not, Parquet, Feather, JSON, Excel, ARFF), an NPZ file
    (arrays x and y), or a built-in: digits, mnist, phoneme, cifar10, omniglot."""
    rows: Annotated[tuple[str, ...], tyro.conf.arg(metavar="ROW,ROW …")] = ()
    """Explain these rows of the table: 0 is the first after the header."""
    worst: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Explain the rows to test on that the network gets most wrong: 5 unless given."""
    new: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Explain all rows of another table, with or without labels."""
    start: Annotated[Path | None, tyro.conf.arg(name="from", metavar="DIR|FILE")] = None
    """The folder that hindgrad tune has written (or its hyperparameters.json): explains its model.
    The label, columns, network and rows to test on are those of the tuning unless given."""
    out: Out = Path("explained")
    label: Label = None
    task: Task = "auto"
    drop: Drop = ()
    keep: Keep = ()
    group: Group = None
    sample: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Take this many rows of the table, at random."""
    test: float | None = None
    """The share of the rows kept for testing: 0.2 unless given."""
    hidden: tuple[int, ...] | None = None
    """Widths of the hidden layers, 128 128 unless given; 0 for none."""
    steps: int | None = None
    """Training steps: 300 unless given."""
    batch: int | None = None
    """Examples in a training step: 64, or all if these are fewer, unless given."""
    runs: int = 40
    """How many trainings without random rows the certificate rests on."""
    without: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 0.01
    """The share of the training rows that each of them does without."""
    seed: int | None = None
    """It decides everything that is random: 0 unless given."""
    resume: Resume = False
    overwrite: Overwrite = False

    @property
    def numbers(self) -> list[int]:
        """The numbers in --rows, each once.

        Raises `ArgumentError` if they are no whole numbers.
        """
        texts = [text.strip() for part in self.rows for text in part.split(",")]
        for text in texts:
            if not text.isascii() or not text.isdecimal():
                raise ArgumentError(
                    f"--rows: '{text}' is no row number; give numbers with commas, 17,42, from 0."
                )
        return list(dict.fromkeys(map(int, texts)))

    @property
    def layers(self) -> tuple[int, ...] | None:
        """The widths of the hidden layers there are, if they are given."""
        return None if self.hidden is None else hidden_layers(self.hidden)

    def check(self) -> None:
        """Raises `ArgumentError` if an argument is out of its range."""
        asked = [("rows", self.rows), ("worst", self.worst), ("new", self.new)]
        given = [f"--{name}" for name, value in asked if value not in (None, ())]
        if len(given) > 1:
            raise ArgumentError(f"{' and '.join(given)} exclude each other; give one.")
        check_counts(
            {
                "worst": (self.worst, 1),
                "sample": (self.sample, 1),
                "steps": (self.steps, 10),
                "batch": (self.batch, 1),
                "runs": (self.runs, LEAST_RUNS),
            }
        )
        check_most("--worst", self.worst or 0)
        check_most("--rows", len(self.numbers))
        check_widths(self.layers or ())
        check_seed(self.seed or 0)
        for name, share in (("test", self.test), ("without", self.without)):
            if share is not None and not 0.0 < share <= 0.9:
                raise ArgumentError(
                    f"--{name} is {share:g}; a share above 0, and at most 0.9, is needed."
                )
        check_one(self.resume, self.overwrite)


def check_most(option: str, count: int) -> None:
    """Raises `ArgumentError` if so many rows are too many for one page."""
    if count > MOST:
        raise ArgumentError(
            f"{option}: {count:,} rows are too many to explain at once; give at most {MOST}."
        )

"""What `python -m experiments` is asked to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hindgrad.apps.settings import (
    Address,
    Engine,
    Flag,
    check_counts,
    check_engine,
    check_one,
    check_seed,
)


@dataclass(frozen=True)
class Reproduce:
    """Run an experiment, most from a paper, on the real data, with its table and pictures.

    - hyper-cleaning: which labels are wrong? (Franceschi et al. 2017, section 5.1)
    - task-interactions: which tasks help each other? (the same, section 5.2)
    - phones: rates tuned in real time, during one run (the same, section 5.3)
    - modes: time and memory of forward and reverse mode
    - schedules: a rate for every step and layer (Maclaurin et al. 2015, section 3.1)
    - regularisation: a penalty for every pixel and weight (the same, section 3.2)
    - training-data: ten images to learn from, learned themselves (the same, section 3.3)
    - sharing: which alphabets should share weights? (the same, section 3.4)
    - chaos: where hypergradients become meaningless (the same, section 4)
    - l2l-quadratic, l2l-mlp, l2l-conv: learned optimizers (Andrychowicz et al. 2016)
    - attribution-harmful: training without the rows that attribution finds harmful
    - attribution-flipped: which labels are wrong, by what rows owe to themselves and to others?
    - attribution-choose: a fifth of the rows chosen by attribution, beside chance and others
    - attribution-gpt: which documents made a small GPT, certified at several rates
    - attribution-lds: what foretells retraining, beside influence functions and TRAK
    - attribution-dattri: the same, with the benchmark dattri's own models
    - gpt-tuning: a small GPT's schedule and document weights, beside Optuna

    Example: python -m experiments hyper-cleaning
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
                "attribution-harmful",
                "attribution-flipped",
                "attribution-choose",
                "attribution-gpt",
                "attribution-lds",
                "attribution-dattri",
                "gpt-tuning",
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
    engine: Engine = None
    address: Address = None
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
        check_engine(self.engine, self.address)

"""What `hindgrad learn-optimizer` and `hindgrad compare-optimizers` are asked to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hindgrad.apps.settings import (
    ArgumentError,
    Out,
    Overwrite,
    Resume,
    Seed,
    check_counts,
    check_one,
    check_seed,
)


@dataclass(frozen=True)
class LearnOptimizer:
    """Learn an optimizer: a network whose steps lower the losses of a family of problems.

    The problems are random quadratics in 10 dimensions, small networks on MNIST, or small
    convolutional networks on CIFAR-10 in 8 × 8 pixels.

    Writes into --out: the optimizer (optimizer.safetensors, for hg.learned.load and for hindgrad
    compare-optimizers), its loss curves on problems it was not learned on, beside SGD, momentum,
    Nesterov, RMSprop and Adam, how the learning went, a table, and everything in numbers.

    Example: hindgrad learn-optimizer quadratic --out mine
    """

    family: Annotated[
        tyro.conf.Positional[Literal["quadratic", "mlp", "conv"]], tyro.conf.arg(metavar="FAMILY")
    ]
    """The problems to learn it on: quadratic, mlp or conv."""
    out: Out = Path("learned")
    iterations: int | None = None
    """How many gradients to learn by, if not the recipe's own number."""
    steps: int | None = None
    """How long a problem is trained, if not the recipe's own number; a multiple of --unroll."""
    unroll: int | None = None
    """Through how many steps a gradient goes, if not the recipe's own number."""
    batch: int | None = None
    """How many problems at a time, if not the recipe's own number."""
    problems: int | None = None
    """How many problems the curves are measured on: 128, conv 16, unless given."""
    tuning: int | None = None
    """How many other problems the rates of SGD, Adam, … are tuned on, on a coarse grid: 1024,
    mlp 64, conv 8, unless given."""
    seed: Seed = 0
    resume: Resume = False
    overwrite: Overwrite = False

    def check(self) -> None:
        """Raises `ArgumentError` if an argument is out of its range."""
        check_counts(
            {
                "iterations": (self.iterations, 1),
                "steps": (self.steps, 2),
                "unroll": (self.unroll, 1),
                "batch": (self.batch, 1),
                "problems": (self.problems, 1),
                "tuning": (self.tuning, 1),
            }
        )
        check_seed(self.seed)
        check_one(self.resume, self.overwrite)


OPTIONS = {
    "quadratic": ("size",),
    "rosenbrock": ("size",),
    "logistic": ("data",),
    "mlp": ("hidden", "layers", "activation", "data", "batch"),
    "conv": ("data", "batch", "size"),
}
"""The options that a family of problems has."""


@dataclass(frozen=True)
class CompareOptimizers:
    """Compare a learned optimizer with SGD, momentum, Nesterov, RMSprop and Adam at their best.

    Their rates, and the decays of momentum and Nesterov, are tuned on problems of their own, for
    each number of steps in the table separately; what is compared are mean and median losses on
    other problems.

    Writes into --out: a table (Markdown and CSV), a picture of the curves, and everything in
    numbers.

    Example: hindgrad compare-optimizers mine --on quadratic --steps 200
    """

    optimizer: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DIR|FILE|NAME")]
    """The folder that hindgrad learn-optimizer wrote, a .safetensors file, or the name of an
    optimizer that comes with the package."""
    on: Annotated[
        Literal["quadratic", "mlp", "conv", "rosenbrock", "logistic"],
        tyro.conf.arg(metavar="FAMILY"),
    ]
    """The problems to compare on: quadratic, mlp, conv, rosenbrock or logistic (regression)."""
    out: Out = Path("compared")
    steps: int = 100
    """How long a problem is trained."""
    problems: int = 128
    """How many problems are compared on."""
    tuning: int = 1024
    """How many other problems the rates are tuned on."""
    size: int | None = None
    """quadratic, rosenbrock: the number of parameters, 10 and 2 unless given; conv: pixels a side
    (images are averaged), 8 unless given."""
    hidden: int | None = None
    """mlp: the units of a hidden layer, 20 unless given."""
    layers: int | None = None
    """mlp: how many hidden layers, 1 unless given."""
    activation: Literal["sigmoid", "tanh", "relu"] | None = None
    """mlp: what the hidden units do, sigmoid unless given."""
    data: Annotated[str | None, tyro.conf.arg(metavar="DATA")] = None
    """A built-in data set: digits, mnist, phoneme, cifar10. Unless given, mlp takes mnist, conv
    cifar10, and logistic random data."""
    batch: int | None = None
    """mlp, conv: examples in a training step, 128 and 64 unless given."""
    seed: Seed = 0
    resume: Resume = False
    overwrite: Overwrite = False

    def check(self) -> None:
        """Raises `ArgumentError` if an argument is out of its range, or not for the family."""
        check_counts(
            {
                "steps": (self.steps, 1),
                "problems": (self.problems, 1),
                "tuning": (self.tuning, 1),
                "size": (self.size, 2 if self.on == "rosenbrock" else 1),
                "hidden": (self.hidden, 1),
                "layers": (self.layers, 0),
                "batch": (self.batch, 1),
            }
        )
        check_seed(self.seed)
        names = sorted({name for options in OPTIONS.values() for name in options})
        for name in names:
            if getattr(self, name) is not None and name not in OPTIONS[self.on]:
                those = [family for family, options in OPTIONS.items() if name in options]
                raise ArgumentError(
                    f"--{name} is for {' and '.join(those)}, not for --on {self.on}; leave it out."
                )
        check_one(self.resume, self.overwrite)

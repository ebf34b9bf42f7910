"""Task interactions (Franceschi et al. 2017, section 5.2): which tasks help each other?

Softmax regression W with few examples, each class a task. The training loss is

    cross-entropy(W) + Σ_jk C_jk ‖w_j − w_k‖² + ρ Σ_k ‖w_k‖²,

where the interactions C are symmetric, not negative, and zero on the diagonal. The hyperparameters
are tuned by the loss on validation examples, in four ways: C = 0 (tasks on their own), all C_jk
equal, all C_jk learned, and these with a bound R on their sum.

The gradient of the cross-entropy sums to zero over the classes, and so do the weights, when they
begin at zero. Then Σ_jk c ‖w_j − w_k‖² = 2 c K Σ_k ‖w_k‖²: one shared strength is the same as a
larger ρ, and the first two ways can only differ by how well they were tuned.
"""

import abc
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import hindgrad as hg
from experiments import runner
from experiments.franceschi2017 import task_interactions_report as report
from experiments.franceschi2017.tasks import TASKS, Tasks
from experiments.models import Examples, cross_entropy
from experiments.runner import Kept, Repeated, Results
from hindgrad.progress import Bar as Line
from hindgrad.tuning.constraints import Constraint

ABOUT = (
    "Which tasks help each other? Franceschi et al. 2017, *Forward and reverse "
    "gradient-based hyperparameter optimization*, section 5.2."
)


@dataclass(frozen=True)
class Settings(Repeated):
    """Sizes and rates; those with an entry for each data set go in the order of `data`."""

    data: tuple[str, ...]
    rows: tuple[int, ...]
    """Training examples of each class; as many more are for validation, all others for the test."""
    steps: int
    distance: tuple[float, ...]
    """The rate of training times its steps: how far gradient descent goes."""
    steps_outer: int
    rate_outer: tuple[float, ...]
    rho: tuple[float, ...]
    """Where ρ begins; all interactions begin at zero."""
    radius: tuple[float, ...]
    """R, the bound on the sum of the interactions."""
    filters: int
    """Of the features, see `features.py`."""


DECAY = 0.9
"""Of the momentum."""

Hyper = dict[str, Any]


class Way(eqx.Module):
    """One way of choosing the interactions, by the hyperparameters besides ρ."""

    @abc.abstractmethod
    def start(self, classes: int) -> Hyper:
        """What is tuned besides ρ."""

    @abc.abstractmethod
    def interactions(self, hyper: Hyper, classes: int) -> Float[Array, "classes classes"]:
        """C."""

    @abc.abstractmethod
    def constraint(self) -> Constraint:
        """What holds for the hyperparameters."""


@final
class Single(Way):
    """Tasks on their own."""

    def start(self, classes):
        del classes
        return {}

    def interactions(self, hyper, classes):
        del hyper
        return jnp.zeros((classes, classes))

    def constraint(self):
        return hg.constraints.NonNegative("rho")


@final
class Shared(Way):
    """One strength for all pairs."""

    def start(self, classes):
        del classes
        return {"c": 0.0}

    def interactions(self, hyper, classes):
        return hyper["c"] * (1 - jnp.eye(classes))

    def constraint(self):
        return hg.constraints.NonNegative("rho", "c")


@final
class Learned(Way):
    """A strength for each pair."""

    def start(self, classes):
        return {"C": jnp.zeros((classes, classes))}

    def interactions(self, hyper, classes):
        del classes
        return hyper["C"]

    def constraint(self):
        return hg.constraints.Symmetric("C", zero_diagonal=True) & hg.constraints.NonNegative(
            "rho", "C"
        )


@final
class Sparse(Way):
    """A strength for each pair, and a bound on their sum, which makes many of them zero."""

    radius: float = eqx.field(static=True)

    def start(self, classes):
        return Learned().start(classes)

    def interactions(self, hyper, classes):
        return Learned().interactions(hyper, classes)

    def constraint(self):
        return Learned().constraint() & hg.constraints.L1Ball(C=self.radius)


class Split(eqx.Module):
    """One choice of examples, in coordinates of the span of those that are trained on.

    Weights that begin at zero stay in that span, so nothing is lost, and a step costs less.
    """

    train: Examples
    valid: Examples
    test: Examples


def split(tasks: Tasks, rows: int, seed: int) -> tuple[Split, Split]:
    """Draws `rows` training and `rows` validation examples of each class; and the same once more
    for training on both."""
    rng = np.random.default_rng(seed)
    parts = [[], [], []]
    for k in range(len(tasks.names)):
        order = rng.permutation(np.flatnonzero(tasks.y == k))
        for part, taken in zip(parts, np.split(order, [rows, 2 * rows]), strict=True):
            part.append(taken)
    train, valid, test = map(np.concatenate, parts)

    def seen(trained):
        basis, _ = np.linalg.qr(tasks.x[trained].T.astype(np.float64))
        x = (tasks.x @ basis).astype(np.float32)
        examples = Examples(jnp.asarray(x), jnp.asarray(tasks.y))
        return Split(examples[trained], examples[valid], examples[test])

    return seen(train), seen(np.concatenate([train, valid]))


def mean_loss(w: Float[Array, "features classes"], examples: Examples) -> Float[Array, ""]:
    return cross_entropy(examples.x @ w, examples.y)


def accuracy(w: Float[Array, "features classes"], examples: Examples) -> float:
    """In percent."""
    return 100 * float(jnp.mean(jnp.argmax(examples.x @ w, axis=1) == examples.y))


class Loss(eqx.Module):
    """The regularised training loss."""

    way: Way

    def __call__(self, w, hyper, batch):
        products = w.T @ w
        squares = jnp.diag(products)
        distances = squares[:, None] + squares[None] - 2 * products
        coupling = jnp.sum(self.way.interactions(hyper, w.shape[1]) * distances)
        return mean_loss(w, batch.data) + coupling + hyper["rho"] * jnp.sum(squares)


class Score(eqx.Module):
    """The validation loss."""

    valid: Examples

    def __call__(self, w, hyper, key):
        del hyper, key
        return mean_loss(w, self.valid)


def objective(way: Way, split: Split, classes: int, rate: float, steps: int) -> hg.Objective:
    """The validation loss of a model that was trained from zero."""
    training = hg.Training(
        Loss(way),
        optimizer=hg.Momentum(rate, DECAY),
        batches=hg.full_batch(split.train),
        steps=steps,
    )
    start = jnp.zeros((split.train.x.shape[1], classes))
    return hg.Objective(training, init=start, score=Score(split.valid))


@dataclass(frozen=True)
class Problem:
    """One data set's tasks with their share of the settings."""

    settings: Settings
    place: int
    """Which of the settings' data sets."""

    @property
    def name(self) -> str:
        return self.settings.data[self.place]

    @cached_property
    def tasks(self) -> Tasks:
        """Read, and described, when first needed: a finished run needs none of it."""
        return TASKS[self.name](self.settings.filters)

    @property
    def ways(self) -> dict[str, Way]:
        return {
            report.SINGLE: Single(),
            report.SHARED: Shared(),
            report.LEARNED: Learned(),
            report.SPARSE: Sparse(self.settings.radius[self.place]),
        }

    @cached_property
    def optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.settings.rate_outer[self.place])

    def tune(self, way: Way, seed: int) -> dict[str, Any]:
        """Tunes one way on one split, and tests it: trained on the training examples, and once
        more on those and the validation examples."""
        settings, i = self.settings, self.place
        classes = len(self.tasks.names)
        first, both = split(self.tasks, settings.rows[i], seed)
        rate = settings.distance[i] / settings.steps
        tuned = objective(way, first, classes, rate, settings.steps)
        hyper = {"rho": settings.rho[i], **way.start(classes)}
        result = runner.tune(
            tuned,
            hyper,
            self.optimizer,
            steps=settings.steps_outer,
            project=way.constraint(),
            adjoint=hg.Stored(),
        )
        key = jax.random.key(0)
        w = tuned.run(result.hyper, key).params
        again = objective(way, both, classes, rate, settings.steps).run(result.hyper, key).params
        return {
            "seed": seed,
            "valid_loss": result.value,
            "test_loss": float(mean_loss(w, first.test)),
            "test": accuracy(w, first.test),
            "retrained": accuracy(again, both.test),
            "rho": float(result.hyper["rho"]),
            "C": np.asarray(way.interactions(result.hyper, classes), float).tolist(),
            "values": [record.value for record in result.history],
            "how": result.message,
        }


def run(settings: Settings, kept: Kept, line: Line) -> Results:
    """All data sets, splits and ways."""
    found = {}
    for place, name in enumerate(settings.data):
        problem = Problem(settings, place)
        runs = {way: [] for way in problem.ways}
        for seed in settings.each_seed():
            for title, way in problem.ways.items():
                line.stage(f"{name}, seed {seed}: {title}")
                piece = f"{name}/seed-{seed}/{title}".replace(" ", "-")
                runs[title].append(kept(piece, partial(problem.tune, way, seed)))
                line.done(settings.steps_outer)
        shown = kept(f"{name}/tasks", lambda problem=problem: problem.tasks.shown())
        found[name] = {"ways": runs, **shown}
    return {"found": found}


def total(settings: Settings) -> int:
    """Outer steps."""
    ways = len(Problem(settings, 0).ways)
    return len(settings.data) * settings.seeds * ways * settings.steps_outer


DEFAULT = Settings(
    data=("cifar10", "omniglot"),
    rows=(5, 3),
    steps=300,
    distance=(6000.0, 12000.0),
    steps_outer=60,
    rate_outer=(3e-5, 1e-5),
    rho=(1e-3, 3e-5),
    radius=(3e-3, 1e-3),
    filters=400,
    seeds=5,
)

FULL = replace(DEFAULT, steps=3000, steps_outer=250)

SMALL = replace(
    DEFAULT,
    data=("digits",),
    rows=(3,),
    steps=30,
    distance=(300.0,),
    steps_outer=5,
    rate_outer=(1e-3,),
    rho=(1e-3,),
    radius=(5e-4,),
    filters=16,
    seeds=2,
)

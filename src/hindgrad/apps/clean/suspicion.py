"""How far each label can be trusted: a weight for every training example, by hypergradient."""

from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

import hindgrad as hg
from hindgrad import programs
from hindgrad.apps.model import Params, fresh, predict
from hindgrad.apps.splits import Grouped, Split, halves
from hindgrad.apps.tuning import tune
from hindgrad.batches import Batch

FOLDS = 5
"""Into so many folds the rows are divided for an opinion on each from outside."""

DIVISIONS = 4
"""How many such divisions there are; an opinion is the mean over them."""

OUTER_RATE = 0.05

FEW_INPUTS = 64
"""Layers of more inputs learn at a lower rate."""

Weights = dict[str, Float[Array, " rows"]]


@dataclass(frozen=True)
class Learner:
    """The network and its training."""

    sizes: tuple[int, ...]
    steps: int
    rate: float = 0.3
    """For layers of few inputs; the more there are, the more their squares sum to."""
    decay: float = 0.9

    @property
    def rates(self) -> list[float]:
        """The rate of each layer."""
        return [self.rate * min(1.0, FEW_INPUTS / inputs) for inputs in self.sizes[:-1]]

    def batch(self, rows: int) -> int:
        """Examples in a training step: at most 20 steps go through all rows."""
        return min(rows, max(256, rows // 20))


class Cleaning(eqx.Module):
    """Rows with labels, some of which are wrong, as a problem of weights.

    Training minimises the weighted mean of the examples' cross-entropies (data hyper-cleaning,
    Franceschi et al. 2017, section 5.1). Each key draws anew which half of the rows trains and
    which validates.
    """

    x: Float[Array, "rows features"]
    y: Int[Array, " rows"]
    trusted: Bool[Array, " rows"]
    say: Float[Array, " rows"]
    """How much each row says when it validates."""
    division: Split | None
    """How rows are halved, if groups of them stay together."""
    learner: Learner = eqx.field(static=True)

    @property
    def objective(self) -> hg.Objective:
        """The validation loss of a training, as a function of (weights, key)."""
        return hg.Objective(self.training, init=Start(self.learner.sizes), score=self.score)

    def labelled(self, y: Int[Array, " rows"]) -> "Cleaning":
        """The same rows with other labels."""
        return eqx.tree_at(lambda c: c.y, self, y)

    def split(self, key: PRNGKeyArray) -> tuple[Int[Array, " train"], Int[Array, " valid"]]:
        """Draws the rows to train on and those to validate on."""
        if self.division is not None:
            return self.division.draw(key)
        noise = jax.random.uniform(jax.random.fold_in(key, 1), self.y.shape)
        order, half = jnp.argsort(noise), len(self.y) // 2
        return order[:-half], order[-half:]

    def training(self, key: PRNGKeyArray) -> hg.Training:
        """Draws a training."""
        return self.training_on(self.split(key)[0], key)

    def training_on(self, rows: Int[Array, " train"], key: PRNGKeyArray) -> hg.Training:
        """A training on these rows."""
        size = self.learner.batch(len(rows))
        batches = hg.minibatches(rows, size=size, key=jax.random.fold_in(key, 2))
        optimizer = hg.Momentum(rate=self.learner.rates, decay=self.learner.decay)
        return hg.Training(
            self.loss, optimizer=optimizer, batches=batches, steps=self.learner.steps
        )

    def loss(self, params: Params, hyper: Weights, batch: Batch) -> Float[Array, ""]:
        """The weighted mean of the cross-entropies."""
        weights = hyper["weights"][batch.data]
        total = jnp.maximum(jnp.sum(weights), 1e-6)  # a small batch may be all suspicious
        return jnp.sum(weights * -self.log_trust(params, batch.data)) / total

    def score(self, params: Params, hyper: Weights, key: PRNGKeyArray) -> Float[Array, ""]:
        """The mean of 1 − p(label) on the validating rows, by how much they say.

        Uniformly wrong labels among them change this loss by a factor and a constant only (it is
        symmetric; Ghosh, Kumar & Sastry 2017, theorem 1). The cross-entropy is not so: lowering it
        on wrong labels asks for networks that are sure of nothing, and so for wrong labels to
        train on.
        """
        del hyper
        _, rows = self.split(key)
        say = self.say[rows]
        return 1 - jnp.sum(say * jnp.exp(self.log_trust(params, rows))) / jnp.sum(say)

    def log_trust(self, params: Params, rows: Int[Array, " some"]) -> Float[Array, " some"]:
        """The log probability of each row's own label."""
        logs = jax.nn.log_softmax(predict(params, self.x[rows]))
        return jnp.take_along_axis(logs, self.y[rows][:, None], axis=1)[:, 0]


class Start(eqx.Module):
    """Draws initial parameters, whatever the weights of the rows."""

    sizes: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, hyper: Weights, key: PRNGKeyArray) -> Params:
        del hyper
        return fresh(self.sizes, key)


def cleaning(
    x: np.ndarray,
    y: np.ndarray,
    trusted: np.ndarray,
    learner: Learner,
    groups: np.ndarray | None = None,
) -> Cleaning:
    """The problem for features [rows, features], class indices, a mask, and numbers of groups that
    stay together if there are any, all [rows].

    When they validate, all trusted rows together say as much as all the others: few as they are,
    they outweigh a mistake that is always the same, and the others make up for their being few.
    """
    count = max(1, int(trusted.sum()))
    say = np.where(trusted, (len(y) - count) / count, 1.0)
    arrays = jnp.asarray(x, jnp.float32), jnp.asarray(y), jnp.asarray(trusted)
    division = None if groups is None else halves(groups)
    return Cleaning(*arrays, jnp.asarray(say, jnp.float32), division, learner)


def learn(
    problem: Cleaning,
    *,
    budget: float,
    steps: int,
    key: PRNGKeyArray,
    checkpoint: Path | None = None,
    progress: bool | None = False,
) -> Float[np.ndarray, " rows"]:
    """Learns a weight in [0, 1] for every row, their sum at most the budget.

    Trusted rows keep the weight 1. The answer is the mean of the later iterates, each of which
    saw another draw of training and validating rows.
    """
    trusted = np.asarray(problem.trusted)
    others = len(trusted) - trusted.sum()
    share = np.clip((budget - trusted.sum()) / max(others, 1), 0.0, 1.0)
    weights = np.where(trusted, 1.0, share).astype(np.float32)
    result = tune(
        problem.objective,
        {"weights": jnp.asarray(weights)},
        optax.adam(OUTER_RATE),
        steps=steps,
        project=hg.constraints.Box(weights=(trusted, 1))
        & hg.constraints.L1Ball(weights=float(weights.sum())),
        key=key,
        adjoint=hg.Stored(),
        checkpoint=checkpoint,
        progress=progress,
    )
    return np.asarray(result.hyper["weights"])


def opinion(
    problem: Cleaning, weights: Float[np.ndarray, " rows"], key: PRNGKeyArray, divisions: int
) -> Float[np.ndarray, "rows classes"]:
    """The probabilities that networks, trained with these weights, give to the classes of rows in
    folds that they have not trained on. Mean over `divisions` into folds."""
    labels, rows = np.asarray(problem.y), np.arange(len(problem.y))
    total = np.zeros((len(labels), problem.learner.sizes[-1]))
    hyper = {"weights": jnp.asarray(weights, jnp.float32)}
    for division in range(divisions):
        divided = folds(problem, jax.random.fold_in(key, division))
        # Folds differ by some rows; trainings on as many rows each are compiled once.
        most = max(map(len, divided))
        for fold, outside in enumerate(divided):
            inside = np.setdiff1d(rows, outside)[: len(rows) - most]
            draw = jax.random.fold_in(key, divisions + division * FOLDS + fold)
            probabilities = _trained(problem, hyper, jnp.asarray(inside), draw)
            total[outside] += np.asarray(probabilities)[outside]
    return total / divisions


def folds(problem: Cleaning, key: PRNGKeyArray) -> list[np.ndarray]:
    """The rows outside, fold by fold; every fold has its share of each class, or whole groups."""
    labels = np.asarray(problem.y)
    if isinstance(problem.division, Grouped):
        groups, count = np.asarray(problem.division.groups), problem.division.count
        places = np.asarray(jax.random.permutation(key, count))[groups]
        bounds = np.arange(FOLDS) * len(labels) // FOLDS
        order = np.argsort(places, kind="stable")
        before = np.searchsorted(places[order], places)  # rows in groups that come earlier
        fold = np.searchsorted(bounds, before, side="right") - 1
        return [np.flatnonzero(fold == f) for f in np.unique(fold)]
    noise = jax.random.uniform(key, labels.shape)
    order = np.lexsort((np.asarray(noise), labels))
    return [order[fold::FOLDS] for fold in range(FOLDS)]


@programs.compiled
def _trained(problem: Cleaning, hyper: Weights, rows: Int[Array, " train"], key: PRNGKeyArray):
    """The probabilities of all rows by a network trained on some."""
    params = fresh(problem.learner.sizes, jax.random.fold_in(key, 0))
    run = problem.training_on(rows, key)(params, hyper)
    return jax.nn.softmax(predict(run.params, problem.x))

"""Training an MLP on a table, as a function of its hyperparameters."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

import hindgrad as hg
from hindgrad.apps.splits import Split, set_aside, split_of
from hindgrad.apps.table import Kind, Table
from hindgrad.apps.tables.bends import NONE, Bends, added, bent
from hindgrad.apps.tables.columns import CLIP as CLIP
from hindgrad.apps.tables.encoder import Fitted
from hindgrad.schedules import (
    Between,
    KnotSchedule,
    Linear,
    Piecewise,
    Positive,
    Range,
    Spline,
)

RATES, DECAYS = Positive(), Between()

KINDS: dict[str, type[KnotSchedule]] = {"windows": Piecewise, "linear": Linear, "spline": Spline}
"""The kinds of schedules that can be tuned, by the names of --schedule."""

KNOTS = {"windows": 10, "linear": 4, "spline": 4}
"""How many numbers each has unless --knots is given."""

CONSTANT = 1e-12
"""A feature that varies by less than this part of its size has the rounding of one value only."""

Hyper = dict[str, Float[Array, " layers"] | Float[Array, "knots layers"]]
"""Log rate and logit decay for each knot of their schedules and layer, log weight decay and log
initial scale for each layer."""

Params = list[dict[str, Array]]


@dataclass(frozen=True)
class Form:
    """The form of the schedules of rate and decay; each layer has its own."""

    name: str = "spline"
    """One of `KINDS`."""
    knots: int = KNOTS["spline"]


@dataclass(frozen=True)
class Network:
    """The network and its training, as far as they are not tuned."""

    sizes: tuple[int, ...]
    kind: Kind
    steps: int
    batch: int
    form: Form = Form()
    bent: tuple[int, ...] = ()
    """Which of the numbers it also takes bent: by their ranks, and in waves of these."""

    @property
    def plain(self) -> int:
        """How many of its inputs are numbers as they are, which come first."""
        return self.sizes[0] - added(len(self.bent))

    def defaults(self) -> Hyper:
        """What one would guess: rate .1, decay .9, little weight decay, scale 1."""
        layers = len(self.sizes) - 1
        return {
            "rate": self.schedule(RATES).init(jnp.full(layers, 0.1)),
            "decay": self.schedule(DECAYS).init(jnp.full(layers, 0.9)),
            "weight_decay": jnp.full(layers, -9.0),
            "scale": jnp.zeros(layers),
        }

    def schedule(self, range: Range) -> KnotSchedule:
        """The schedule of rates or decays, which are in this range."""
        return KINDS[self.form.name](self.form.knots, self.steps, range)


class Metrics(NamedTuple):
    """How a trained network does. The loss is the mean negative log-likelihood, or the squared
    error of the standardised target; the error is the error rate, or the root mean squared error
    in the target's own units."""

    valid_loss: Float[Array, ""]
    valid_error: Float[Array, ""]
    test_loss: Float[Array, ""]
    test_error: Float[Array, ""]


class Rows(NamedTuple):
    """Some rows of a table."""

    x: Float[Array, "rows features"]
    y: Int[Array, " rows"] | Float[Array, " rows"]


class Init(eqx.Module):
    """Draws initial parameters: Gaussian, by fan-in, times each layer's scale."""

    sizes: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, hyper: Hyper, key: PRNGKeyArray) -> Params:
        pairs = list(zip(self.sizes, self.sizes[1:], strict=False))
        keys = jax.random.split(key, len(pairs))
        scales = jnp.exp(hyper["scale"]) / jnp.sqrt(jnp.array(self.sizes[:-1], jnp.float32))
        return [
            {"w": scales[i] * jax.random.normal(keys[i], pair), "b": jnp.zeros(pair[1])}
            for i, pair in enumerate(pairs)
        ]


def weights(sizes: tuple[int, ...]) -> int:
    """How many weights and biases a network has."""
    return sum((a + 1) * b for a, b in pairwise(sizes))


def fresh(sizes: tuple[int, ...], key: PRNGKeyArray) -> Params:
    """Initial parameters, all scales 1."""
    return Init(sizes)({"scale": jnp.zeros(len(sizes) - 1)}, key)


class Problem(eqx.Module):
    """A table and a network, with the test rows set aside: what is tuned is `objective`.

    Every key draws a split of the other rows, the pool, into train and valid, an initialisation
    and an order of the batches. Tuning against ever fresh draws is what makes the result hold on
    the test rows: many hyperparameters would overfit one split and one initialisation.
    """

    pool: Rows
    test: Rows
    division: Split
    target_scale: Float[Array, ""]
    network: Network = eqx.field(static=True)

    @property
    def objective(self) -> hg.Objective:
        """The validation loss of a training, as a function of (hyper, key)."""
        return hg.Objective(self.training, init=Init(self.network.sizes), score=self.score)

    def split(self, key: PRNGKeyArray) -> tuple[Rows, Rows]:
        """Draws the rows to train on and those to validate on."""
        train, valid = self.division.draw(key)
        take = lambda rows: Rows(self.pool.x[rows], self.pool.y[rows])
        return take(train), take(valid)

    def training(self, key: PRNGKeyArray) -> hg.Training:
        """Draws a training."""
        train, _ = self.split(key)
        batches = hg.minibatches(train, size=self.network.batch, key=jax.random.fold_in(key, 2))
        optimizer = hg.Momentum(rate=self.rate, decay=self.decay)
        return hg.Training(
            self.loss, optimizer=optimizer, batches=batches, steps=self.network.steps
        )

    def rate(self, hyper: Hyper, t: Int[Array, ""]) -> list[Float[Array, ""]]:
        """The rate of each layer at a step."""
        return list(self.network.schedule(RATES)(hyper["rate"], t))

    def decay(self, hyper: Hyper, t: Int[Array, ""]) -> list[Float[Array, ""]]:
        """The velocity's decay of each layer at a step."""
        return list(self.network.schedule(DECAYS)(hyper["decay"], t))

    def loss(self, params: Params, hyper: Hyper, batch: Any) -> Float[Array, ""]:
        """The training loss: the fit, and each layer's weight decay times its squared weights."""
        strengths = jnp.exp(hyper["weight_decay"])
        penalties = [strengths[i] * jnp.sum(layer["w"] ** 2) for i, layer in enumerate(params)]
        return self.fit(params, batch.data) + sum(penalties)

    def score(self, params: Params, hyper: Hyper, key: PRNGKeyArray) -> Float[Array, ""]:
        """The loss on the validation rows of the same draw."""
        del hyper
        _, valid = self.split(key)
        return self.fit(params, valid)

    def fit(self, params: Params, rows: Rows) -> Float[Array, ""]:
        """The mean loss on some rows."""
        outputs = predict(params, rows.x)
        if self.network.kind == "regression":
            return jnp.mean((outputs[:, 0] - rows.y) ** 2)
        right = jnp.take_along_axis(outputs, rows.y[:, None], axis=1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(outputs, axis=1) - right)

    def error(self, params: Params, rows: Rows) -> Float[Array, ""]:
        """The error rate, or the root mean squared error in the target's units, on some rows."""
        outputs = predict(params, rows.x)
        if self.network.kind == "regression":
            return self.target_scale * jnp.sqrt(jnp.mean((outputs[:, 0] - rows.y) ** 2))
        return jnp.mean(outputs.argmax(axis=1) != rows.y)

    def metrics(self, params: Params, key: PRNGKeyArray) -> Metrics:
        """How parameters trained on this key's draw do."""
        _, valid = self.split(key)
        fit, error = self.fit, self.error
        return Metrics(
            fit(params, valid),
            error(params, valid),
            fit(params, self.test),
            error(params, self.test),
        )


def predict(params: Params, x: Float[Array, "rows features"]) -> Float[Array, "rows outputs"]:
    """The network: tanh layers and a linear one."""
    for layer in params[:-1]:
        x = jnp.tanh(x @ layer["w"] + layer["b"][None])
    return x @ params[-1]["w"] + params[-1]["b"][None]


class Standard(NamedTuple):
    """How rows become what a network takes: all of it was learned from the pool."""

    columns: Fitted
    mean: np.ndarray
    std: np.ndarray
    """Of the numbers that the columns become, [width]."""
    target_mean: float
    target_std: float
    bends: Bends = NONE

    def standardised(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers [rows, width] in standard deviations from the mean."""
        return np.clip((numbers - self.mean) / self.std, -CLIP, CLIP)

    def features(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers [rows, width] as a network takes them, float32."""
        return self.bends(self.standardised(numbers)).astype(np.float32)

    def targets(self, y: np.ndarray) -> np.ndarray:
        """Class indices, or standardised targets, [rows]."""
        if y.dtype.kind != "f":
            return y.astype(np.int32)
        return ((y - self.target_mean) / self.target_std).astype(np.float32)


def standardise(table: Table, pool: np.ndarray) -> tuple[np.ndarray, Standard]:
    """All rows as numbers [rows, width], and how they are standardised: means and standard
    deviations over the pool; what is constant there is left at zero."""
    numbers, columns = table.encoded(pool)
    x = numbers[pool].astype(np.float64)
    mean, std = x.mean(axis=0), x.std(axis=0)
    varies = std > CONSTANT * np.abs(x).max(axis=0)
    mean, std = np.where(varies, mean, x[0]), np.where(varies, std, 1.0)
    if table.kind == "classification":
        return numbers, Standard(columns, mean, std, 0.0, 1.0)
    y = table.y[pool].astype(np.float64)
    return numbers, Standard(columns, mean, std, float(y.mean()), float(y.std()) or 1.0)


def center_and_scale(table: Table, pool: np.ndarray) -> tuple[np.ndarray, Standard]:
    """All rows as numbers, and their standardisation by the pool: pixels of images by one scale,
    other features each by its own."""
    numbers, standard = standardise(table, pool)
    if table.image is None:
        return numbers, standard
    scale = np.full_like(standard.std, table.x[pool].std() or 1.0)
    return numbers, standard._replace(std=scale)


def draw_problem(
    table: Table, network: Network, *, test: float, valid: float, seed: int
) -> tuple[Problem, Standard]:
    """Sets the test rows aside by `seed`, stratified or by groups, and standardises by the others.

    `test` and `valid` are shares of all rows.
    """
    pool, tested = set_aside(table, test, seed)
    return problem_of(table, network, pool, tested, split_of(table, pool, valid / (1 - test)))


def problem_of(
    table: Table, network: Network, pool: np.ndarray, tested: np.ndarray, division: Split
) -> tuple[Problem, Standard]:
    """The problem of these rows, standardised by those of the pool."""
    numbers, standard = standardise(table, pool)
    if network.bent:
        standard = standard._replace(bends=bent(standard.standardised(numbers[pool]), network.bent))

    def rows(taken: np.ndarray) -> Rows:
        x, y = standard.features(numbers[taken]), standard.targets(table.y[taken])
        return Rows(jnp.asarray(x), jnp.asarray(y))

    problem = Problem(
        pool=rows(pool),
        test=rows(tested),
        division=division,
        target_scale=jnp.float32(standard.target_std),
        network=network,
    )
    return problem, standard

"""Thousands of L2 penalties (Maclaurin, Duvenaud and Adams 2015, section 3.2).

Logistic regression with a penalty of its own for each of its 7,850 weights and biases, as in the
authors' code. Beside it one penalty for all, tuned by as many hypergradients, and no penalty. Then
a network on few images, with penalties for all weights together, for each layer, each unit and each
weight: does the validation loss of finer ones go down only because there are more of them?

The loss is the mean negative log-likelihood plus the sum of exp(log_l2) w².
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

import hindgrad as hg
from experiments import runner
from experiments.maclaurin2015 import regularisation_report as report
from experiments.models import Examples, Layers, Sampled, Split, error, gaussian, nll, split
from experiments.runner import BySeed, Pieces, Results
from hindgrad import programs
from hindgrad.progress import Bar as Line

ABOUT = (
    "A penalty for each weight. Maclaurin, Duvenaud and Adams 2015, *Gradient-based "
    "hyperparameter optimization through reversible learning*, section 3.2."
)

HIGHEST = 0.0
"""The highest logarithm of a penalty. A penalty of 1 keeps a weight at 0; momentum of rate 1 and
decay .9 diverges from 19 on."""

HELD_OUT = 15
"""How many trainings `hg.tune` takes to choose an answer when draws are fresh."""

MAPS = 10
"""How many units of the network are drawn."""


@dataclass(frozen=True)
class Model:
    """A network, its training and its tuning."""

    hidden: tuple[int, ...]
    train: int
    valid: int
    steps: int
    batch: int
    rate: float
    decay: float
    log_scale: float
    """Logarithm of the standard deviation of the initial weights and biases."""
    l2: float
    """The penalty to begin with."""
    rate_outer: float
    """Of Adam, on the logarithms of the penalties."""
    steps_outer: int


@dataclass(frozen=True)
class Settings(BySeed):
    """Both models."""

    data: str
    test: int
    logistic: Model
    authors_rate: float
    """Of the authors' plain gradient descent on the logistic regression's penalties."""
    network: Model
    grains: tuple[str, ...]
    """How finely the network's penalties are told apart, see `GRAINS`."""
    draws: int
    """Fresh trainings that each way is judged by."""


Divide = Callable[[Split, PRNGKeyArray], tuple[Examples, Examples]]
"""Which images a training sees, and which its outer loss is taken on."""


def same(drawn: Split, key: PRNGKeyArray) -> tuple[Examples, Examples]:
    """Always the same images."""
    del key
    return drawn.train, drawn.valid


def anew(drawn: Split, key: PRNGKeyArray) -> tuple[Examples, Examples]:
    """All of them divided anew."""
    pool = drawn.train + drawn.valid
    order = jax.random.permutation(jax.random.fold_in(key, 1), len(pool))
    cut = len(drawn.train.y)
    return pool[order[:cut]], pool[order[cut:]]


def penalty(log_l2: PyTree, layers: Layers) -> Float[Array, ""]:
    """The sum of exp(log_l2) w². `log_l2` is a prefix of the layers: one array serves all that it
    stands for, broadcast along their last axes."""

    def of(log_l2, part):
        strength = lambda w: jnp.broadcast_to(jnp.exp(log_l2), w.shape)
        return sum(jnp.sum(strength(w) * w**2) for w in jax.tree.leaves(part))

    return sum(jax.tree.leaves(jax.tree.map(of, log_l2, layers)), jnp.zeros(()))


GRAINS: Mapping[str, Callable[[Layers, Array], PyTree]] = {
    report.SHARED: lambda _, value: value,
    report.LAYER: lambda layers, value: [value for _ in layers],
    report.UNIT: lambda layers, value: [jnp.full(layer["b"].shape, value) for layer in layers],
    report.WEIGHT: lambda layers, value: jax.tree.map(lambda w: jnp.full(w.shape, value), layers),
}
"""How finely penalties are told apart: all of the same value to begin with. A unit's serves the
weights that lead into it and its bias."""


class Penalised(eqx.Module):
    """A model on some images: what its penalties are tuned by and judged on."""

    drawn: Split
    model: Model = eqx.field(static=True)
    divide: Divide = eqx.field(static=True)

    def initial(self, key: PRNGKeyArray) -> Layers:
        """Random weights."""
        sizes = (self.drawn.train.x.shape[1], *self.model.hidden, self.drawn.classes)
        scales = [jnp.array(self.model.log_scale)] * (2 * len(sizes) - 2)
        return gaussian(key, sizes, scales)

    def training(self, key: PRNGKeyArray) -> hg.Training:
        """Minibatches with replacement."""
        model = self.model
        images, _ = self.divide(self.drawn, key)
        return hg.Training(
            lambda layers, log_l2, batch: nll(layers, batch.data) + penalty(log_l2, layers),
            optimizer=hg.Momentum(model.rate, model.decay),
            batches=Sampled(images, key, model.batch),
            steps=model.steps,
        )

    def objective(self) -> hg.Objective:
        """The validation loss."""
        return hg.Objective(
            self.training,
            init=lambda _, key: self.initial(key),
            score=lambda layers, _, key: nll(layers, self.divide(self.drawn, key)[1]),
        )

    def start(self, grain: str) -> PyTree:
        """The penalties to begin with."""
        layers = self.initial(jax.random.key(0))
        return GRAINS[grain](layers, jnp.log(jnp.array(self.model.l2)))


@programs.compiled
def outcome(penalised: Penalised, log_l2: PyTree, key: PRNGKeyArray) -> dict[str, Array]:
    """Losses and errors of one training."""
    layers = penalised.objective().run(log_l2, key).params
    drawn = penalised.drawn
    parts = {"train": drawn.train, "valid": drawn.valid, "test": drawn.test}
    losses = {name: nll(layers, images) for name, images in parts.items()}
    return losses | {"error": error(layers, drawn.test)}


def judge(settings: Settings, penalised: Penalised, log_l2: PyTree, seed: int) -> dict[str, float]:
    """The mean over fresh draws of weights and batches, the same for all ways."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 7), settings.draws)
    found = [outcome(penalised, log_l2, key) for key in keys]
    return {name: float(np.mean([f[name] for f in found])) for name in found[0]}


class Way(NamedTuple):
    """How penalties are tuned."""

    grain: str
    optimizer: optax.GradientTransformation
    divide: Divide
    key: int | None
    """None for the same initial weights and batches at each outer step."""


def tune(model: Model, drawn: Split, way: Way) -> tuple[PyTree, dict[str, Any]]:
    """The tuned penalties, and how it went."""
    penalised, begun = Penalised(drawn, model, way.divide), time.monotonic()
    result = runner.tune(
        penalised.objective(),
        penalised.start(way.grain),
        way.optimizer,
        steps=model.steps_outer,
        project=lambda hyper: jax.tree.map(lambda log_l2: jnp.minimum(log_l2, HIGHEST), hyper),
        key=way.key,
        adjoint=hg.Reversible(),
    )
    return result.hyper, {
        "count": sum(log_l2.size for log_l2 in jax.tree.leaves(result.hyper)),
        "history": [record.value for record in result.history if record.status == "accepted"],
        "how": result.message,
        "minutes": (time.monotonic() - begun) / 60,
    }


def ways(settings: Settings, part: str, seed: int) -> dict[str, Way]:
    """What is compared on a model."""
    if part == "logistic":
        adam = optax.adam(settings.logistic.rate_outer)
        plain = optax.sgd(settings.authors_rate)
        return {
            report.SHARED: Way(report.SHARED, adam, same, seed),
            report.WEIGHT: Way(report.WEIGHT, adam, same, seed),
            report.AUTHORS: Way(report.WEIGHT, plain, same, None),
        }
    adam = optax.adam(settings.network.rate_outer)
    grains = {grain: Way(grain, adam, same, seed) for grain in settings.grains}
    return grains | {report.FRESH: Way(report.WEIGHT, adam, anew, seed)}


def maps(layers: PyTree, pixels: int) -> list[list[float]]:
    """The logarithms of a first layer's penalties, unit by unit [units, pixels]: of the units
    that have the lowest of them, on the mean; none if it has not one for each weight."""
    w = jax.tree.leaves(layers[0])[-1] if isinstance(layers, list) else jnp.zeros(0)
    if w.ndim < 2 or w.shape[0] != pixels:
        return []
    lowest = np.sort(np.argsort(np.asarray(w.mean(axis=0)))[:MAPS])
    return np.asarray(w.T, float)[lowest].round(3).tolist()


def one_seed(settings: Settings, seed: int, kept: Pieces, line: Line) -> dict[str, Any]:
    """Both models on the images of one seed."""
    found: dict[str, Any] = {"seed": seed}
    for part, model in (("logistic", settings.logistic), ("network", settings.network)):
        drawn = split(settings.data, model.train, model.valid, settings.test, seed)
        penalised, rows = Penalised(drawn, model, same), {}

        def untuned(log_l2, penalised=penalised):
            return judge(settings, penalised, log_l2, seed)

        line.stage(f"seed {seed}: {part}, untuned")
        rows[report.NONE] = kept(f"seed-{seed}/{part}-none", lambda: untuned(jnp.array(-jnp.inf)))
        start = penalised.start(report.SHARED)
        rows[report.START] = kept(f"seed-{seed}/{part}-start", lambda start=start: untuned(start))
        for i, (name, way) in enumerate(ways(settings, part, seed).items()):
            line.stage(f"seed {seed}: {part}, {name}")

            def tuned(way=way, model=model, drawn=drawn, untuned=untuned):
                log_l2, how = tune(model, drawn, way)
                first = maps(log_l2, drawn.train.x.shape[1])
                return untuned(log_l2) | how | {"maps": first}

            rows[name] = kept(f"seed-{seed}/{part}-{i}", tuned)
            line.done(model.steps * model.steps_outer)
        found[part] = rows
        found["image"] = drawn.image
    return found


def run(settings: Settings, kept: Pieces, line: Line) -> Results:
    """All seeds."""
    return {"runs": [one_seed(settings, seed, kept, line) for seed in settings.each_seed()]}


def total(settings: Settings) -> int:
    """Training steps of the tuning."""
    models = {"logistic": settings.logistic, "network": settings.network}
    steps = [
        len(ways(settings, part, 0)) * model.steps * model.steps_outer
        for part, model in models.items()
    ]
    return settings.seeds * sum(steps)


DEFAULT = Settings(
    data="mnist",
    test=10_000,
    logistic=Model(
        hidden=(),
        train=10_000,
        valid=10_000,
        steps=50,
        batch=200,
        rate=1.0,
        decay=0.9,
        log_scale=-4.0,
        l2=0.04,
        rate_outer=0.1,
        steps_outer=50,
    ),
    authors_rate=1000.0,
    network=Model(
        hidden=(50, 50),
        train=1000,
        valid=1000,
        steps=100,
        batch=100,
        rate=1.0,
        decay=0.9,
        log_scale=-3.0,
        l2=0.01,
        rate_outer=0.15,
        steps_outer=30,
    ),
    grains=tuple(GRAINS),
    draws=5,
    seeds=3,
)

FULL = replace(DEFAULT, seeds=10)

SMALL = replace(
    DEFAULT,
    data="digits",
    test=300,
    logistic=replace(DEFAULT.logistic, train=300, valid=300, steps=20, batch=50, steps_outer=6),
    authors_rate=100.0,
    network=replace(
        DEFAULT.network, hidden=(8,), train=100, valid=100, steps=20, batch=50, steps_outer=3
    ),
    grains=(report.SHARED, report.WEIGHT),
    draws=1,
    seeds=1,
)

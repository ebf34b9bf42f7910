"""Labelled rows, a network that learns them, and what each row is worth to it."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree
from rich.console import Console

import hindgrad as hg
from experiments.attribution import networks
from experiments.models import Examples, images
from experiments.runner import BySeed
from hindgrad.apps import datasets
from hindgrad.apps.clean import command as clean
from hindgrad.apps.clean.settings import Clean

ADJOINT = hg.Reversible()
UNSEEN = 10_000
"""Added to a seed for the keys that judge."""
LOOKS = 4
"""How often in a training the margin is taken."""


@dataclass(frozen=True)
class Sizes(BySeed):
    """Of the data and of the training."""

    data: str
    rows: int
    """Of the training; a third as many validate, all others test."""
    hidden: int
    """Units; without any it is logistic regression."""
    steps: int
    size: int
    """Of a batch."""
    rate: float
    keys: int
    """Trainings over which each way averages."""


class Draw(eqx.Module):
    """One draw of rows and wrong labels."""

    train: Examples
    valid: Examples
    test: Examples
    wrong: Bool[np.ndarray, " rows"]
    pixels: np.ndarray
    """Of the training rows, as images in their own units."""
    classes: int = eqx.field(static=True)


def draw(settings: Sizes, flipped: float, seed: int) -> Draw:
    """Draws the rows, and gives a share of the training rows another label."""
    data, rng = datasets.load(settings.data), np.random.default_rng(seed)
    n, classes = settings.rows, len(data.classes)
    rows = rng.permutation(np.flatnonzero(data.train))
    train, valid, test = rows[:n], rows[n : n + n // 3], rows[n + n // 3 :]
    wrong = np.zeros(n, bool)
    wrong[rng.permutation(n)[: round(flipped * n)]] = True
    given = (data.y[train] + wrong * rng.integers(1, classes, n)) % classes
    parts = (images(data, part) for part in (train, valid, test))
    of_train, of_valid, of_test = parts
    of_train = Examples(of_train.x, jnp.asarray(given, jnp.int32))
    pixels = data.x[train].reshape(n, *(data.image or (-1,)))
    return Draw(of_train, of_valid, of_test, wrong, pixels, classes)


def logits(params: PyTree, x: Float[Array, "rows pixels"]) -> Float[Array, "rows classes"]:
    """Of a network with one hidden layer of tanh units, if it has one."""
    if "w1" in params:
        x = jnp.tanh(x @ params["w1"] + params["b1"][None])
    return x @ params["w2"] + params["b2"][None]


def losses(params: PyTree, rows: Examples) -> Float[Array, " rows"]:
    """The cross-entropy of each row."""
    return networks.losses(logits(params, rows.x), rows)


def margins(params: PyTree, rows: Examples) -> Float[Array, " rows"]:
    """The logit of the given label above the largest other one."""
    scores = logits(params, rows.x)
    own = jax.nn.one_hot(rows.y, scores.shape[1], dtype=bool)
    others = jnp.max(jnp.where(own, -jnp.inf, scores), 1)
    return jnp.sum(jnp.where(own, scores, 0), 1) - others


def objective_of(settings: Sizes, rows: Draw) -> hg.Objective:
    """The mean loss on the validation rows; a key draws the start and the order."""

    def loss(params, weights, batch):
        return jnp.mean(weights[batch.index] * losses(params, batch.data))

    def training(key):
        return hg.Training(
            loss,
            optimizer=hg.Momentum(settings.rate, decay=0.9),
            batches=hg.minibatches(rows.train, size=settings.size, key=key),
            steps=settings.steps,
        )

    def init(_, key):
        inputs, first, second = rows.train.x.shape[1], *jax.random.split(key)
        params = {}
        if settings.hidden:
            w1 = jax.random.normal(first, (inputs, settings.hidden)) / inputs**0.5
            params |= {"w1": w1, "b1": jnp.zeros(settings.hidden)}
            inputs = settings.hidden
        w2 = jax.random.normal(second, (inputs, rows.classes)) / inputs**0.5
        return params | {"w2": w2, "b2": jnp.zeros(rows.classes)}

    score = lambda params, *_: jnp.mean(losses(params, rows.valid))
    return hg.Objective(training, init=init, score=score)


def judged(
    objective: hg.Objective, weights: Float[Array, " train"], test: Examples, seed: int, judges: int
) -> dict[str, float]:
    """The test rows' mean loss and error of so many networks that no way has seen."""
    found = []
    for key in jax.random.split(jax.random.key(UNSEEN + seed), judges):
        params = objective.run(weights, key).params
        wrong = jnp.argmax(logits(params, test.x), 1) != test.y
        found.append((float(jnp.mean(losses(params, test))), float(jnp.mean(wrong))))
    loss, error = np.mean(found, axis=0)
    return {"loss": float(loss), "error": float(error)}


def by_attribution(objective: hg.Objective, rows: Draw, keys: list[PRNGKeyArray]) -> np.ndarray:
    """By how much the validation loss would change without each row: low where it would fall."""
    queries = lambda params, *_: jnp.mean(losses(params, rows.valid))[None]
    ones = jnp.ones(len(rows.train))
    found = [hg.attribute(objective, ones, queries, key=key, adjoint=ADJOINT) for key in keys]
    return np.mean([one.removed[0] for one in found], axis=0)


def by_loss(objective: hg.Objective, rows: Draw, keys: list[PRNGKeyArray]) -> np.ndarray:
    """Minus each row's own loss after training on it."""
    ones = jnp.ones(len(rows.train))
    runs = [objective.run(ones, key) for key in keys]
    return -np.mean([np.asarray(losses(run.params, rows.train)) for run in runs], axis=0)


def by_margin(
    settings: Sizes, objective: hg.Objective, rows: Draw, keys: list[PRNGKeyArray]
) -> np.ndarray:
    """Each row's own margin, averaged over the training."""
    ones, steps = jnp.ones(len(rows.train)), settings.steps
    looks = [steps * (i + 1) // LOOKS for i in range(LOOKS)]
    runs = [objective.run(ones, key, steps=look) for key in keys for look in looks]
    return np.mean([np.asarray(margins(run.params, rows.train)) for run in runs], axis=0)


def by_clean(rows: Draw, seed: int) -> np.ndarray:
    """The weights that `hindgrad clean` gives with its defaults, from the training rows alone."""
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "rows.npz", Path(folder) / "out"
        np.savez(file, x=rows.pixels, y=np.asarray(rows.train.y))
        clean.run(Clean(data=str(file), label="y", out=out, seed=seed), Console(quiet=True))
        return np.array(json.loads((out / "results.json").read_text())["weight"])

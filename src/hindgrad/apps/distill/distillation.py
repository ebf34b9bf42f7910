"""Few examples that a network learns from as if from many, by hypergradient."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

import hindgrad as hg
from hindgrad import programs
from hindgrad.apps.model import Params, Rows, fresh, predict
from hindgrad.apps.tuning import tune
from hindgrad.batches import Batch

DRAWS = 2
"""Initialisations in each outer step, whose hypergradients are averaged."""

JUDGED = 5
"""Fresh initialisations by which a choice is made."""

ROWS = 512
"""Real rows, drawn anew, by which an outer step judges; all if there are fewer."""

RATE_X, RATE_RATE = 0.05, 0.02
"""Outer rates: of the examples, in standard deviations, and of the logarithms of the rates."""

RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
"""What the search for a constant rate is among."""

BATCH = 128
"""Examples in a training step, when there are more."""

Hyper = dict[str, Array]
"""`x` [examples, features], standardised, and `log_rate` [steps, layers]."""


@dataclass(frozen=True)
class Learner:
    """The network and its training on the learned examples."""

    sizes: tuple[int, ...]
    steps: int
    decay: float = 0.9


class Parts(NamedTuple):
    """Real rows: to learn from, to choose by, and to test on."""

    train: Rows
    valid: Rows
    test: Rows


class Way(NamedTuple):
    """A training at a constant rate."""

    rate: float
    steps: int


class Distillation(eqx.Module):
    """Examples and rates as hyperparameters: called with them and a key, the mean loss on real
    rows of networks that trained on the examples alone.

    Initialisations and the real rows are drawn by the key. (Maclaurin et al. 2015, section 3.3,
    with one initialisation; Wang et al. 2018, *Dataset distillation*, algorithm 1, with fresh ones
    and learned rates.)

    The past states of so short a run on so few examples take little room, so `Checkpointed`, which
    keeps them all, is the fastest way back.
    """

    real: Rows
    y: Int[Array, " examples"]
    varies: Bool[Array, " features"]
    """Features that are the same in all rows are not learned."""
    noise: float
    learner: Learner = eqx.field(static=True)

    @property
    def objective(self) -> hg.Objective:
        """The loss on real rows as a function of (hyper, key)."""
        training = hg.Training(
            self.loss,
            optimizer=hg.Momentum(self.rate, self.learner.decay),
            batches=hg.full_batch(self.y),
            steps=self.learner.steps,
        )
        init = lambda _, key: fresh(self.learner.sizes, key)
        return hg.Objective(training, init=init, score=self.score)

    def __call__(self, hyper: Hyper, key: PRNGKeyArray) -> Float[Array, ""]:
        one = lambda key: self.objective(hyper, key, adjoint=hg.Checkpointed())
        return jax.vmap(one)(jax.random.split(key, DRAWS)).mean()

    def loss(self, params: Params, hyper: Hyper, batch: Batch) -> Float[Array, ""]:
        """The mean cross-entropy on all examples."""
        return cross_entropy(params, Rows(hyper["x"] * self.varies[None], batch.data))

    def rate(self, hyper: Hyper, t: Int[Array, ""]) -> list[Float[Array, ""]]:
        """The rate of each layer at a step."""
        return list(jnp.exp(hyper["log_rate"][t]))

    def score(self, params: Params, hyper: Hyper, key: PRNGKeyArray) -> Float[Array, ""]:
        """The mean cross-entropy on real rows, drawn by the key."""
        del hyper
        count = len(self.real.y)
        if count <= ROWS:
            return cross_entropy(params, self._blurred(self.real, key))
        drawn = jax.random.randint(jax.random.fold_in(key, 1), (ROWS,), 0, count)
        return cross_entropy(params, self._blurred(Rows(*(a[drawn] for a in self.real)), key))

    def _blurred(self, rows: Rows, key: PRNGKeyArray) -> Rows:
        noise = jax.random.normal(jax.random.fold_in(key, 2), rows.x.shape)
        return Rows(rows.x + self.noise * noise, rows.y)


def cross_entropy(params: Params, rows: Rows) -> Float[Array, ""]:
    """The mean over some rows."""
    return optax.softmax_cross_entropy_with_integer_labels(predict(params, rows.x), rows.y).mean()


def accuracy(params: Params, rows: Rows) -> Float[Array, ""]:
    """The share of rows that are classified right."""
    return jnp.mean(predict(params, rows.x).argmax(axis=1) == rows.y)


@programs.compiled
def accuracies(
    problem: Distillation, hyper: Hyper, rows: Rows, keys: Key[Array, " keys"]
) -> Float[Array, " keys"]:
    """Of networks trained on learned examples, one for each key."""
    run = lambda key: problem.objective.run(hyper, key, adjoint=hg.Stored()).params
    return jax.lax.map(lambda key: accuracy(run(key), rows), keys)


class Learned(NamedTuple):
    """What learning gives."""

    hyper: Hyper
    losses: list[float]
    """On real rows to learn from, at each outer step."""
    message: str


def learn(
    problem: Distillation,
    start: Hyper,
    valid: Rows,
    *,
    steps: int,
    key: PRNGKeyArray,
    checkpoint: Path | None = None,
    progress: bool | None = False,
) -> Learned:
    """One round of learning, from `start`. The answer is the best on the validation rows among the
    start, the best iterate, and the average of the last quarter of them."""
    decaying = lambda rate: optax.cosine_decay_schedule(rate, steps, alpha=0.02)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.multi_transform(
            {"x": optax.adam(decaying(RATE_X)), "rate": optax.adam(decaying(RATE_RATE))},
            {"x": "x", "log_rate": "rate"},
        ),
    )
    judges = jax.random.split(jax.random.fold_in(key, steps), JUDGED)
    result = tune(
        problem,
        start,
        optimizer,
        steps=steps,
        key=key,
        average=0.25,
        choose=lambda hyper: -accuracies(problem, hyper, valid, judges).mean(),
        checkpoint=checkpoint,
        progress=progress,
    )
    return Learned(result.hyper, [record.value for record in result.history], result.message)


@programs.compiled
def _trained(
    learner: Learner,
    rows: Rows,
    rate: Float[Array, ""],
    key: PRNGKeyArray,
    lengths: tuple[int, ...],
) -> list[Params]:
    """The parameters after so many steps on some rows, at a constant rate."""
    batches = hg.minibatches(rows, size=min(BATCH, len(rows.y)), key=jax.random.fold_in(key, 1))
    training = hg.Training(
        lambda params, _, batch: cross_entropy(params, batch.data),
        optimizer=hg.Momentum(lambda rate, _: rate, learner.decay),
        batches=batches,
        steps=lengths[-1],
    )
    params, memory, begun, found = fresh(learner.sizes, key), None, 0, []
    for length in lengths:
        run = training(params, rate, state=memory, start=begun, steps=length - begun)
        params, memory, begun = run.params, run.state, length
        found.append(params)
    return found


@programs.compiled
def _judged(
    learner: Learner,
    rows: Rows,
    judges: Sequence[Rows],
    rates: Float[Array, " rates"],
    key: PRNGKeyArray,
    lengths: tuple[int, ...],
) -> Float[Array, "rates lengths judges"]:
    """Accuracies on each of `judges`, at each rate and length."""

    def one(rate):
        found = _trained(learner, rows, rate, key, lengths)
        return jnp.stack([jnp.stack([accuracy(p, rows) for rows in judges]) for p in found])

    return jax.lax.map(one, rates)


def constant_rate(
    learner: Learner,
    sets: Sequence[Rows],
    parts: Parts,
    keys: Key[Array, " sets"],
    *,
    rates: Sequence[float],
    lengths: tuple[int, ...],
) -> tuple[Way, Float[np.ndarray, " sets"], list[float]]:
    """The training at a constant rate whose mean validation accuracy over the sets, each with a
    key of its own, is highest; its test accuracies; and the best rate for each length."""
    found = np.stack(
        [
            np.asarray(
                _judged(learner, rows, parts[1:], jnp.asarray(rates, jnp.float32), key, lengths)
            )
            for rows, key in zip(sets, keys, strict=True)
        ]
    )
    valid = found[..., 0].mean(axis=0)
    i, j = np.unravel_index(valid.argmax(), valid.shape)
    best = [rates[k] for k in valid.argmax(axis=0)]
    return Way(rates[i], lengths[j]), found[:, i, j, 1], best

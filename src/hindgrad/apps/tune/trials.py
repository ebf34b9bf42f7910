"""Trainings side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from hindgrad import numerics, programs
from hindgrad.apps.model import Hyper, Metrics, Params, Problem
from hindgrad.cores import cores
from hindgrad.objective import init_key


@dataclass(frozen=True)
class Trial:
    """One training, and how the network did."""

    metrics: Metrics
    params: Params

    @property
    def valid_loss(self) -> float:
        """What a search goes by; a training that blew up counts as infinitely bad."""
        loss = float(self.metrics.valid_loss)
        return loss if np.isfinite(loss) else float("inf")


def trials(problem: Problem, hypers: Sequence[Hyper], keys: Sequence[PRNGKeyArray]) -> list[Trial]:
    """Trains once for each pair of hyperparameters and key.

    On an accelerator the trainings are one `vmap`. On a CPU that gains nothing (batched products
    of small matrices are no faster than one after the other), so there they run in a thread for
    each core.
    """
    if jax.default_backend() == "cpu":
        threads = numerics.threads(cores())
        try:
            return list(threads.map(lambda hyper, key: _one(problem, hyper, key), hypers, keys))
        finally:  # an interruption does not wait until all have trained
            threads.shutdown(wait=False, cancel_futures=True)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *hypers)
    results = _vmapped(problem, stacked, jnp.stack(list(keys)))
    take = lambda i: jax.tree.map(lambda leaf: leaf[i], results)
    return [Trial(*take(i)) for i in range(len(keys))]


def mean_valid_loss(problem: Problem, hyper: Hyper, keys: Sequence[PRNGKeyArray]) -> float:
    """The validation loss over several draws."""
    results = trials(problem, [hyper] * len(keys), keys)
    return float(np.mean([trial.valid_loss for trial in results]))


def _one(problem: Problem, hyper: Hyper, key: PRNGKeyArray) -> Trial:
    return Trial(*jax.block_until_ready(_train(problem, hyper, key)))


@programs.compiled
def _train(problem: Problem, hyper: Hyper, key: PRNGKeyArray) -> tuple[Metrics, Params]:
    params = problem.objective.run(hyper, key).params
    return problem.metrics(params, key), params


@programs.compiled
def _vmapped(problem: Problem, hypers: Hyper, keys: PRNGKeyArray):
    train = eqx.filter_vmap(_train, in_axes=(None, 0, 0))
    return train(problem, hypers, keys)


@programs.compiled
def learning_curve(problem: Problem, hyper: Hyper, key: PRNGKeyArray, points: int = 30):
    """The loss on the training and on the validation rows while training.

    Returns the steps at which they were taken, and both.
    """
    objective = problem.objective
    training = problem.training(key)
    train, valid = problem.split(key)
    first, *rest = _pieces(problem.network.steps, points)
    params = objective.init(hyper, init_key(key))
    losses = lambda params: jnp.stack([problem.fit(params, train), problem.fit(params, valid)])
    start = losses(params)
    run = training(params, hyper, steps=first)

    def piece(carry, step):
        run = training(carry[0], hyper, state=carry[1], start=step, steps=first)
        return (run.params, run.state), losses(run.params)

    steps = first * (1 + jnp.arange(len(rest)))
    after = losses(run.params)
    _, others = jax.lax.scan(piece, (run.params, run.state), steps)
    values = jnp.concatenate([start[None], after[None], others])
    return first * jnp.arange(len(rest) + 2), values[:, 0], values[:, 1]


def _pieces(steps: int, points: int) -> list[int]:
    """Equal pieces of a training, about `points` of them; a remainder is left out."""
    size = max(1, steps // points)
    return [size] * (steps // size)


def dump_hyper(hyper: Hyper) -> dict[str, list]:
    """Hyperparameters for JSON, to the bit."""
    return {name: np.asarray(value, np.float64).tolist() for name, value in hyper.items()}


def load_hyper(values: dict[str, list]) -> Hyper:
    """The inverse of `dump_hyper`."""
    return {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}

"""The training whose schedules are learned, and how well trainings do."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

import hindgrad as hg
from experiments import models
from hindgrad import programs
from hindgrad.schedules import KnotSchedule


class Form(eqx.Module):
    """How the hyperparameters make rates and decays: a schedule for each group."""

    rate: KnotSchedule
    decay: KnotSchedule
    layers: int = eqx.field(static=True)

    def start(self, log_rate: float, decay: float, log_scale: float) -> dict[str, PyTree]:
        """Schedules that stay at these values, and the log initial scales."""
        groups = lambda value: [{"w": value, "b": value} for _ in range(self.layers)]
        return {
            "rate": self.rate.init(groups(float(np.exp(log_rate)))),
            "decay": self.decay.init(groups(decay)),
            "log_scale": jax.tree.map(lambda v: jnp.asarray(v, float), groups(log_scale)),
        }

    def rates(self, hyper: PyTree, t: Int[Array, ""]) -> PyTree:
        return self.rate(hyper["rate"], t)

    def decays(self, hyper: PyTree, t: Int[Array, ""]) -> PyTree:
        return self.decay(hyper["decay"], t)


class Drawn(eqx.Module):
    """A training whose batches depend on a key."""

    form: Form
    images: models.Examples
    batch: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def __call__(self, key: PRNGKeyArray) -> hg.Training:
        return hg.Training(
            _batch_loss,
            optimizer=hg.Momentum(self.form.rates, self.form.decays, convention=hg.Damped()),
            batches=models.Sampled(self.images, key, self.batch),
            steps=self.steps,
        )


def _batch_loss(params, hyper, batch):
    del hyper
    return models.nll(params, batch.data)


class Loss(eqx.Module):
    """The mean loss on these images, at the end of the training."""

    images: models.Examples

    def __call__(self, params: PyTree, hyper: PyTree, key: PRNGKeyArray) -> Float[Array, ""]:
        del hyper, key
        return models.nll(params, self.images)


class Problem(NamedTuple):
    """Examples, and how a network is trained on them."""

    split: models.Split
    init: Callable[..., models.Layers]
    """One function for all problems, which then share their compiled programs."""
    batch: int
    steps: int

    def objective(self, form: Form, images: models.Examples) -> hg.Objective:
        """The loss on these images of a training on the training images."""
        drawn = Drawn(form, self.split.train, self.batch, self.steps)
        return hg.Objective(drawn, init=self.init, score=Loss(images))

    def judge(self, form: Form, hyper: PyTree, keys: Sequence[PRNGKeyArray]) -> "Judged":
        """Trains once for each key."""
        objective = self.objective(form, self.split.valid)
        parts = (self.split.train, self.split.valid, self.split.test)
        found = [_judge(objective, parts, hyper, key) for key in keys]
        return Judged(*(np.array(values, np.float64) for values in zip(*found, strict=True)))


def initialiser(sizes: Sequence[int]) -> Callable[..., models.Layers]:
    """Gaussian weights and biases, with the scales among the hyperparameters."""

    def init(hyper, key):
        scales = [group[name] for group in hyper["log_scale"] for name in ("w", "b")]
        return models.gaussian(key, sizes, scales)

    return init


class Judged(NamedTuple):
    """How trainings with some hyperparameters do, an element for each."""

    train: Float[np.ndarray, " runs"]
    valid: Float[np.ndarray, " runs"]
    test: Float[np.ndarray, " runs"]
    train_error: Float[np.ndarray, " runs"]
    valid_error: Float[np.ndarray, " runs"]
    test_error: Float[np.ndarray, " runs"]
    curve: Float[np.ndarray, "runs steps"]
    """The loss on each step's batch."""

    def means(self) -> dict[str, Any]:
        """The means over the trainings."""
        return {name: np.mean(v, axis=0).tolist() for name, v in self._asdict().items()}

    def all(self) -> dict[str, list[float]]:
        """The single trainings' values."""
        return {name: v.tolist() for name, v in self._asdict().items() if name != "curve"}


@programs.compiled
def _judge(objective, parts, hyper, key):
    run = objective.run(hyper, key, adjoint=hg.Stored())
    losses = [models.nll(run.params, part) for part in parts]
    return *losses, *(models.error(run.params, part) for part in parts), run.losses


def natural(form: Form, hyper: PyTree) -> dict[str, list]:
    """Rates and decays [steps, groups], initial scales [groups]; w and b of each layer in turn."""
    flat = lambda groups: jnp.stack([g[name] for g in groups for name in ("w", "b")], axis=-1)
    found = {
        "rate": flat(form.rate.values(hyper["rate"])),
        "decay": flat(form.decay.values(hyper["decay"])),
        "scale": jnp.exp(flat(hyper["log_scale"])),
    }
    return {name: np.asarray(values, np.float64).tolist() for name, values in found.items()}

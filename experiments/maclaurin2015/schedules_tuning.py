"""How schedules are tuned: by the hypergradient, with one seed or fresh ones; and where Bayesian
optimisation of three scalars, which they are compared with, looks."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

import hindgrad as hg
from experiments import runner
from hindgrad.tuning.tune import TuneResult

ADJOINT = hg.Reversible(min_decay=0.01)
NAN_ON_FAILURE = hg.Reversible(min_decay=0.01, failure=hg.failures.Report())
"""What `hg.tune` makes of the former, so as to turn back from a decay that is too small."""

RANGES = {"log_rate": (-4.0, 3.0), "decay": (0.02, 0.98), "log_scale": (-6.0, 0.0)}
"""Where it looks, uniformly at first."""


class Memory(NamedTuple):
    """The number of the step, from 1, and the mean square of the gradient."""

    step: Float[Array, ""]
    square: PyTree


def authors_adam(
    rate: float, b1: float = 0.9, b2: float = 0.99, eps: float = 1e-4
) -> optax.GradientTransformation:
    """Adam as it is in the authors' code (HIPS/hypergrad, `optimizers.py`).

    From the second step on its first moment is the gradient itself (to within 1e-4), and yet it is
    divided by 1 − b1^i for a bias that it has not: early steps are up to 5.3 times as long.
    """

    def init(params):
        return Memory(jnp.float32(1), jax.tree.map(jnp.zeros_like, params))

    def update(updates, state, params=None):
        del params
        step = state.step
        square = jax.tree.map(lambda s, g: b2 * s + (1 - b2) * g**2, state.square, updates)
        longer = jnp.where(step == 1, 1.0, 1 / (1 - b1**step))
        move = lambda g, s: -rate * longer * g / (jnp.sqrt(s / (1 - b2**step)) + eps)
        return jax.tree.map(move, updates, square), Memory(step + 1, square)

    return optax.GradientTransformation(init, update)


def clipped_adam(rate: float, steps: int) -> optax.GradientTransformation:
    """Adam with a clipped hypergradient, and a rate that falls to a tenth over the steps."""
    falling = optax.linear_schedule(rate, rate / 10, steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(falling, b1=0.8))


class OneSeed(eqx.Module):
    """An objective with one key for ever."""

    objective: hg.Objective
    key: PRNGKeyArray

    def __call__(self, hyper: PyTree) -> Float[Array, ""]:
        return self.objective(hyper, self.key, adjoint=NAN_ON_FAILURE)


def tune_fixed(
    objective: hg.Objective, start: PyTree, key: PRNGKeyArray, rate: float, steps: int
) -> TuneResult:
    """Each outer step has the same seed."""
    adam = clipped_adam(rate, steps)
    return runner.tune(OneSeed(objective, key), start, adam, steps=steps)


def tune_fresh(
    objective: hg.Objective, start: PyTree, key: PRNGKeyArray, rate: float, steps: int
) -> TuneResult:
    """Each outer step has a seed of its own."""
    adam = clipped_adam(rate, steps)
    return runner.tune(objective, start, adam, steps=steps, key=key, adjoint=ADJOINT)

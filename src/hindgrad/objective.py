"""A start, a run and a score put together: what tuning lowers."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from hindgrad import trees
from hindgrad.adjoints import Adjoint
from hindgrad.training import Training, as_adjoint


class Objective(eqx.Module):
    """The score of a training run, as an ordinary function of its hyperparameters.

        objective = hg.Objective(training, init=params, score=score)
        value, hypergradient = jax.value_and_grad(objective)(hyper)

    **Arguments:**

    - `training`: a `Training`, or a function `key -> Training` that draws one (a fresh split of
      the data and a fresh batch order, say).
    - `init`: the initial parameters, or a function `(hyper, key) -> params`.
    - `score`: a function `(params, hyper, key) -> scalar`, of the trained parameters; lower is
      better. It gets the same key as `training`, so that both can draw the same split; `init`
      gets one of its own.
    """

    training: Training | Callable[[PRNGKeyArray], Training]
    init: Any = eqx.field(kw_only=True)
    score: Callable[..., Float[Array, ""]] = eqx.field(kw_only=True)

    def __call__(
        self,
        hyper: PyTree,
        key: PRNGKeyArray | int | None = None,
        *,
        adjoint: Adjoint | None = None,
        steps: int | None = None,
    ) -> Float[Array, ""]:
        """The score of the run with these hyperparameters.

        **Arguments:**

        - `hyper`: the hyperparameters, any pytree.
        - `key`: the randomness of the run, a key or a seed; seed 0 unless given.
        - `adjoint`: how the derivative is computed; `Checkpointed()` unless given.
        - `steps`: how many steps to train, if not the training's own number.
        """
        if key is None or isinstance(key, int):
            key = jax.random.key(key or 0)
        return _score(self, trees.as_hyper(hyper), key, adjoint, steps)

    def run(self, hyper: PyTree, key: PRNGKeyArray, **options: Any):
        """The run whose score this is; the options are those of calling a `Training`."""
        training = self.training if isinstance(self.training, Training) else self.training(key)
        params = self.init
        if _is_function(params):
            params = params(hyper, jax.random.fold_in(key, 0))
        return training(params, hyper, **options)


@eqx.filter_jit
def _score(objective, hyper, key, adjoint, steps):
    def score(hyper, adjoint):
        run = objective.run(hyper, key, adjoint=adjoint, steps=steps)
        value = objective.score(run.params, hyper, key)
        if jnp.shape(value) != ():
            raise ValueError(f"The score has shape {jnp.shape(value)}; a scalar is needed.")
        return value

    return as_adjoint(adjoint).evaluate(score, hyper)


def _is_function(init):
    """Whether `init` makes parameters (an Equinox module is callable too, but holds arrays)."""
    return callable(init) and not any(eqx.is_array(leaf) for leaf in jax.tree.leaves(init))

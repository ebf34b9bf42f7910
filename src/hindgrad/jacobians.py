"""Many scores of one run, and the derivative of each."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from hindgrad import placement, programs, trees
from hindgrad.adjoints import Adjoint
from hindgrad.adjoints.antithetic import Estimator
from hindgrad.arguments import as_key
from hindgrad.objective import Objective
from hindgrad.training import as_adjoint


class Jacobian(NamedTuple):
    """What `jacobian` finds."""

    values: Float[Array, " *scores"]
    """The scores."""
    jacobian: PyTree
    """Their derivatives, like the inexact arrays in the hyperparameters: each [*scores, …]."""


def jacobian(
    objective: Any,
    hyper: PyTree,
    key: PRNGKeyArray | int | None = None,
    *,
    adjoint: Adjoint | None = None,
    axis: str | None = None,
) -> Jacobian:
    """Many scores of one run, and their derivatives by every hyperparameter.

        scores = lambda params, hyper, key: jax.vmap(lambda x, y: loss(params, x, y))(queries)
        objective = hg.Objective(training, init=params, score=scores)
        found = hg.jacobian(objective, hyper, adjoint=hg.Reversible())

    One run forward and one back: on the way back, each step is recalled and linearised once, and
    all scores are pulled back through it. A further score costs about two gradients for each step,
    and in memory one state and twice the size of the hyperparameters.

    **Arguments:**

    - `objective`: an `Objective` whose score is an array of any shape in place of a scalar.
    - `hyper`: the hyperparameters; the derivatives are by their floats.
    - `key`: the randomness of the run, a key or a seed; seed 0 unless given.
    - `adjoint`: how the derivatives are computed; `Checkpointed()` unless given. Any of a run.
    - `axis`: an automatic axis of the mesh on which the run's arrays are, over which the scores are
      split: each of its devices pulls back its share of them through the one run. Their number is
      then best a multiple of the axis's devices.

    **Returns:**

    `Jacobian(values, jacobian)`.

    Raises `ValueError` if the score is no array of floats or empty, the adjoint compares scores
    of whole runs (`Evolution`, `PersistentEvolution`), or there is no such axis.
    """
    if not isinstance(objective, Objective):
        raise TypeError(
            f"jacobian(objective={objective!r}) is not an hg.Objective. For a function of your "
            "own that runs a Training, take jax.jacrev of it."
        )
    adjoint = as_adjoint(adjoint)
    if isinstance(adjoint, Estimator):
        raise ValueError(
            f"{type(adjoint).__name__} estimates the derivative of one score from runs with other "
            "hyperparameters. For many scores, use Reversible(), Checkpointed() or Stored()."
        )
    key, hyper = as_key("jacobian", 0 if key is None else key), trees.as_hyper(hyper)
    lanes = None
    if axis is not None:
        mesh = placement.mesh_within((objective, hyper))
        lanes = placement.lanes(axis, mesh, f"axis={axis!r}: scores")
    return _jacobian(objective, hyper, key, adjoint, lanes)


@programs.compiled
def _jacobian(objective, hyper, key, adjoint, lanes):
    floats, rest = eqx.partition(hyper, eqx.is_inexact_array)

    def trained(floats):
        run = objective.run(eqx.combine(floats, rest), key, adjoint=adjoint)
        return eqx.partition(objective.seen(run), eqx.is_inexact_array)

    seen, pull_run, others = eqx.filter_vjp(trained, floats, has_aux=True)

    def scored(seen, floats):
        hyper = eqx.combine(floats, rest)
        return _as_scores(objective.returned(eqx.combine(seen, others), hyper, key))

    values, pull_score = jax.vjp(scored, seen, floats)
    each = jnp.eye(values.size, dtype=values.dtype).reshape(values.size, *values.shape)
    of_seen, of_hyper = jax.lax.map(pull_score, each)
    split = lambda x: x if lanes is None else placement.split_first(x, lanes)
    axis = None if lanes is None else lanes.spec[0]
    (through_run,) = jax.vmap(pull_run, spmd_axis_name=axis)(jax.tree.map(split, of_seen))
    by_score = lambda x: split(x).reshape(*values.shape, *x.shape[1:])
    return Jacobian(values, jax.tree.map(by_score, trees.add(through_run, of_hyper)))


def _as_scores(value: Any) -> Array:
    """What a score returned, if it is an array of floats; raises `ValueError` otherwise."""
    if value is None or isinstance(value, (tuple, list, dict)):
        raise ValueError(
            f"The score (or queries) returned a {type(value).__name__}; one array is needed: "
            "jnp.stack(…), or jnp.concatenate(…)."
        )
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"The score has dtype {value.dtype}; floats are needed: .astype(float).")
    if not value.size:
        raise ValueError(f"The score has shape {value.shape}: there is nothing to differentiate.")
    return value

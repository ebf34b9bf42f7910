"""Which adjoint an attribution takes, unless it is given one."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from hindgrad import programs, trees
from hindgrad.adjoints import Adjoint, Checkpointed, Reversible
from hindgrad.errors import RunError, SourceError
from hindgrad.exact.decay import SMALLEST
from hindgrad.jacobians import Jacobian, jacobian
from hindgrad.objective import Objective
from hindgrad.optimizers.moves import MovingOptimizer, is_decay

GRID = 128
"""Decays are rounded down to multiples of 1/128: others nearby do not compile again."""


def differentiated(
    objective: Objective,
    hyper: PyTree,
    key: PRNGKeyArray,
    adjoint: Adjoint | None,
    axis: str | None,
) -> tuple[Jacobian, Adjoint]:
    """All scores and their derivatives, and by which adjoint: the one that is given; else
    `Reversible` where the run can be undone, else `Checkpointed`. `axis`: see `jacobian`."""
    found = lambda adjoint: (jacobian(objective, hyper, key, adjoint=adjoint, axis=axis), adjoint)
    if adjoint is not None:
        return found(adjoint)
    reversible = reversible_for(objective, hyper, key)
    if reversible is not None:
        try:
            return found(reversible)
        except SourceError:
            raise
        except (RunError, ValueError) as error:
            if not str(error).startswith("Reversible"):
                raise
    return found(Checkpointed())


def reversible_for(objective: Objective, hyper: PyTree, key: PRNGKeyArray) -> Reversible | None:
    """`Reversible`, with the smallest decays of this very run; None where its optimizer cannot be
    undone, or a decay keeps too little for that."""
    training, params, _ = objective.start(hyper, key)
    optimizer = training.optimizer
    if not isinstance(optimizer, MovingOptimizer) or optimizer.irreversible is not None:
        return None
    trained, _ = trees.split_trained(params)
    ts = jnp.arange(training.steps, dtype=jnp.int32)
    least = _least_decays(optimizer, trained, hyper, ts)
    least = {name: float(value) for name, value in least.items()}
    if not all(SMALLEST <= value <= 1 for value in least.values()):
        return None
    return Reversible({name: math.floor(value * GRID) / GRID for name, value in least.items()})


@programs.compiled
def _least_decays(optimizer, params, hyper, ts):
    """The smallest of each decay over the run."""

    def at(t):
        found = optimizer.decays(params, optimizer.coefficients(hyper, t))
        leaves = lambda tree: jax.tree.leaves(tree, is_leaf=is_decay)
        least = lambda tree: [jnp.min(d.kept, initial=np.inf) for d in leaves(tree)]
        return {name: jnp.min(jnp.stack(least(tree))) for name, tree in found.items()}

    return {name: jnp.min(values) for name, values in jax.lax.map(at, ts).items()}

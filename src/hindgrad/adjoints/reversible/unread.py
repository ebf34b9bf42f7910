"""What of a model's state the way back can do without."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from hindgrad import jaxprs, trees
from hindgrad.gradient_training import GradientTraining


def read(dynamics: GradientTraining, params: PyTree, model: PyTree) -> tuple[bool, ...]:
    """For each leaf of the model's state, whether the way back needs its values.

    It does not where a step uses them for the leaf's next value alone, and not in its derivative:
    running statistics, averages of weights, counts that nothing reads.
    """
    count = len(jax.tree.leaves(model))
    if not count:
        return ()
    wanted = jax.tree.map(eqx.is_inexact_array, dynamics)

    def step(dynamics, params, model):
        gradient = dynamics.gradient(wanted, (params, model), dynamics.start)
        floats = eqx.filter(gradient.model, eqx.is_inexact_array)
        back = gradient.transpose(*jax.tree.map(jnp.ones_like, (params, gradient.loss, floats)))
        return gradient.model, (gradient.loss, gradient.values, back)

    program, *_ = eqx.filter_make_jaxpr(step)(dynamics, params, model)
    jaxpr = jaxprs.inlined(program).jaxpr

    def is_read(own, variable):
        depends = trees.depending(jaxpr, [variable])
        return any(depends[:own] + depends[own + 1 :])

    return tuple(is_read(*pair) for pair in enumerate(jaxpr.invars[-count:]))

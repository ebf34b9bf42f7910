"""`Evolution`: the gradient of a smoothed objective, from the scores of perturbed runs."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from hindgrad import trees
from hindgrad.adjoints import pairs as antithetic
from hindgrad.adjoints.base import Adjoint, Traits
from hindgrad.adjoints.stored import Stored


class Evolution(Adjoint):
    """Antithetic evolution strategies: an unbiased estimate of the gradient of the smoothed
    objective E f(hyper + spread · ε), where ε is standard normal, from pairs of runs:
    mean of ε · (f(hyper + spread · ε) − f(hyper − spread · ε)) / (2 spread)
    (Nesterov & Spokoiny 2017, eq. 30; Salimans et al. 2017).

        hg.tune(objective, hyper, optimizer, steps=50, adjoint=hg.Evolution(spread=0.1))

    For training so chaotic that its exact hypergradient says nothing: nothing is differentiated,
    so the score may be anything (an error rate) and the optimizer too. The value is the score at
    `hyper` itself. It costs 2 · `pairs` trainings beside that one, run side by side.

    What is differentiated with respect to is perturbed, everything else held fixed; all members
    share the objective's key. A member whose score is not finite counts as the worst of the
    others; if there are none, the derivative is NaN. To limit what a diverged but finite run can
    do, cut the score off (`jnp.minimum(loss, 5.0)`).

    **Arguments:**

    - `pairs`: how many pairs of members.
    - `spread`: the standard deviation of the perturbations; a number, or a pytree of numbers and
      arrays that is a prefix of `hyper`.
    - `key`: a key or a seed. Equal keys give equal perturbations; `tune` draws fresh ones at each
      outer step by itself.
    - `block`: how many members to run side by side; all unless given.
    - `count`: how many estimates there were before (a float), for fresh perturbations; what
      `tune` hands on.

    Raises `ValueError` if a run without an `Objective` is given it, or a derivative is asked for
    with respect to anything but `hyper`.
    """

    traits = Traits(
        states="none: scores of perturbed runs are compared",
        memory="two states for each pair (for `block` members at a time)",
        replays="none; 2 · `pairs` further runs",
        exact="no: an estimate, unbiased for the smoothed objective",
        optimizers="any, differentiable or not",
    )

    pairs: int = 16
    spread: PyTree = eqx.field(kw_only=True, converter=antithetic.as_spread)
    key: PRNGKeyArray = eqx.field(default=0, kw_only=True, converter=antithetic.as_key)
    block: int | None = eqx.field(default=None, kw_only=True)
    count: Float[Array, ""] | None = eqx.field(default=None, kw_only=True)

    def __check_init__(self):
        antithetic.check_counts(self, "pairs", "block")

    def run(self, dynamics, state):
        del dynamics, state
        raise antithetic.alone("Evolution")

    def evaluate(self, run, hyper):
        closed = trees.close(lambda hyper: run(hyper, Stored()), hyper)
        settings = eqx.tree_at(lambda a: a.count, self, None, is_leaf=lambda x: x is None)
        return _evaluated((closed, hyper, self.count), settings)

    def first_guess(self, run, hyper):
        del run, hyper
        return jnp.float32(0)

    def guessing(self, guess):
        if guess is None:
            return self
        return eqx.tree_at(lambda a: a.count, self, guess, is_leaf=lambda x: x is None)


@eqx.filter_custom_vjp
def _evaluated(inputs: PyTree, adjoint: Evolution) -> Float[Array, ""]:
    del adjoint
    closed, hyper, _ = inputs
    return closed(hyper)


@_evaluated.def_fwd
def _forward(perturbed, inputs, adjoint):
    closed, hyper, count = antithetic.once(inputs, "Evolution")
    antithetic.refuse_others(perturbed[0], "Evolution")
    moving, fixed = eqx.partition(hyper, perturbed[1])
    spread = antithetic.spread_over(adjoint.spread, moving, hyper)
    number = jnp.int32(0) if count is None else count.astype(jnp.int32)
    along = antithetic.directions(jax.random.fold_in(adjoint.key, number), adjoint.pairs, moving)
    score = antithetic.each(lambda moving: closed(eqx.combine(moving, fixed)), adjoint.block)
    scores = antithetic.finite(score(antithetic.members(moving, spread, along)))
    gradient = antithetic.slope(spread, along, scores)
    return closed(hyper), (gradient, None if count is None else count + 1)


@_evaluated.def_bwd
def _backward(residuals, cotangent, perturbed, inputs, adjoint):
    del perturbed, adjoint
    return antithetic.pulled(residuals, cotangent, inputs)

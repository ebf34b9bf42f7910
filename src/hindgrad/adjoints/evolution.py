"""`Evolution`: the gradient of a smoothed objective, from the scores of perturbed runs."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from hindgrad.adjoints import antithetic
from hindgrad.adjoints.base import Hypergradient, Traits
from hindgrad.adjoints.stored import Stored
from hindgrad.arguments import as_key, whole, whole_or_none


class Evolution(antithetic.Estimator):
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
    - `axis`: an automatic axis of the mesh that is set, over which members are split.

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

    takes_apart = False

    pairs: int = eqx.field(default=16, converter=whole("Evolution", "pairs"))
    spread: PyTree = eqx.field(kw_only=True, converter=antithetic.as_spread)
    key: PRNGKeyArray = eqx.field(default=0, kw_only=True, converter=partial(as_key, "Evolution"))
    block: int | None = eqx.field(
        default=None, kw_only=True, converter=whole_or_none("Evolution", "block")
    )
    axis: str | None = eqx.field(default=None, kw_only=True, static=True)

    def __check_init__(self):
        antithetic.check_either("Evolution", self.block, self.axis)

    def hypergradient(self, run, hyper, carry=None):
        """Carries how many estimates there were before, for fresh perturbations."""
        hyper = antithetic.once(hyper, "Evolution")
        number = self.first_carry(run, hyper) if carry is None else carry
        moving, fixed = eqx.partition(hyper, eqx.is_inexact_array)
        score = lambda moving: run(eqx.combine(moving, fixed), Stored())
        gradient = self._slope(score, moving, number)
        return Hypergradient(score(moving), gradient, number + 1)

    def first_carry(self, run, hyper):
        del run, hyper
        return jnp.int32(0)

    def estimate(self, run, hyper):
        return self._slope(lambda hyper: run(hyper, self), hyper, jnp.int32(0))

    def _slope(self, score, moving, number):
        key = jax.random.fold_in(self.key, number)
        spread = antithetic.spread_over(self.spread, moving)
        along = antithetic.directions(key, self.pairs, moving)
        members = antithetic.members(moving, spread, along)
        scores = antithetic.finite(antithetic.each(score, self.block, self.axis)(members))
        return antithetic.slope(spread, along, scores)

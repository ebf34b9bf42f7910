"""A whole tuning of a network's training by hypergradient."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import PRNGKeyArray

from hindgrad.apps.model import Hyper, Problem
from hindgrad.apps.tune.parts import Parts, apart, limit, of_parts, together
from hindgrad.apps.tune.trials import mean_valid_loss
from hindgrad.apps.tuning import tune
from hindgrad.tuning.tune import TuneResult

DRAWS = 5
"""Fresh draws over which a choice is made."""


class Tuned(NamedTuple):
    """What a tuning found."""

    hyper: Hyper
    result: TuneResult
    chosen_among: int
    """How many candidates were compared on fresh draws."""


def tune_network(
    problem: Problem,
    begin: Hyper,
    *,
    steps: int,
    key: PRNGKeyArray,
    draws: Sequence[PRNGKeyArray],
    **options: Any,
) -> Tuned:
    """Tunes by hypergradient: a fresh draw at each step, the later iterates averaged, and the
    answer chosen on `draws` of its own. `options` are those of `hindgrad.tune`."""
    among = 0

    def choose(parts: Parts) -> float:
        nonlocal among
        among += 1
        return mean_valid_loss(problem, together(parts), draws)

    objective, start, optimizer = problem.objective, apart(begin), _optimizer(steps)
    # The norm that is ordinary here: that of the first step, which is not spent twice.
    first = tune(
        of_parts(objective), start, optimizer, steps=1, key=key, choose=_any, progress=False
    )
    result = tune(
        of_parts(objective, limit(first.history[0].norm, problem.network.kind)),
        start,
        optimizer,
        steps=steps,
        key=key,
        choose=choose,
        average=1 / 3,
        **options,
    )
    return Tuned(together(result.hyper), result, among)


def tuned_hyper(problem: Problem, begin: Hyper, steps: int, key: PRNGKeyArray) -> Hyper:
    """The hyperparameters that a tuning of so many steps finds."""
    first, second = jax.random.split(key)
    draws = list(jax.random.split(second, DRAWS))
    options = {"progress": False}
    return tune_network(problem, begin, steps=steps, key=first, draws=draws, **options).hyper


def _any(_: Parts) -> float:
    return 0.0


def _optimizer(steps: int) -> optax.GradientTransformation:
    """Adam with a falling rate: large steps to the right region, small ones within it. The clip is
    far above an ordinary hypergradient; it bounds those from the edge of chaos."""
    rate = optax.linear_schedule(0.1, 0.01, steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b1=0.8))

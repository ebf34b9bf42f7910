"""An optax optimizer whose hyperparameters are tuned while it trains."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree

from hindgrad import trees
from hindgrad.adjoints import tangents
from hindgrad.arguments import floats_and_rest
from hindgrad.tuning.constraints import projection
from hindgrad.tuning.outer import check_outer, outer_update, refuse_complex


class SelfTuningState(NamedTuple):
    """The state of a self-tuning optimizer."""

    inner: PyTree
    """The state of the optimizer within."""
    hyper: PyTree
    """The hyperparameters in use (those that are tuned)."""
    outer: PyTree
    """The state of the optimizer that changes them."""
    moved: PyTree
    """The derivative of the last update with respect to each hyperparameter: like the parameters,
    with a leading axis."""
    skipped: Int[Array, ""]
    """How often nothing was changed since the hypergradient was not finite."""


def self_tuning(
    make: Callable[[PyTree], optax.GradientTransformation],
    hyper: PyTree,
    optimizer: optax.GradientTransformation,
    *,
    project: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """An optax optimizer that tunes its own rate, for a training loop of your own.

        optimizer = hg.self_tuning(
            lambda h: optax.sgd(h["rate"], momentum=0.9), {"rate": 0.01}, optax.adam(1e-3)
        )

    `init` and `update` as ever; `state.hyper["rate"]` is the rate in use. At every step, each
    hyperparameter is changed by how the last update would have changed with it, times the
    gradient where that led: hypergradient descent (Baydin et al. 2018, eq. 5), for any
    hyperparameter of any optax optimizer. It looks back on one step: for longer horizons, use
    `tune_online`.

    **Arguments:**

    - `make`: a function from the hyperparameters to an optax transformation.
    - `hyper`: where they begin; Python floats and inexact arrays are tuned.
    - `optimizer`: any optax optimizer, for the hyperparameters.
    - `project`: constraints, as for `tune` (such as `Box(decay=(0, 0.99))`). Unless given, what
      begins at 0 or above stays so.

    `update(grads, state, params, valid_grads=…)` takes the gradient of a validation loss, if that
    is to be lowered in place of the training loss. A hypergradient that is not finite changes
    nothing, and is counted in `state.skipped`.
    """
    if not callable(make) or isinstance(make, optax.GradientTransformation):
        raise TypeError(
            f"self_tuning(make={make!r}): a function of the hyperparameters is needed, such as "
            'lambda h: optax.sgd(h["rate"]).'
        )
    begin = trees.as_hyper(hyper)
    tuned, fixed = floats_and_rest("self_tuning", hyper)
    refuse_complex("self_tuning", tuned)
    check_outer("self_tuning", "optimizer", optimizer)
    whole = lambda tuned: eqx.combine(tuned, fixed)
    constrain = projection(project) if project is not None else _stay_positive(tuned)
    size = trees.size(tuned)

    def init(params):
        zeros = lambda x: jnp.zeros((size, *x.shape), x.dtype)
        moved = jax.tree.map(zeros, eqx.filter(params, eqx.is_inexact_array))
        inner = make(begin).init(params)
        return SelfTuningState(inner, tuned, optimizer.init(tuned), moved, jnp.int32(0))

    def change(state, grads, value):
        """The hyperparameters by the gradient where the last update led."""
        old = state.hyper
        gradient = tangents.pull(eqx.filter(grads, eqx.is_inexact_array), state.moved)
        hypergradient = tangents.unflat(gradient, old)
        updates, outer = outer_update(optimizer, hypergradient, state.outer, old, value)
        new = constrain(whole(optax.apply_updates(old, updates)))
        new = eqx.filter(trees.as_hyper(new), eqx.is_inexact_array)
        good = trees.finite((gradient, new, outer))
        keep = lambda a, b: jnp.where(good, a, b)
        new, outer = jax.tree.map(keep, (new, outer), (old, state.outer))
        return new, outer, state.skipped + ~good

    def update(updates, state, params=None, *, valid_grads=None, **extra):
        grads, value = updates if valid_grads is None else valid_grads, extra.get("value")
        new, outer, skipped = change(state, grads, value)

        def step(tuned):
            transformation = optax.with_extra_args_support(make(whole(tuned)))
            return transformation.update(updates, state.inner, params, **extra)

        _, depends = trees.dependence(lambda tuned: step(tuned)[0], new)
        if not any(jax.tree.leaves(depends)):
            raise ValueError(
                "self_tuning(make=…): the update does not depend on the hyperparameters. Use them "
                "in make, without optax.inject_hyperparams, which keeps its own in its state."
            )
        units = tangents.directions(new, 0, size)
        (changes, inner), (moved, _) = tangents.push(step, new, units)
        # A rate of more precision than the parameters would pass it on to all of these.
        like = lambda xs, ys: jax.tree.map(lambda x, y: x.astype(y.dtype), xs, ys)
        inner, moved = like(inner, state.inner), like(moved, state.moved)
        return like(changes, updates), SelfTuningState(inner, new, outer, moved, skipped)

    return optax.GradientTransformationExtraArgs(init, update)


def _stay_positive(begin):
    """Bounds at 0 all that begins at 0 or above."""
    low = jax.tree.map(lambda x: jnp.where(x >= 0, 0, -jnp.inf).astype(x.dtype), begin)

    def constrain(hyper):
        tuned, fixed = eqx.partition(hyper, eqx.is_inexact_array)
        return eqx.combine(jax.tree.map(jnp.maximum, tuned, low), fixed)

    return constrain

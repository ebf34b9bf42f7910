"""Learning an optimizer: gradient descent on the weights, through the training they do."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, PyTree

from hindgrad import trees
from hindgrad.adjoints import Adjoint, PersistentEvolution, Stored
from hindgrad.arguments import Key, Whole, as_key, as_whole
from hindgrad.checkpoint import Checkpoint
from hindgrad.learned.base import LearnedOptimizer
from hindgrad.learned.loop import Evaluation, Loop, restored, save
from hindgrad.learned.problems import Family
from hindgrad.progress import Bar
from hindgrad.tuning.outer import check_outer


class FitResult(NamedTuple):
    """What fitting gives."""

    weights: PyTree
    """Those with the best value on held-out problems."""
    value: float
    history: list[Evaluation]
    message: str
    """In words: where the weights come from, and what was skipped."""


def fit(
    optimizer: LearnedOptimizer,
    family: Family,
    *,
    steps: Whole = 100,
    unroll: Whole = 20,
    batch: Whole = 128,
    iterations: Whole = 5_000,
    outer: optax.GradientTransformation | None = None,
    key: Key = 0,
    weights: PyTree = None,
    step_weights: Float[ArrayLike, " steps"] | Sequence[float] | None = None,
    measure: Callable[[Float[Array, "..."]], Float[Array, "..."]] | None = None,
    adjoint: Adjoint | None = None,
    horizons: Sequence[tuple[int, int]] = (),
    held_out: Family | None = None,
    evaluations: Whole = 128,
    every: Whole | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | None = True,
    on_step: Callable[[Evaluation, PyTree], None] | None = None,
) -> FitResult:
    """Learns an optimizer's weights by gradient descent through the training that they do.

        result = hg.learned.fit(hg.learned.CoordinateLSTM(), hg.learned.Quadratics())
        optimizer.as_optax(result.weights)

    Every iteration takes `unroll` steps on `batch` problems side by side, the derivative of their
    losses with respect to the weights, and a step of `outer`. Problems are trained for `steps`
    steps, with the state carried from one iteration to the next, then fresh ones are drawn. An
    iteration whose gradient is not finite changes nothing, and fresh problems follow.

    **Arguments:**

    - `optimizer`: what to learn, such as `CoordinateLSTM()`.
    - `family`: the problems: `Quadratics()`, `MLPs(…)`, …, or a function `key -> (params, loss)`,
      with `loss(params, key)` and a key for each step (a minibatch).
    - `steps`: how long a problem is trained; a multiple of `unroll`.
    - `unroll`: through how many steps a gradient goes.
    - `batch`: how many problems at a time.
    - `iterations`: how many gradients.
    - `outer`: the optax optimizer of the weights; Adam with rate 1e-3 unless given, after clipping
      the gradient's norm to 1.
    - `key`: a key or a seed.
    - `weights`: where to begin; drawn unless given.
    - `step_weights`: w_t, how much the loss before step t counts; all 1 unless given.
    - `measure`: an elementwise function of the losses that is lowered instead of them, such as
      `jnp.log`.
    - `adjoint`: how a window is differentiated, `Stored()` unless given; or `Evolution(…)`,
      for whole episodes, or `PersistentEvolution(window=unroll, …)`.
    - `horizons`: a curriculum, (first iteration, steps) in turn: from each such iteration on,
      problems are trained for so many steps. `steps` throughout unless given.
    - `held_out`: the problems for evaluation; the same family unless given, in either case drawn
      by keys of their own and trained for `steps` steps.
    - `evaluations`: how many of them.
    - `every`: how many iterations between two evaluations; a fiftieth of all unless given.
    - `checkpoint`: a directory. If the call is killed, the same call goes on from there, and ends
      with the same result to the bit; the same, too, after Ctrl-C.
    - `progress`: whether to show a progress line, on standard error.
    - `on_step`: called after each evaluation but that of the start, with it and the weights, to
      log them anywhere.

    Raises `ValueError` if arguments do not fit together, or if `checkpoint` holds another call's
    state or a damaged one; `RuntimeError` if another call is using it; `TypeError` if an argument
    is of another kind.
    """
    steps, unroll = as_whole("fit", "steps", steps), as_whole("fit", "unroll", unroll)
    batch, iterations = as_whole("fit", "batch", batch), as_whole("fit", "iterations", iterations)
    evaluations = as_whole("fit", "evaluations", evaluations)
    every = as_whole("fit", "every", max(1, iterations // 50) if every is None else every)
    horizons = _as_horizons(horizons) or ((0, steps),)
    _check_kinds(optimizer, family, outer, held_out, measure)
    _check_lengths(steps, unroll, horizons, adjoint)
    step_weights = _checked_step_weights(step_weights, steps, horizons)
    loop = Loop(
        outer=_clipped_adam() if outer is None else outer,
        optimizer=optimizer,
        family=family,
        held_out=family if held_out is None else held_out,
        step_weights=step_weights,
        measure=_same if measure is None else measure,
        adjoint=Stored() if adjoint is None else adjoint,
        key=as_key("fit", key),
        batch=batch,
        unroll=unroll,
        horizons=horizons,
        evaluations=evaluations,
        every=every,
        iterations=iterations,
    )
    weights = optimizer.weights(loop.draw(0)) if weights is None else weights
    optimizer.check_weights(weights)
    begin = loop.begin(trees.as_hyper(weights))
    with Checkpoint(checkpoint, lambda: loop.call(begin)) as store:
        state = restored(store, loop, begin)
        try:
            with Bar(iterations, "learning", shown=progress) as bar:
                while state.iteration < iterations:
                    seen, state = len(state.history), loop.go_on(state)
                    if on_step is not None and len(state.history) > seen:
                        on_step(state.history[-1], state.weights)
                    save(store, state, now=False)
                    latest, best = state.history[-1].value, state.best_value
                    bar.show(state.iteration, f"held-out {latest:.4g}, best {best:.4g}")
        finally:  # an interruption loses nothing
            save(store, state, now=True)
    return _conclude(state)


def _clipped_adam():
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))


def _same(losses):
    return losses


def _conclude(state) -> FitResult:
    last = state.history[-1]
    if np.isfinite(state.best_value):
        best = next(e.iteration for e in state.history if e.value == state.best_value)
        message = f"Took the weights of iteration {best} of {last.iteration}."
    else:
        message = (
            "No evaluation gave a finite value, so these are the weights of the start: the "
            "optimizer diverges on held-out problems. Give it a smaller scale, or train for fewer "
            "steps first (horizons=)."
        )
    if last.skipped:
        message += (
            f" Iterations skipped because their gradient was not finite: {last.skipped} of "
            f"{last.iteration}."
        )
    return FitResult(state.best, state.best_value, state.history, message)


def _as_horizons(horizons):
    whole = lambda value, least: as_whole("fit", "horizons", value, least=least)
    return tuple((whole(first, 0), whole(steps, 1)) for first, steps in horizons)


def _check_kinds(optimizer, family, outer, held_out, measure):
    if not isinstance(optimizer, LearnedOptimizer):
        raise TypeError(
            f"fit was given {optimizer!r}, which is no learned optimizer. Give one, such as "
            "hg.learned.CoordinateLSTM()."
        )
    if outer is not None:
        check_outer("fit", "outer", outer)
    functions = {"family": family, "held_out": held_out, "measure": measure}
    for name, value in functions.items():
        if not callable(value) and (value is not None or name == "family"):
            raise TypeError(f"fit({name}={value!r}) is not a function.")


def _check_lengths(steps, unroll, horizons, adjoint):
    firsts = [first for first, _ in horizons]
    if firsts[0] != 0 or firsts != sorted(set(firsts)):
        raise ValueError(
            f"fit(horizons={horizons!r}): pairs (first iteration, steps) are needed, with rising "
            "iterations from 0 on."
        )
    for length in (steps, *(length for _, length in horizons)):
        if length > steps or length % min(unroll, length):
            raise ValueError(
                f"fit(unroll={unroll}) does not divide the {length} steps of an episode, or they "
                f"are more than steps={steps}. Give steps that are a multiple of unroll."
            )
    if isinstance(adjoint, PersistentEvolution) and adjoint.window != unroll:
        raise ValueError(
            f"fit(unroll={unroll}) and PersistentEvolution(window={adjoint.window}) say "
            "different things about the length of a window. Give both the same."
        )


def _checked_step_weights(weights, steps, horizons):
    weights = np.ones(steps) if weights is None else np.asarray(weights, float)
    if weights.shape != (steps,):
        raise ValueError(
            f"fit(step_weights=…) has shape {weights.shape}; one number for each of the {steps} "
            "steps is needed."
        )
    shortest = min(length for _, length in horizons)
    if not (np.all(weights >= 0) and np.all(np.isfinite(weights)) and any(weights[:shortest])):
        raise ValueError(
            "fit(step_weights=…) needs finite numbers, none below 0, and one above 0 among the "
            f"first {shortest}, the steps of the shortest episode."
        )
    return jnp.asarray(weights, jnp.result_type(float))

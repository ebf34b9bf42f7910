"""Real-time tuning: hyperparameters that change while the one training run goes on."""

import dataclasses
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from hindgrad import programs, trees
from hindgrad.adjoints import Stored
from hindgrad.arguments import Whole, as_whole, floats_and_rest
from hindgrad.model_state import arguments
from hindgrad.progress import Bar
from hindgrad.training import Training
from hindgrad.tuning.constraints import projection
from hindgrad.tuning.horizons import Carried, Horizon, Position, Restarted
from hindgrad.tuning.outer import check_outer, outer_update, refuse_complex
from hindgrad.tuning.ranges import out_of_range, within_range
from hindgrad.tuning.trajectory import (
    ACCEPTED,
    NO_GRADIENT,
    UNDONE,
    Change,
    OnlineResult,
    Trajectory,
)

FAR, RECENT = 10.0, 5
"""Training has diverged if the validation loss is NaN, or exceeds the median of the recent ones by
this many times their spread and this many times the median's size."""
RECOVERY = 2.0 ** (1 / RECENT)
"""By how much halved changes grow with each good window, until they are whole again."""
PIECES = 100
"""The run is compiled once and called about so many times."""
TIRED = 8
"""So many windows undone in a row end the tuning."""


def tune_online(
    training: Training,
    params: PyTree,
    hyper: PyTree,
    valid_loss: Callable[..., Float[Array, ""]],
    optimizer: optax.GradientTransformation,
    *,
    every: Whole,
    horizon: Horizon | None = None,
    project: Any = None,
    model_state: PyTree = None,
    progress: bool = True,
    on_step: Callable[[Change, PyTree], None] | None = None,
) -> OnlineResult:
    """Trains once, and changes the hyperparameters along their hypergradient meanwhile.

        result = hg.tune_online(
            training, params, {"rate": 0.01, "decay": 0.5}, valid_loss, optax.adam(0.005), every=200
        )

    Every so many steps λ ← project(λ − optimizer(∇_λ E(s_t, λ))), and training goes on from s_t
    (RTHO: Franceschi et al. 2017, section 4.3). With `every=1`, `horizon=Forgotten()` and the next
    training batch for `valid_loss`, this is hypergradient descent (Baydin et al. 2018).

    Coefficients of `Momentum` and `Adam` never leave their range (rates at least 0, decays in
    [0, 1)): a change that would take one out is halved until it does not, leaf by leaf; with
    `project=Box(rate=(0, None))` they reach the bound itself. Other optimizers have no ranges:
    give `project`. If the hypergradient is not finite, nothing is changed and the tangents begin
    anew. If the validation loss becomes NaN, or worse by far, it goes back to the last change,
    which is undone, and the next ones are halved.

    **Arguments:**

    - `training`: the run. All its `steps` are trained; what is undone is trained again.
    - `params`: the initial parameters.
    - `hyper`: where the hyperparameters begin; Python floats and inexact arrays are tuned.
    - `valid_loss`: a function `(params, hyper, t) -> scalar`, of the parameters before step t; or
      `(params, hyper, t, state) -> scalar`, of the model's state too.
    - `optimizer`: any optax optimizer, for the hyperparameters.
    - `every`: how many steps between changes.
    - `horizon`: `Carried()` (unless given), `Forgotten()`, `Restarted()`, or `LastWindow()` for
      many hyperparameters.
    - `project`: constraints, as for `tune`.
    - `model_state`: the model's own state at the start, where the training's loss takes one.
    - `progress`: whether to show a progress line, on standard error.
    - `on_step`: called for each `Change` with it and the hyperparameters after it, to log them
      anywhere. (The run is compiled in about 100 pieces: the calls come after each.)

    Raises `ValueError` if the first window already diverges, coefficients are out of their range to
    begin with, or hyperparameters are complex; `RuntimeError` if training keeps diverging, or does
    so in the steps after the last change.
    """
    _check(training, optimizer, every, horizon)
    every = as_whole("tune_online", "every", every)
    floats, others = floats_and_rest("tune_online", hyper)
    refuse_complex("tune_online", floats)
    trained, fixed = trees.split_trained(params)
    if any(isinstance(x, np.ndarray) for x in jax.tree.leaves(fixed)):
        # Within `jax.jit` they would be JAX's, and trained: the functions close over them instead.
        whole = lambda function: wraps(function)(
            lambda params, *rest: function(eqx.combine(params, fixed), *rest)
        )
        training = dataclasses.replace(training, loss=whole(training.loss))
        valid_loss, params = whole(valid_loss), trained
    else:
        params = eqx.combine(trained, fixed)
    loop = _Loop(
        training,
        valid_loss,
        optimizer,
        projection(project),
        Carried() if horizon is None else horizon,
        every,
    )
    hyper = programs.Compiled(loop.project)(eqx.combine(floats, others))
    wrong = out_of_range(training.optimizer, hyper, 0, training.steps)
    if wrong:
        raise ValueError(f"tune_online was given hyperparameters with {wrong}.")
    result = _conclude(
        loop,
        eqx.filter(hyper, eqx.is_inexact_array),
        *_drive(loop, (params, trees.as_hyper(model_state)), hyper, progress, on_step),
    )
    return result._replace(params=eqx.combine(result.params, fixed))


class _Now(NamedTuple):
    """All that changes while tuning."""

    position: Position
    start: Position
    latest: PyTree
    """The state where the last window ended."""
    hyper: PyTree
    earlier: PyTree
    """The hyperparameters of the latest good windows, the last one first: a leading axis of
    `TIRED`."""
    recent: Float[Array, " recent"]
    """The validation losses of the latest good windows, and of the start; infinite for none."""
    largest: Float[Array, ""]
    """The largest of all so far."""
    memory: PyTree
    scale: Array


class _Record(NamedTuple):
    hyper: PyTree
    value: Array
    status: Array
    losses: Array


class _Loop(eqx.Module):
    """What stays the same."""

    training: Training
    valid_loss: Callable[..., Any]
    optimizer: optax.GradientTransformation
    project: Callable[[PyTree], PyTree]
    horizon: Horizon
    every: int = eqx.field(static=True)

    def begin(self, models: tuple[PyTree, PyTree], hyper: PyTree) -> _Now:
        """Before the first step, from (params, the model's state)."""
        params, model = models
        tuned = eqx.filter(hyper, eqx.is_inexact_array)
        optimizer = self.training.optimizer
        floats = eqx.filter(params, eqx.is_inexact_array)
        memory = optimizer.init(floats, optimizer.coefficients(hyper, jnp.int32(0)))
        state = (params, memory, model)
        start = Position(state, self.horizon.begin(state, tuned), jnp.int32(0))
        earlier = jax.tree.map(lambda h: jnp.broadcast_to(h, (TIRED, *h.shape)), tuned)
        outer = self.optimizer.init(tuned)
        value = programs.Compiled(self.score)(state, hyper, jnp.int32(0))
        recent = jnp.full(RECENT, jnp.inf, value.dtype).at[-1].set(value)
        return _Now(start, start, state, tuned, earlier, recent, value, outer, jnp.ones(()))

    def score(self, state: PyTree, hyper: PyTree, t: Array) -> Float[Array, ""]:
        """The validation loss."""
        params, _, model = state
        more = arguments("valid_loss", self.valid_loss, model)
        value = jnp.asarray(self.valid_loss(params, hyper, t, *more))
        if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
            raise ValueError(
                f"tune_online(valid_loss=…) gave {value.dtype}{list(value.shape)}; one float is "
                "needed."
            )
        return value

    def run(self, steps: int, fixed: PyTree):
        """A stretch of the run, as the horizons take it."""

        def run(state, hyper, t, adjoint):
            params, memory, model = state
            whole, memories = eqx.combine(hyper, fixed), {"state": memory, "model_state": model}
            done = self.training(params, whole, start=t, steps=steps, adjoint=adjoint, **memories)
            return (done.params, done.state, done.model_state), done.losses

        return run

    def window(self, now: _Now, fixed: PyTree) -> tuple[_Now, _Record]:
        """Trains for a window, and changes the hyperparameters."""
        score = lambda state, hyper, t: self.score(state, eqx.combine(hyper, fixed), t)
        stretch = self.horizon.advance(self.run(self.every, fixed), score, now.position, now.hyper)
        trained = trees.finite(stretch.end.state) & ~_is_far(stretch.value, now.recent, now.largest)
        good = trained & trees.finite((stretch.gradient, stretch.end.tangents))
        following = self.horizon.after(stretch.end, now.start)
        changed, memory = self.change(now, stretch, following.t, fixed)
        forgetful = lambda position: position._replace(tangents=now.start.tangents)
        unchanged = _choose(trained, forgetful(following), forgetful(now.position))
        newest = jax.tree.map(
            lambda h, e: jnp.concatenate([h[None], e[:-1]]), now.hyper, now.earlier
        )
        older = jax.tree.map(lambda e: jnp.concatenate([e[1:], e[-1:]]), now.earlier)
        back = jax.tree.map(lambda e: e[0], now.earlier)
        after = _Now(
            position=_choose(good, following, unchanged),
            start=now.start,
            latest=_choose(trained, stretch.end.state, now.latest),
            hyper=_choose(good, changed, _choose(trained, now.hyper, back)),
            earlier=_choose(trained, newest, older),
            recent=_choose(trained, jnp.append(now.recent[1:], stretch.value), now.recent),
            largest=_choose(trained, jnp.maximum(now.largest, stretch.value), now.largest),
            memory=_choose(good, memory, now.memory),
            scale=jnp.where(trained, jnp.minimum(1, now.scale * RECOVERY), now.scale / 2),
        )
        status = jnp.where(good, ACCEPTED, jnp.where(trained, NO_GRADIENT, UNDONE))
        return after, _Record(after.hyper, stretch.value, status, stretch.losses)

    def change(self, now, stretch, t, fixed):
        """The hyperparameters after a change, all coefficients within their range."""
        updates, memory = outer_update(
            self.optimizer, stretch.gradient, now.memory, now.hyper, stretch.value
        )
        moved = jax.tree.map(lambda h, u: h + now.scale.astype(h.dtype) * u, now.hyper, updates)
        whole = lambda hyper: eqx.combine(hyper, fixed)
        moved = trees.as_hyper(self.project(whole(moved)))
        moved = eqx.filter(moved, eqx.is_inexact_array)
        return within_range(self.training.optimizer, now.hyper, moved, whole, t, self.every), memory


@programs.compiled
def _windows(loop: _Loop, now: _Now, fixed: PyTree, count: int):
    arrays, static = eqx.partition(now, eqx.is_array)

    def body(arrays, _):
        now, record = loop.window(eqx.combine(arrays, static), fixed)
        return eqx.filter(now, eqx.is_array), record

    arrays, records = jax.lax.scan(body, arrays, length=count)
    return eqx.combine(arrays, static), records


@programs.compiled
def _remainder(loop: _Loop, now: _Now, fixed: PyTree, steps: int):
    """The last steps, too few for another change."""
    return loop.run(steps, fixed)(now.position.state, now.hyper, now.position.t, Stored())


def _drive(loop, start, hyper, progress, on_step):
    """The whole run, piece by piece: where it ended, and the records."""
    _, fixed = eqx.partition(hyper, eqx.is_inexact_array)
    now, records, done = loop.begin(start, hyper), [], 0
    windows, rest = divmod(loop.training.steps, loop.every)
    piece = -(-windows // PIECES)
    with Bar(windows, "training", shown=progress) as bar:
        while done < windows:
            now, new = _windows(loop, now, fixed, min(piece, windows - done))
            records.append(jax.tree.map(np.asarray, new))
            if on_step is not None:
                _call_each(on_step, loop, records[-1], done, fixed)
            done += int(np.sum(records[-1].status != UNDONE))
            _check_going(records)
            bar.show(done, f"validation loss {records[-1].value[-1]:.4g}")
    records = jax.tree.map(lambda *parts: np.concatenate(parts), *records)
    losses = records.losses[records.status != UNDONE].ravel()
    state = now.latest
    if rest:
        state, now, last = _finish(loop, now, fixed, rest)
        losses = np.concatenate([losses, last])
    return state, eqx.combine(now.hyper, fixed), records, losses


def _call_each(on_step, loop, records, done, fixed):
    for i, step in enumerate(_steps(loop, records.status, done)):
        hyper = eqx.combine(jax.tree.map(lambda h, i=i: h[i], records.hyper), fixed)
        on_step(Change(int(step), float(records.value[i]), int(records.status[i])), hyper)


def _steps(loop, status, done=0):
    """How many steps had been trained at each change, after `done` windows."""
    undone = status == UNDONE
    return loop.every * (done + np.cumsum(~undone) + undone)


def _finish(loop, now, fixed, steps):
    """The last steps; if they diverge, with the hyperparameters of the window before."""
    before = now._replace(hyper=jax.tree.map(lambda e: e[0], now.earlier))
    for candidate in (now, before):
        state, losses = _remainder(loop, candidate, fixed, steps)
        if trees.finite(state):
            return state, candidate, np.asarray(losses)
    raise RuntimeError(
        f"Training diverged in the {steps} steps after the last change. Lower the optimizer's "
        "rate, or bound the hyperparameters by project=Box(…)."
    )


def _check_going(records):
    status = np.concatenate([r.status for r in records])
    values = np.concatenate([r.value for r in records])
    if np.all(status == UNDONE):
        raise ValueError(
            f"Training diverges in its first window: the validation loss is {values[0]}. Begin "
            "with lower rates, or take the first change earlier (every=…)."
        )
    if np.all(status[-TIRED:] == UNDONE):
        raise RuntimeError(
            f"Training diverged {TIRED} times in a row, with the hyperparameters of as many "
            "windows before too. Lower the optimizer's rate, bound the hyperparameters by "
            "project=Box(…), or make smaller windows (every=…)."
        )


def _conclude(loop, begin, state, hyper, records, losses) -> OnlineResult:
    steps = _steps(loop, records.status)
    trajectory = Trajectory(begin, steps, records.hyper, records.value, records.status)
    counts = [int(np.sum(records.status == s)) for s in (ACCEPTED, NO_GRADIENT, UNDONE)]
    message = f"Changes of the hyperparameters: {counts[0]}."
    if counts[1]:
        message += (
            f" Hypergradients that were not finite, after which tangents began anew: {counts[1]}."
        )
    if counts[2]:
        message += f" Windows that diverged and were undone: {counts[2]}."
    params, memory, model = state
    return OnlineResult(params, memory, hyper, trajectory, losses, message, model)


def _check(training, optimizer, every, horizon):
    if not isinstance(training, Training):
        raise TypeError(
            f"tune_online(training=…) was given a {type(training).__name__}, not a Training."
        )
    check_outer("tune_online", "optimizer", optimizer)
    if as_whole("tune_online", "every", every) > training.steps:
        raise ValueError(
            f"tune_online(every={every!r}): from 1 to the training's {training.steps} steps."
        )
    if horizon is not None and not isinstance(horizon, Horizon):
        raise TypeError(
            f"tune_online(horizon={horizon!r}) is none: Carried(), Forgotten(), Restarted() or "
            "LastWindow()."
        )
    if isinstance(horizon, Restarted) and training.steps % every:
        raise ValueError(
            f"tune_online(horizon=Restarted(), every={every}): the last training would have only "
            f"the {training.steps % every} steps that are left of {training.steps}. Give a "
            "multiple of `every`."
        )


def _is_far(value, recent, largest):
    """Whether a validation loss is worse by far than the recent ones, or not finite. One that is
    not the largest so far is neither: near a minimum all are small, and some overshoot."""
    count, ordered = jnp.sum(jnp.isfinite(recent)), jnp.sort(recent)
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    spread = ordered[count - 1] - ordered[0]
    worse = value - median > FAR * jnp.maximum(jnp.abs(median), spread)
    return (worse & (value > largest)) | ~jnp.isfinite(value)


def _choose(condition, yes, no):
    pick = lambda a, b: jnp.where(condition, a, b) if eqx.is_array(a) else a
    return jax.tree.map(pick, yes, no)

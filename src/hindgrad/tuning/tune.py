"""The outer loop: hyperparameters changed along their hypergradient."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from hindgrad import placement, programs, trees
from hindgrad.adjoints import Adjoint
from hindgrad.adjoints.base import Hypergradient
from hindgrad.arguments import Key, Whole, as_key, as_whole, floats_and_rest
from hindgrad.checkpoint import Call, Checkpoint, contents, described
from hindgrad.diagnostics.diagnose import Diagnosis, Line, examine, in_one_line
from hindgrad.progress import Bar
from hindgrad.target import as_target, first_carry, value_of
from hindgrad.tuning.constraints import projection
from hindgrad.tuning.judge import RECENT, is_lower, is_plateau, judge, recent_values
from hindgrad.tuning.outer import check_outer, outer_update
from hindgrad.tuning.probes import measures, moves
from hindgrad.tuning.state import Point, Record, State, restore, save, show_record

RECOVERY = 2.0 ** (1 / RECENT)
"""By how much a halved rate grows with each accepted step, until it is whole again."""
SMALLEST_SCALE = 2.0**-10
"""Tuning gives up when its steps have been scaled down below this."""
HELD_OUT_DRAWS = 5
"""How many keys of its own the default held-out score takes the mean over."""


class TuneResult(NamedTuple):
    """What tuning gives."""

    hyper: PyTree
    """The best hyperparameters seen (see `tune`)."""
    value: float
    """Their score: the objective's value, or with a key or `choose` the held-out score."""
    history: list[Record]
    message: str
    """In words: where the answer comes from, what was undone, why tuning ended; in its last line,
    whether the hypergradient is meaningful at the answer."""
    diagnosis: Diagnosis | None = None
    """That of the step that the optimizer would begin with at the answer (see `diagnose`); None
    if it could not be made, and with `Evolution` or `PersistentEvolution`."""


def tune(
    objective: Callable[..., Any],
    hyper: PyTree,
    optimizer: optax.GradientTransformation,
    *,
    steps: Whole,
    project: Any = None,
    key: Key | None = None,
    adjoint: Adjoint | None = None,
    average: float = 0.5,
    choose: Callable[[PyTree], Any] | None = None,
    patience: Whole | None = 20,
    checkpoint: str | Path | None = None,
    progress: bool | None = True,
    diagnose: bool = True,
    on_step: Callable[[Record, PyTree], None] | None = None,
) -> TuneResult:
    """Lowers an objective by its hypergradient, and returns the best hyperparameters seen.

        result = hg.tune(objective, hyper, optax.adam(0.05), steps=50)

    A step that leads to NaN, or to a value worse by far than the recent ones, is undone and the
    rate halved; if that happens again, tuning turns back one accepted step further. When the
    values have become worse over a stretch of steps, as they do beyond the edge of chaos, it turns
    back to the best stretch so far. The rate recovers over the following steps.

    With a `key` the objective is taken as random: outer step i uses `jax.random.fold_in(key, i)`.
    Drawing a fresh split, initialisation and batch order each time keeps many hyperparameters
    from overfitting one validation set; the noise is averaged out by averaging the iterates.

    **Arguments:**

    - `objective`: an `Objective`, or a function of `hyper` (of `(hyper, key)` if a key is given)
      that `jax.grad` can differentiate.
    - `hyper`: where to start, any pytree; its Python floats and inexact arrays are tuned,
      everything else stays.
    - `optimizer`: any optax optimizer. Clipping is wise: `optax.chain(optax.clip_by_global_norm(
      1.0), optax.adam(0.05))`.
    - `steps`: how many hypergradients to take at most.
    - `project`: constraints (`Box`, `Simplex`, `L1Ball`, `NonNegative`, `Symmetric`, several
      joined by `&` or in a list), or any function `hyper -> hyper`; applied after each step.
    - `key`: a key or a seed.
    - `adjoint`: how hypergradients are computed, for an `Objective` or a `Reparametrised` one. If
      a run cannot be undone by `Reversible()`, its step is turned back from, like one that leads
      to NaN. Where
      training is chaotic, `Evolution` and `PersistentEvolution` give the gradient of a smoothed
      objective.
    - `average`: the share of the last steps whose hyperparameters are averaged, with a key. The
      average is projected, too.
    - `choose`: a function `hyper -> scalar`, lower is better: the score by which the answer is
      chosen among the start, the best iterate and, with a key, the average. Unless given:
      the objective itself; with a key, its mean over five keys not used in tuning.
    - `patience`: stop when the median value of the last `patience` steps is no lower than that of
      as many steps before; None goes on to the end.
    - `checkpoint`: a directory. If the call is killed, the same call goes on from there, and ends
      with the same result to the bit. Hypergradients of runs of 100,000 steps and more, and of
      streams, are taken in segments (`hg.hypergradient`), which are kept there too. Objectives and
      optimizers are compared by the first numbers that they give; `choose`, `progress` and
      `diagnose` may be others.
    - `progress`: whether to show a progress line, on standard error; None lets nothing of it stay.
    - `diagnose`: whether to diagnose the answer at the end, which costs a few runs.
    - `on_step`: called after each step with its `Record` and the hyperparameters that it is about,
      to log them anywhere. What it raises ends the tuning, and nothing is lost with a `checkpoint`.

    Raises `ValueError` if the start has no finite value or hypergradient, or if `checkpoint`
    holds another call's state or a damaged one; `RuntimeError` if another call is using it.
    """
    steps = as_whole("tune", "steps", steps)
    patience = None if patience is None else as_whole("tune", "patience", patience)
    check_outer("tune", "optimizer", optimizer)
    if not 0 <= average <= 1:
        raise ValueError(f"tune(average={average}): a share between 0 and 1 is needed.")
    key = None if key is None else as_key("tune", key)
    floats, rest = floats_and_rest("tune", hyper)
    project = programs.Compiled(projection(project))
    start = project(eqx.combine(floats, rest))
    target = as_target("tune", objective, adjoint, checkpoint, progress)
    score = None if choose is None else _Score(choose, start)
    loop = _Loop(target, optimizer, project, start, steps, key, average, patience)
    with Checkpoint(checkpoint, loop.call) as store:
        state = restore(store, loop.begin(), loop.point())
        try:
            with Bar(steps, "tuning", shown=progress) as bar:
                while (step := len(state.history)) < steps:
                    if is_plateau(state.history, patience) or state.scale < SMALLEST_SCALE:
                        break
                    with target.beside(bar):
                        hyper, state = state.hyper, loop.advance(state, step)
                    if on_step is not None:  # first: a kill may repeat a call, not lose it
                        on_step(state.history[-1], loop.whole(hyper))
                    save(store, state, now=False)
                    show_record(bar, state.history[-1], state.best_value)
        finally:  # an interruption loses nothing
            if state.history:
                save(store, state, now=True)
    result = _conclude(loop, state, score, steps)
    return _with_diagnosis(loop, state, result) if diagnose else result


class _Loop:
    """The functions of one tuning, with what stays the same throughout."""

    def __init__(self, target, optimizer, project, start, steps, key, average, patience):
        self.target, self.optimizer, self.project = target, optimizer, project
        self.start, self.fixed = eqx.partition(start, eqx.is_inexact_array)
        self.steps, self.key, self.average = steps, key, average
        self.patience = patience

    def call(self) -> Call:
        """What must be the same for an interrupted tuning to go on."""
        key = None if self.key is None else np.asarray(jax.random.key_data(self.key)).tolist()
        arguments = {
            "function": "tune",
            "steps": self.steps,
            "key": key,
            "average": float(self.average),
            "patience": self.patience,
            "adjoint": described(getattr(self.target, "adjoint", None)),
            "hyper": contents(self.whole(self.start)),
            "project": described(self.project),
        }
        first, _ = self.first
        numbers = {
            "objective": [float(first.value), *measures(first.gradient)],
            "optimizer": moves(self.optimizer, self.start),
            "project": measures(
                self.projected(jax.tree.map(jnp.subtract, self.start, first.gradient))
            ),
        }
        return Call(arguments, numbers, placement.devices((self.start, first.gradient)))

    @functools.cached_property
    def carry(self) -> PyTree:
        """What the first hypergradient is given."""
        return first_carry(self.target, self.start, self.fixed, self.draw(0))

    @functools.cached_property
    def first(self) -> tuple[Hypergradient, Float[Array, ""]]:
        """What the first step finds."""
        return self.find(self.start, self.draw(0), self.carry)

    def find(
        self, hyper: PyTree, key: PRNGKeyArray | None, carry: PyTree
    ) -> tuple[Hypergradient, Float[Array, ""]]:
        """The hypergradient at some hyperparameters, and its norm."""
        return self.target.found(hyper, self.fixed, key, carry)

    def begin(self) -> State:
        return State(
            self.start,
            self.start,
            self.zeros(),
            [],
            self.point(),
            self.carry,
            [],
            np.inf,
            0,
            1.0,
            [],
        )

    def zeros(self) -> PyTree:
        """The sum of no iterates: in float32 at least, or many would add up to rounding."""
        return jax.tree.map(lambda x: jnp.zeros(x.shape, _summing(x.dtype)), self.start)

    def point(self) -> Point:
        """What an accepted point looks like."""
        return Point(self.start, self.start, self.optimizer.init(self.start))

    def advance(self, state: State, step: int) -> State:
        """Evaluates the state's hyperparameters, and makes the next ones."""
        found, norm = self.find(state.hyper, self.draw(step), state.carry) if step else self.first
        value, norm = float(found.value), float(norm)
        recent = recent_values(state.history)
        status = judge(value, norm, recent, state.refuge_values)
        reason = "" if found.status is None else str(found.status)
        record = Record(step, value, norm, state.scale, status, reason)
        history = [*state.history, record]
        if status == "worse for long":
            return self._take_refuge(state, history)
        if status != "accepted":
            return self._turn_back(state, history)
        memory = state.accepted[-1].memory if state.accepted else self.optimizer.init(state.hyper)
        updates, memory = _update(self.optimizer, found.gradient, memory, state.hyper, found.value)
        accepted = [*state.accepted, Point(state.hyper, updates, memory)][-RECENT:]
        if value < state.best_value:
            state = state._replace(best=state.hyper, best_value=value)
        window = [*recent, value][-RECENT:]
        if len(window) == RECENT and is_lower(window, state.refuge_values):
            state = state._replace(refuge=accepted[len(accepted) // 2], refuge_values=window)
        if step >= self.steps * (1 - self.average):
            total = jax.tree.map(lambda s, x: s + x.astype(s.dtype), state.total, state.hyper)
            state = state._replace(total=total, summed=state.summed + 1)
        state = state._replace(carry=found.carry)
        scale = min(1.0, state.scale * RECOVERY)
        hyper = self._move(accepted[-1], scale)
        return state._replace(hyper=hyper, scale=scale, accepted=accepted, history=history)

    def _turn_back(self, state, history):
        if not state.accepted:
            raise ValueError(
                f"The start's value is {history[-1].value} and its hypergradient has norm "
                f"{history[-1].norm}: tuning cannot begin there. Lower the rates, shorten the "
                f"run, or clip the training's own gradients. {history[-1].reason}"
            )
        again = len(history) > 1 and history[-2].status != "accepted"
        accepted = state.accepted[:-1] if again and len(state.accepted) > 1 else state.accepted
        scale = state.scale / 2
        hyper = self._move(accepted[-1], scale)
        return state._replace(hyper=hyper, scale=scale, accepted=accepted, history=history)

    def _take_refuge(self, state, history):
        scale = state.scale / 2
        return state._replace(
            hyper=self._move(state.refuge, scale),
            scale=scale,
            accepted=[state.refuge],
            total=self.zeros(),
            summed=0,
            history=history,
        )

    def _move(self, point, scale):
        return self.projected(jax.tree.map(lambda h, u: h + scale * u, point.hyper, point.updates))

    def projected(self, hyper: PyTree) -> PyTree:
        """The nearest hyperparameters that are allowed."""
        return eqx.filter(self.project(self.whole(hyper)), eqx.is_inexact_array)

    def mean(self, state: State) -> PyTree:
        """The average of the last iterates, projected: that of allowed ones need not be so."""
        average = lambda total, x: (total / state.summed).astype(x.dtype)
        return self.projected(jax.tree.map(average, state.total, self.start))

    def whole(self, hyper: PyTree) -> PyTree:
        """The hyperparameters with those that are not tuned."""
        return eqx.combine(hyper, self.fixed)

    def draw(self, step: int) -> PRNGKeyArray | None:
        """The key of an outer step."""
        return None if self.key is None else jax.random.fold_in(self.key, step)

    def score(self, hyper: PyTree) -> float:
        """The default score for choosing the answer."""
        if self.key is None:
            return float(value_of(self.target, hyper, self.fixed, None))
        draws = [self.draw(self.steps + i) for i in range(HELD_OUT_DRAWS)]
        return float(np.mean([value_of(self.target, hyper, self.fixed, k) for k in draws]))


@programs.compiled
def _update(optimizer, grads, memory, hyper, value):
    return outer_update(optimizer, grads, memory, hyper, value)


def _summing(dtype):
    return dtype if jnp.issubdtype(dtype, jnp.complexfloating) else trees.widest(dtype)


class _Score:
    """The user's score. The start's is taken at once: a mistake in it must not cost a tuning."""

    def __init__(self, choose, start):
        if not callable(choose):
            raise TypeError(f"tune(choose={choose!r}) is not a function hyper -> scalar.")
        self.choose, self.start = choose, start
        self.first = self.take(start)

    def __call__(self, hyper):
        same = zip(*map(jax.tree.leaves, (hyper, self.start)), strict=True)
        return self.first if all(a is b for a, b in same) else self.take(hyper)

    def take(self, hyper):
        score: Any = self.choose(hyper)
        if jnp.shape(score) != () or jnp.iscomplexobj(score):
            raise ValueError(
                f"tune(choose=…) gave {score!r}; one real number, lower for better, is needed."
            )
        return float(score)


def _conclude(loop, state, score, steps) -> TuneResult:
    candidates = {"the start": loop.start, "the best iterate": state.best}
    if loop.key is not None and state.summed:
        candidates[f"the average of the last {state.summed} iterates"] = loop.mean(state)
    if score is None and loop.key is None and not loop.target.is_smoothed:
        name, value = "the best iterate", state.best_value
    else:
        of = loop.score if score is None else lambda hyper: score(loop.whole(hyper))
        scores = {name: of(hyper) for name, hyper in candidates.items()}
        name = min(scores, key=lambda name: np.nan_to_num(scores[name], nan=np.inf))
        value = scores[name]
    undone = sum(r.status != "accepted" for r in state.history)
    message = f"Took {name} of {len(state.history)} steps."
    if undone:
        reason = next((f" One reason: {r.reason}" for r in state.history if r.reason), "")
        message += (
            f" Times it turned back, from NaN or from worse values: {undone}; the smallest rate "
            f"was {min(r.scale for r in state.history):.2g} of the optimizer's."
            f"{reason}"
        )
    if state.scale < SMALLEST_SCALE:
        message += " It ended there: no smaller step helped."
    elif len(state.history) < steps:
        message += " It ended early, on a plateau."
    return TuneResult(loop.whole(candidates[name]), value, state.history, message)


def _with_diagnosis(loop, state, result) -> TuneResult:
    """The result with the diagnosis of the optimizer's first step from the answer. None with a
    smoothed gradient: where training is chaotic, that is the remedy, and a noisy estimate foretells
    no single step."""
    if loop.target.is_smoothed:
        return result
    hyper = eqx.filter(result.hyper, eqx.is_inexact_array)
    try:
        found, _ = loop.find(hyper, loop.draw(loop.steps), state.carry)
        diagnosis = _diagnosed(loop, hyper, found)
    except (RuntimeError, FloatingPointError) as error:  # what a run may raise that is no bug
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return result._replace(message=f"{result.message}\nNo diagnosis: {reason}")
    except Exception as error:
        error.add_note(
            "This came from the diagnosis of tune's answer, which diagnose=False leaves away: "
            f"{result.hyper}, of value {result.value:.6g}."
        )
        raise
    message = f"{result.message}\nAt the answer: {in_one_line(diagnosis)}"
    return result._replace(message=message, diagnosis=diagnosis)


def _diagnosed(loop: _Loop, hyper: PyTree, found: Hypergradient) -> Diagnosis:
    memory = loop.optimizer.init(hyper)
    updates, memory = _update(loop.optimizer, found.gradient, memory, hyper, found.value)
    stride = jax.tree.map(jnp.subtract, loop._move(Point(hyper, updates, memory), 1.0), hyper)
    key = loop.draw(loop.steps)
    return examine(
        loop.target.function,
        Line(loop.whole, hyper, stride),
        found.value,
        found.gradient,
        key,
        value=lambda at: value_of(loop.target, at, loop.fixed, key),
    )

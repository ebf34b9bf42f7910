"""The outer loop: hyperparameters changed along their hypergradient."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from hindgrad import trees
from hindgrad.adjoints import Adjoint
from hindgrad.diagnostics.diagnose import Diagnosis, examine, in_one_line
from hindgrad.tuning.constraints import projection
from hindgrad.tuning.evaluation import Evaluated, value_and_hypergradient, value_of
from hindgrad.tuning.progress import Bar, show_record
from hindgrad.tuning.snapshots import Snapshots
from hindgrad.tuning.state import Point, Record, State, Status, restore, save

FAR = 3.0
"""A value is worse by far if it exceeds the recent ones' median by this many times their spread
and this many times the median's size."""
RECENT = 5
"""How many accepted steps count as recent; also how far back a tuning can turn."""
DECLINE = 0.25
"""Values are worse for long if all the recent ones exceed all those of the best stretch, and their
median exceeds its median by this share of its size."""
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
    steps: int,
    project: Any = None,
    key: PRNGKeyArray | int | None = None,
    adjoint: Adjoint | None = None,
    average: float = 0.5,
    choose: Callable[[PyTree], Any] | None = None,
    patience: int | None = 20,
    checkpoint: str | Path | None = None,
    progress: bool = True,
    diagnose: bool = True,
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
    - `adjoint`: how hypergradients are computed, for an `Objective`. If a run cannot be undone
      by `Reversible()`, its step is turned back from, like one that leads to NaN. Where
      training is chaotic, `Evolution` and `PersistentEvolution` give the gradient of a smoothed
      objective.
    - `average`: the share of the last steps whose hyperparameters are averaged, with a key.
    - `choose`: a function `hyper -> scalar`, lower is better: the score by which the answer is
      chosen among the start, the best iterate and, with a key, the average. Unless given:
      the objective itself; with a key, its mean over five keys not used in tuning.
    - `patience`: stop when the median value of the last `patience` steps is no lower than that of
      as many steps before; None goes on to the end.
    - `checkpoint`: a directory. If the call is killed, the same call goes on from there, and ends
      with the same result to the bit.
    - `progress`: whether to show a progress line.
    - `diagnose`: whether to diagnose the answer at the end, which costs a few runs.

    Raises `ValueError` if the start has no finite value or hypergradient, or if `checkpoint`
    holds another call's state.
    """
    if steps < 1:
        raise ValueError(f"tune(steps={steps}): at least 1 hypergradient is needed.")
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"tune(optimizer={optimizer!r}) is not an optax optimizer. Give one, for instance "
            "optax.adam(0.05)."
        )
    if not 0 <= average <= 1:
        raise ValueError(f"tune(average={average}): a share between 0 and 1 is needed.")
    project = eqx.filter_jit(projection(project))
    key = jax.random.key(key) if isinstance(key, int) else key
    start = project(trees.as_hyper(hyper))
    objective = Evaluated(objective, adjoint)
    loop = _Loop(objective, optimizer, project, start, steps, key, average)
    store = Snapshots(checkpoint, loop.call())
    state = restore(store, loop.begin(), loop.point())
    with Bar(steps, "tuning", shown=progress) as bar:
        while (step := len(state.history)) < steps:
            if _is_plateau(state.history, patience) or state.scale < SMALLEST_SCALE:
                break
            state = loop.advance(state, step)
            save(store, state, now=False)
            show_record(bar, state.history[-1], state.best_value)
    save(store, state, now=True)
    store.close()
    result = _conclude(loop, state, choose, steps)
    return _with_diagnosis(loop, state, result) if diagnose else result


class _Loop:
    """The functions of one tuning, with what stays the same throughout."""

    def __init__(self, objective, optimizer, project, start, steps, key, average):
        self.objective, self.optimizer, self.project = objective, optimizer, project
        self.start, self.fixed = eqx.partition(start, eqx.is_inexact_array)
        if not jax.tree.leaves(self.start):
            raise ValueError("tune was given hyperparameters without a float among them.")
        self.steps, self.key, self.average = steps, key, average

    def call(self) -> dict[str, Any]:
        """What must be the same for an interrupted tuning to go on."""
        key = None if self.key is None else np.asarray(jax.random.key_data(self.key)).tolist()
        leaves = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(self.start)]
        structure = str(jax.tree.structure(self.start))
        return {
            "steps": self.steps,
            "key": key,
            "average": self.average,
            "adjoint": eqx.tree_pformat(self.objective.adjoint, short_arrays=False),
            "hyper": [structure, leaves],
        }

    def begin(self) -> State:
        zeros = jax.tree.map(jnp.zeros_like, self.start)
        point = self.point()
        handed = self.objective.first_guess(self.whole(self.start), self.draw(0))
        return State(self.start, self.start, zeros, [], point, handed, [], np.inf, 0, 1.0, [])

    def point(self) -> Point:
        """What an accepted point looks like."""
        return Point(self.start, self.start, self.optimizer.init(self.start))

    def advance(self, state: State, step: int) -> State:
        """Evaluates the state's hyperparameters, and makes the next ones."""
        found = value_and_hypergradient(
            self.objective, state.hyper, self.fixed, self.draw(step), state.handed
        )
        grads, value, norm = found.grads, float(found.value), float(found.norm)
        recent = _recent(state.history)
        status = _judge(value, norm, recent, state.refuge_values)
        record = Record(
            step, value, norm, state.scale, status, self.objective.describe(found.status)
        )
        history = [*state.history, record]
        if status == "worse for long":
            return self._take_refuge(state, history)
        if status != "accepted":
            return self._turn_back(state, history)
        memory = state.accepted[-1].memory if state.accepted else self.optimizer.init(state.hyper)
        updates, memory = _update(self.optimizer, grads, memory, state.hyper)
        accepted = [*state.accepted, Point(state.hyper, updates, memory)][-RECENT:]
        if value < state.best_value:
            state = state._replace(best=state.hyper, best_value=value)
        window = [*recent, value][-RECENT:]
        if len(window) == RECENT and _is_lower(window, state.refuge_values):
            state = state._replace(refuge=accepted[len(accepted) // 2], refuge_values=window)
        if step >= self.steps * (1 - self.average):
            total = trees.add(state.total, state.hyper)
            state = state._replace(total=total, summed=state.summed + 1)
        state = state._replace(handed=found.handed)
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
        scale, zeros = state.scale / 2, jax.tree.map(jnp.zeros_like, state.total)
        return state._replace(
            hyper=self._move(state.refuge, scale),
            scale=scale,
            accepted=[state.refuge],
            total=zeros,
            summed=0,
            history=history,
        )

    def _move(self, point, scale):
        moved = jax.tree.map(lambda h, u: h + scale * u, point.hyper, point.updates)
        return eqx.filter(self.project(self.whole(moved)), eqx.is_inexact_array)

    def whole(self, hyper: PyTree) -> PyTree:
        """The hyperparameters with those that are not tuned."""
        return eqx.combine(hyper, self.fixed)

    def draw(self, step: int) -> PRNGKeyArray | None:
        """The key of an outer step."""
        return None if self.key is None else jax.random.fold_in(self.key, step)

    def score(self, hyper: PyTree) -> float:
        """The default score for choosing the answer."""
        if self.key is None:
            return float(value_of(self.objective, hyper, self.fixed, None))
        draws = [self.draw(self.steps + i) for i in range(HELD_OUT_DRAWS)]
        return float(np.mean([value_of(self.objective, hyper, self.fixed, k) for k in draws]))


@eqx.filter_jit
def _update(optimizer, grads, memory, hyper):
    return optimizer.update(grads, memory, hyper)


def _recent(history):
    """The latest accepted values, since the tuning last took refuge."""
    values = []
    for record in history:
        if record.status == "worse for long":
            values = []
        elif record.status == "accepted":
            values.append(record.value)
    return values[-RECENT:]


def _is_lower(values, others):
    return not others or np.median(values) < np.median(others)


def _judge(value, norm, recent, refuge_values) -> Status:
    if not (np.isfinite(value) and np.isfinite(norm)):
        return "not finite"
    if not recent:
        return "accepted"
    median, spread = np.median(recent), np.max(recent) - np.min(recent)
    if value - median > FAR * max(abs(median), spread):
        return "worse by far"
    window = [*recent, value][-RECENT:]
    if len(window) < RECENT or not refuge_values or min(window) <= max(refuge_values):
        return "accepted"
    size = abs(np.median(refuge_values))
    declined = np.median(window) - np.median(refuge_values) > DECLINE * size
    return "worse for long" if declined else "accepted"


def _is_plateau(history, patience):
    values = [r.value for r in history if r.status == "accepted"]
    if patience is None or len(values) < 2 * patience:
        return False
    return np.median(values[-patience:]) >= np.median(values[-2 * patience : -patience])


def _conclude(loop, state, choose, steps) -> TuneResult:
    candidates = {"the start": loop.start, "the best iterate": state.best}
    if loop.key is not None and state.summed:
        mean = jax.tree.map(lambda total: total / state.summed, state.total)
        candidates[f"the average of the last {state.summed} iterates"] = mean
    if choose is None and loop.key is None and not loop.objective.is_smoothed:
        name, value = "the best iterate", state.best_value
    else:
        score = loop.score if choose is None else lambda h: float(choose(loop.whole(h)))
        scores = {name: score(hyper) for name, hyper in candidates.items()}
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
    diagnosis = _diagnosed(loop, state, eqx.filter(result.hyper, eqx.is_inexact_array))
    if diagnosis is None:
        return result
    message = f"{result.message}\nAt the answer: {in_one_line(diagnosis)}"
    return result._replace(message=message, diagnosis=diagnosis)


def _diagnosed(loop: _Loop, state: State, hyper: PyTree) -> Diagnosis | None:
    """The diagnosis of the optimizer's first step from the answer, by the programs that tuning
    has compiled and one more. None with a smoothed gradient: where training is chaotic, that is
    the remedy, and a noisy estimate foretells no single step."""
    if loop.objective.is_smoothed:
        return None
    key = loop.draw(loop.steps)
    evaluate = lambda at: value_and_hypergradient(loop.objective, at, loop.fixed, key, state.handed)
    try:
        grads = evaluate(hyper).grads
        updates, memory = _update(loop.optimizer, grads, loop.optimizer.init(hyper), hyper)
        stride = jax.tree.map(jnp.subtract, loop._move(Point(hyper, updates, memory), 1.0), hyper)
        return examine(
            loop.objective.objective,
            (loop.whole, hyper, stride),
            grads,
            key,
            value=lambda at: evaluate(at).value,
        )
    except Exception:  # whatever a run may raise: the answer is there, and must not be lost
        return None

"""What must hold of every training, and what is refused instead."""

import re
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import hindgrad as hg
from tests.fuzz import library, reference
from tests.fuzz.case import Case
from tests.fuzz.trainings import draw

WAYS = {"grad": 0.3, "jit": 0.3, "vmap": 0.2, "second": 0.2}
"""The transformations, and how often each comes; "tangent" is for `Forward` alone."""


class Check(NamedTuple):
    """A property: the derivatives of a training through an adjoint, under a transformation."""

    adjoint: Any
    way: str
    window: int | None = None
    """How many steps are differentiated, if not all."""

    def __str__(self):
        return f"{self.way} through {self.adjoint}"


class Refusal(NamedTuple):
    """An error that is right, where the library has no right number to give."""

    when: Callable[[Case, Check], bool]
    error: type[Exception] | tuple[type[Exception], ...]
    message: str


def _backwards(case, check):
    return isinstance(check.adjoint, hg.Reversible)


REFUSALS = [
    Refusal(  # an update that is not made of moves, or of ones that cannot be undone
        lambda case, check: (
            _backwards(case, check) and (case.entry == "unrolled" or not case.optimizer.reversible)
        ),
        ValueError,
        r"Reversible\(\) can.* Use Checkpointed",
    ),
    Refusal(  # its arithmetic rounds, so that a second derivative would be wrong
        lambda case, check: _backwards(case, check) and check.way == "second",
        ValueError,
        r"Reversible\(\) gives first derivatives only",
    ),
    Refusal(  # JAX has no forward mode for it, where only hyperparameters enter it
        lambda case, check: isinstance(check.adjoint, hg.Forward) and case.has_only_reverse_rules,
        (ValueError, TypeError),  # the latter is JAX's own, within the user's jit
        r"a rule for the reverse mode only|can't apply forward-mode autodiff",
    ),
    Refusal(  # the window does not reach back to the start
        lambda case, check: check.window is not None and case.start_is_differentiated,
        ValueError,
        r"Truncated\(steps=\d+\) was asked for .* initial state",
    ),
]
NO_DERIVATIVE = "The derivative of the optax update is not finite"
"""What is said, as a `RuntimeError`, where the right derivative does not exist."""
NOT_HOME = "Reversible: running backwards did not lead to the initial value"
"""What is said where a run cannot be undone to the bit."""
ROUNDED_OTHERWISE = {"remat saving dots", "reverse scan"}
"""The operations for which that is known to happen."""


def checks(case: Case, rng: np.random.Generator, count: int) -> list[Check]:
    """Some properties of a training."""
    return [_check(case, rng) for _ in range(count)]


def _check(case, rng):
    steps = case.steps
    slots = sorted({1, 2, max(1, steps - 1), int(rng.integers(1, steps + 1))})
    adjoints = [
        None,
        hg.Stored(),
        hg.Checkpointed(slots=int(rng.choice(slots))),
        hg.Forward(block=None if rng.random() < 0.7 else 2),
        hg.Truncated(steps + int(rng.integers(2)), hg.Checkpointed(slots=2)),
    ]
    adjoints += [hg.Reversible(min_decay=0.05)] * (2 if case.optimizer.reversible else 1)
    window = int(rng.integers(1, steps)) if steps > 1 and case.entry != "resumed" else None
    if window is not None:
        adjoints.append(hg.Truncated(window, hg.Stored()))
    chosen = adjoints[rng.integers(len(adjoints))]
    way = str(rng.choice(list(WAYS), p=list(WAYS.values())))
    if way == "second" and case.coarse:
        way = "jit"
    if isinstance(chosen, hg.Forward) and chosen.block is None and way == "grad":
        way = "tangent"
    is_window = isinstance(chosen, hg.Truncated) and chosen.steps < steps
    return Check(chosen, way, window if is_window else None)


class Judge:
    """Compares the library with the reference, which is computed once for each case."""

    def __init__(self, case: Case):
        self.case = case
        self.programs = {}
        self.rng = np.random.default_rng([case.seed, 1])
        move = lambda x, scale: x * (1 + scale * self.rng.normal(size=np.shape(x)))
        dtype = np.float64 if case.x64 else np.float32
        place = lambda scale: jax.tree.map(lambda x: dtype(move(x, scale)), case.hypers.values)
        self.lanes = [place(0.0), place(0.02)]
        self.along = jax.tree.map(lambda x: self.rng.normal(size=np.shape(x)), self.lanes[0])

    def verdict(self, check: Check) -> tuple[str, str]:
        """("right" | "refused" | "skipped" | "wrong", details)."""
        refusals = [r for r in REFUSALS if r.when(self.case, check)]
        try:
            with jax.enable_x64(self.case.x64):
                got = jax.tree.map(np.asarray, self._got(check))
        except Exception as error:
            return self._refused(error, refusals, check)
        wanted = self._wanted(check)
        if not _finite(wanted):
            return "skipped", "the right answer is not finite"
        allowed = 1e-6 if _backwards(self.case, check) else 1e-8
        if check.way == "second":
            allowed *= 100
        floor = 1e-6 if self.case.coarse else 1e-11
        error = reference.distance(got, wanted, floor)
        if check.way == "second" and not error <= allowed:
            wanted = self._second(check.window)
            error = reference.distance(got, wanted, floor)
        if not error <= allowed:  # is it the rounding?
            allowed += self._rounding(check, wanted)
        if not allowed < 0.3:
            return "skipped", "ill-conditioned"
        if error <= allowed:
            return "right", f"error {error:.1e}"
        return "wrong", f"error {error:.1e} above {allowed:.1e}: {got}, right {wanted}"

    def _refused(self, error, refusals, check):
        text = str(error)
        for refusal in refusals:
            if isinstance(error, refusal.error) and re.search(refusal.message, text, re.DOTALL):
                return "refused", refusal.message
        if isinstance(error, RuntimeError) and re.search(NO_DERIVATIVE, text):
            wanted = self._wanted(check)
            if not _finite(wanted):
                return "refused", "the right answer is not finite"
        if self._rounds_otherwise(check) and NOT_HOME in text:
            return "refused", NOT_HOME
        last = traceback.extract_tb(error.__traceback__)[-1]
        return "wrong", f"{type(error).__name__} at {last.filename}:{last.lineno}: {text[:300]!r}"

    def _rounds_otherwise(self, check):
        """Whether the compiler may compute a step with other bits on the way back. It is told, and
        refused; no number is wrong."""
        names = {name for name, _ in self.case.operations}
        return _backwards(self.case, check) and bool(names & ROUNDED_OTHERWISE)

    def _rounding(self, check, wanted):
        """How far rounding may bring a right answer."""
        if self.case.coarse:
            same = self._wanted(check, wide=False)
            return 1e-3 + 30 * reference.distance(same, wanted, 1e-6)
        lanes = self.lanes
        move = lambda x: x * (1 + 1e-12 * self.rng.normal(size=np.shape(x)))
        self.lanes = jax.tree.map(move, lanes)
        near = self._wanted(check)
        self.lanes = lanes
        return reference.distance(near, wanted, 1e-11) / 10

    def _got(self, check):
        """The library's answer."""
        function = library.score(self.case, check.adjoint)
        evaluate = jax.value_and_grad(function)
        here = self._given(0)
        if check.way == "grad":
            floats = jax.tree.map(lambda x: float(x) if x.ndim == 0 else x, here)
            return evaluate(floats)
        if check.way == "jit":
            return jax.jit(evaluate)(here)
        if check.way == "vmap":
            both = jax.tree.map(lambda *xs: jnp.stack(xs), here, self._given(1))
            return jax.jit(jax.vmap(evaluate))(both)
        along = self.case.hyper(self.along, wide=False)
        if check.way == "tangent":
            return jax.jit(lambda h: jax.jvp(function, (h,), (along,)))(here)
        return jax.jit(lambda h: self._along(jax.grad(function), h, along))(here)

    def _along(self, gradient, hyper, along):
        """The derivative of the gradient along a direction, forwards or in reverse. (Where rules
        are not derivatives, these differ: the second derivative is not symmetric.)"""
        if self.case.seed % 2:
            return jax.jvp(gradient, (hyper,), (along,))[1]
        return jax.grad(lambda h: _dot(gradient(h), along))(hyper)

    def _given(self, lane):
        return self.case.hyper(self.lanes[lane], wide=False)

    def _wanted(self, check, wide=True):
        """The reference's answer."""
        at = lambda lane: self._reference(lane, wide, check.window)
        if check.way == "vmap":
            return jax.tree.map(lambda *xs: np.stack(xs), at(self.lanes[0]), at(self.lanes[1]))
        if check.way == "tangent":
            value, gradient = at(self.lanes[0])
            return value, np.asarray(_dot(gradient, self.along, np.vdot))
        if check.way != "second":
            return at(self.lanes[0])
        step = 1e-5
        move = lambda sign: jax.tree.map(
            lambda x, d: x + sign * step * d, self.lanes[0], self.along
        )
        plus, minus = at(move(1))[1], at(move(-1))[1]
        return jax.tree.map(lambda a, b: (a - b) / (2 * step), plus, minus)

    def _reference(self, hyper, wide, window):
        with jax.enable_x64(wide or self.case.x64):
            function = lambda h: reference.score(self.case, h, wide=wide, window=window)
            hyper = self.case.hyper(hyper, wide)
            key = wide, window
            if key not in self.programs:
                self.programs[key] = jax.jit(jax.value_and_grad(function))
            return jax.tree.map(np.asarray, self.programs[key](hyper))

    def _second(self, window):
        """The second derivative along the direction, without differences."""
        with jax.enable_x64(True):
            score = partial(reference.score, self.case, wide=True, window=window, unrolled=True)
            gradient = jax.grad(score)
            at, along = (jax.tree.map(jnp.asarray, x) for x in (self.lanes[0], self.along))
            second = jax.jit(lambda h: self._along(gradient, h, along))(at)
            return jax.tree.map(np.asarray, second)


def _dot(a, b, vdot=jnp.vdot):
    return sum(vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def _finite(tree):
    return all(np.all(np.isfinite(x)) for x in jax.tree.leaves(tree))


def judged(seed: int, count: int) -> list[tuple[Check, str, str]]:
    """The verdicts on some properties of the training of this number."""
    case = draw(seed)
    judge = Judge(case)
    chosen = checks(case, np.random.default_rng([seed, 2]), count)
    return [(check, *judge.verdict(check)) for check in chosen]


def report(seed: int) -> str:
    """The training, and the verdict on it; of a wrong one, the smallest part that is wrong."""
    (check, verdict, text), *_ = judged(seed, count=1)
    lines = [str(draw(seed)), f"{check}: {verdict}, {text}"]
    if verdict == "wrong":
        case = _smallest(draw(seed), check)
        lines += ["", "smallest part:", str(case), Judge(case).verdict(check)[1]]
    return "\n".join(lines)


def _smallest(case, check):
    """The case with all taken away without which it is wrong still."""
    for smaller in _smaller(case):
        if Judge(smaller).verdict(check)[0] == "wrong":
            return _smallest(smaller, check)
    return case


def _smaller(case):
    operations = case.operations
    for i in range(len(operations)):
        yield replace(case, operations=operations[:i] + operations[i + 1 :])
    for name in ("entry", "batching", "start_kind", "precision"):
        simple = {"entry": "training", "batching": "own"}
        simple |= {"start_kind": "constant", "precision": "double"}
        if getattr(case, name) != simple[name]:
            yield replace(case, **{name: simple[name]})
    if case.closed:
        yield replace(case, closed=[])

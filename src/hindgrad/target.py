"""What is tuned, and how its hypergradients are taken."""

import abc
import hashlib
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from hindgrad import programs, trees
from hindgrad.adjoints import Adjoint
from hindgrad.adjoints.antithetic import Estimator
from hindgrad.adjoints.base import Hypergradient
from hindgrad.adjoints.failures import Status
from hindgrad.arguments import as_key
from hindgrad.checkpoint import contents
from hindgrad.errors import RunError, SourceError
from hindgrad.objective import Objective, Reparametrised
from hindgrad.progress import Bar
from hindgrad.segments.hypergradient import hypergradient as segmented
from hindgrad.streams.stream import Stream
from hindgrad.training import Training, as_adjoint

LONG = 100_000
"""Steps from which on a run is differentiated in segments."""
OWN = re.compile("(first|later)-[0-9a-f]{16}")
"""The folders of hypergradients in a checkpoint."""


class Target(eqx.Module):
    """A function to be lowered, with its hypergradient."""

    function: eqx.AbstractVar[Any]

    @property
    @abc.abstractmethod
    def is_smoothed(self) -> bool:
        """Whether hypergradients are estimates for a smoothed objective. An outer step's value may
        then come from several runs: the answer's is that of a run of its own."""

    def value(self, hyper: PyTree, key: PRNGKeyArray | None) -> Float[Array, ""]:
        """The function alone."""
        return self.function(hyper, *(() if key is None else (key,)))

    @abc.abstractmethod
    def hypergradient(
        self, hyper: PyTree, key: PRNGKeyArray | None, carry: PyTree
    ) -> Hypergradient:
        """By the floats in `hyper`."""

    def beside(self, bar: Bar) -> AbstractContextManager[None]:
        """In which `found` is called while a bar is shown."""
        del bar
        return nullcontext()

    def found(
        self, hyper: PyTree, fixed: PyTree, key: PRNGKeyArray | None, carry: PyTree
    ) -> tuple[Hypergradient, Float[Array, ""]]:
        """The hypergradient at the floats `hyper` and what is not tuned, and its norm."""
        return _found(self, hyper, fixed, key, carry)

    @abc.abstractmethod
    def first_carry(self, hyper: PyTree, key: PRNGKeyArray | None) -> PyTree:
        """What the first hypergradient is given."""


class OfFunction(Target):
    """Any function that `jax.grad` can differentiate."""

    function: Callable[..., Any]

    @property
    def is_smoothed(self):
        return False

    def hypergradient(self, hyper, key, carry):
        del carry
        value = lambda hyper: self.value(hyper, key)
        return Hypergradient(*eqx.filter_value_and_grad(value)(hyper))

    def first_carry(self, hyper, key):
        del hyper, key


class OfObjective(Target):
    """An `Objective`, or a function of one, differentiated by an adjoint."""

    function: Objective | Reparametrised
    adjoint: Adjoint

    @property
    def is_smoothed(self):
        return isinstance(self.adjoint, Estimator)

    def hypergradient(self, hyper, key, carry):
        objective, pulled = _taken_apart(self.function)
        options = {"adjoint": self.adjoint, "carry": carry}
        return pulled(hyper, lambda hyper: objective.hypergradient(hyper, key, **options))

    def first_carry(self, hyper, key):
        if isinstance(self.function, Reparametrised):
            hyper = self.function.before(hyper)
        objective, _ = _taken_apart(self.function)
        run = objective.scored(as_key("Objective", 0 if key is None else key))
        return self.adjoint.first_carry(run, trees.as_hyper(hyper))


class InSegments(Target):
    """An `Objective` whose run is long, or whose batches are a stream, differentiated segment by
    segment. With a directory, each hypergradient's segments are kept there; with `progress`, each
    has a line of its own."""

    function: Objective | Reparametrised
    adjoint: Adjoint
    directory: str | Path | None
    progress: bool | None

    @property
    def is_smoothed(self):
        return False

    def hypergradient(self, hyper, key, carry):
        del carry
        objective, pulled = _taken_apart(self.function)
        in_segments = lambda hyper: segmented(
            objective,
            hyper,
            key,
            adjoint=self.adjoint,
            checkpoint=self._own_directory(hyper, key),
            progress=self.progress,
        )
        return pulled(hyper, in_segments)

    def first_carry(self, hyper, key):
        del hyper, key

    def beside(self, bar):
        return bar.paused()

    def found(self, hyper, fixed, key, carry):
        hyper = eqx.combine(hyper, fixed)
        try:
            found = self.hypergradient(hyper, key, carry)
        except SourceError:  # no fault of these hyperparameters
            raise
        except RunError as error:
            nan = lambda x: jnp.full_like(x, jnp.nan)
            gradient = jax.tree.map(nan, eqx.filter(hyper, eqx.is_inexact_array))
            text = str(error)
            status = Status(jnp.ones(3), lambda _: text)
            found = Hypergradient(jnp.full((), jnp.nan), gradient, status=status)
        return found, trees.norm(found.gradient)

    def _own_directory(self, hyper, key):
        """One for these hyperparameters. Where it is new, those of others go, but for the first
        of all: a call that goes on asks for the start once more."""
        if self.directory is None:
            return None
        given = "\n".join([*contents(hyper), *contents(key)])
        digest = hashlib.sha256(given.encode()).hexdigest()[:16]
        folder = Path(self.directory) / "hypergradients"
        kept = sorted(path for path in folder.glob("*") if OWN.fullmatch(path.name))
        for path in kept:
            if path.name.endswith(digest):
                return path
        for path in kept:
            if not path.name.startswith("first-"):
                shutil.rmtree(path)
        return folder / f"{'later' if kept else 'first'}-{digest}"


def _taken_apart(function):
    """The objective in a function of one, and how its hypergradient becomes the function's."""
    if isinstance(function, Reparametrised):
        return function.objective, function.pulled
    return function, lambda hyper, hypergradient: hypergradient(hyper)


def _is_long(function, adjoint):
    """Whether an objective's hypergradients are taken in segments."""
    training = _taken_apart(function)[0].training
    training = training if isinstance(training, Training) else training(jax.random.key(0))
    if training.steps < LONG and not isinstance(training.batches, Stream):
        return False
    return adjoint.pieces(training.steps) is not None


def as_target(
    caller: str,
    objective: Callable[..., Any],
    adjoint: Adjoint | None,
    checkpoint: str | Path | None = None,
    progress: bool | None = False,
) -> Target:
    """What `caller` was asked to lower; a long run's segments are kept beneath `checkpoint`, and
    have a line of their own with `progress`.

    Raises `TypeError` if a function is given an adjoint.
    """
    checked = as_adjoint(adjoint)
    if isinstance(objective, Objective | Reparametrised):
        if _is_long(objective, checked):
            return InSegments(objective, checked, checkpoint, progress)
        if adjoint is not None or isinstance(objective, Objective):
            return OfObjective(objective, checked)
    if adjoint is not None:
        raise TypeError(
            f"{caller}(adjoint=…) needs an Objective; a function chooses its runs' adjoint itself."
        )
    return OfFunction(objective)


@programs.compiled
def value_of(target: Target, hyper: PyTree, fixed: PyTree, key: PRNGKeyArray | None):
    """The value at the floats `hyper` and what is not tuned."""
    return target.value(eqx.combine(hyper, fixed), key)


@programs.compiled
def _found(target, hyper, fixed, key, carry):
    found = target.hypergradient(eqx.combine(hyper, fixed), key, carry)
    return found, trees.norm(found.gradient)


@programs.compiled
def first_carry(target: Target, hyper: PyTree, fixed: PyTree, key: PRNGKeyArray | None) -> PyTree:
    """What the first hypergradient is given."""
    return target.first_carry(eqx.combine(hyper, fixed), key)

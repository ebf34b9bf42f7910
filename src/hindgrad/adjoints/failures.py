"""What happens when a hypergradient cannot be had: an error, a warning, or NaN and a status."""

import abc
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from hindgrad import errors


class Failure(eqx.Module):
    """What to do when an adjoint failed."""

    status: eqx.AbstractVar[Float[Array, " 3"] | None]

    @abc.abstractmethod
    def handle(
        self,
        results: PyTree,
        failed: Bool[Array, ""],
        index: Int[Array, ""],
        messages: Sequence[str],
    ) -> PyTree:
        """The results, if all is well; `messages[index]` says what is not."""


class Status(eqx.Module):
    """Whether a hypergradient could be had; as a string the reason why not, empty if it could."""

    numbers: Float[Array, " 3"]
    """As `Report` gives them: the first is 0 if all is well."""
    words: Callable[[Array], str] = eqx.field(static=True)

    def __str__(self):
        return self.words(self.numbers)


def reported(
    adjoint: Any, run: Callable[..., Any], hyper: PyTree
) -> tuple[Float[Array, ""], PyTree, Status | None]:
    """`run(hyper, adjoint)`, its derivative by the floats in `hyper`, and the status: NaN where
    the adjoint would raise."""
    is_raised = isinstance(adjoint.failure, Raise)

    def score(inputs):
        hyper, numbers = inputs
        failure = Report(numbers) if is_raised else adjoint.failure
        return run(hyper, eqx.tree_at(lambda a: a.failure, adjoint, failure, is_leaf=_is_failure))

    value, (gradient, numbers) = eqx.filter_value_and_grad(score)((hyper, jnp.zeros(3)))
    return value, gradient, Status(numbers, adjoint.describe) if is_raised else None


def _is_failure(x):
    return isinstance(x, Failure)


class Raise(Failure):
    """Raises `RuntimeError`, which says what went wrong, where, and what to do."""

    status: None = None  # pyright: ignore[reportIncompatibleVariableOverride]

    def handle(self, results, failed, index, messages):
        return errors.raise_if(results, failed, index, messages)


class Warn(Failure):
    """Warns (`UserWarning`) and goes on, for `Implicit`, whose answer may be near enough. The
    warning comes while the program runs; `jax.effects_barrier()` waits for it."""

    status: None = None  # pyright: ignore[reportIncompatibleVariableOverride]

    def handle(self, results, failed, index, messages):
        def tell(failed, index):
            if failed:
                warnings.warn(messages[int(index)], stacklevel=1)

        jax.debug.callback(tell, failed, index)
        return results


class Report(Failure):
    """Returns NaN, for what must recover. The derivative with respect to `status`, three zeros,
    tells why; its first number is 0 if all is well.

        def value(hyper, status):
            return objective(hyper, adjoint=hg.Reversible(failure=hg.failures.Report(status)))

        value, (hypergradient, status) = jax.value_and_grad(value, (0, 1))(hyper, jnp.zeros(3))

    `Reversible` gives (cause, number of the leaf, step), `Implicit` (cause, residual,
    stationarity); the adjoint's `describe(status)` puts it into words.
    """

    status: Float[Array, " 3"] | None = None

    def handle(self, results, failed, index, messages):
        del index, messages
        nan = jnp.where(failed, jnp.nan, 0.0)
        add = lambda x: x + nan.astype(x.dtype) if eqx.is_inexact_array(x) else x
        return jax.tree.map(add, results)

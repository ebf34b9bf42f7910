"""What a schedule is."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from hindgrad.arguments import Whole


class Schedule(eqx.Module):
    """A value for each step of a run, from a few numbers: hyperparameters in arrays with a row for
    each number, in whatever pytree `init` or `fit` was given."""

    steps: eqx.AbstractVar[int]

    @property
    @abc.abstractmethod
    def rows(self) -> int:
        """How many numbers it has."""

    @abc.abstractmethod
    def value(
        self, numbers: Float[Array, "rows *shape"], t: Int[Array, ""]
    ) -> Float[Array, "*shape"]:
        """The value at step `t` (0 … steps − 1)."""

    def values(self, numbers: PyTree) -> PyTree:
        """The values at all steps, in arrays with a row for each: to look at."""
        return jax.vmap(self, in_axes=(None, 0))(numbers, jnp.arange(self.steps))

    def __call__(self, numbers: PyTree, t: Int[Array, "..."] | Whole) -> PyTree:
        """The value at step `t`, in the structure that was given to `init`.

        Raises `ValueError` if an array of `numbers` has another number of rows, or `t` is not one
        step.
        """
        name, t = type(self).__name__, jnp.asarray(t)
        if t.shape:
            raise ValueError(
                f"A {name} schedule was asked for steps of shape {t.shape}; it takes one step. "
                "values(numbers) gives all of them."
            )
        t = jnp.clip(t, 0, self.steps - 1).astype(jnp.int32)

        def value(leaf):
            leaf = jnp.asarray(leaf)
            if not jnp.issubdtype(leaf.dtype, jnp.inexact):
                leaf = leaf.astype(float)
            if leaf.shape[:1] != (self.rows,):
                raise ValueError(
                    f"A {name} schedule of {self.rows} numbers was given an array of shape "
                    f"{leaf.shape}; init makes them, with a row for each number."
                )
            return self.value(leaf, t)

        return jax.tree.map(value, numbers)


def as_int(number):
    """NumPy's whole numbers as Python's."""
    return int(number) if isinstance(number, np.integer) else number


def check_rows(values: Float[Array, "..."], steps: int) -> None:
    """Raises `ValueError` if known values have not a row for each step."""
    if values.shape[:1] != (steps,):
        raise ValueError(
            f"fit was given values of shape {values.shape}; a row for each of the {steps} steps is "
            "needed. For known numbers there is init."
        )

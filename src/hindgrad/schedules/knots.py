"""Schedules whose numbers are at knots along the run."""

import abc
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from hindgrad.arguments import as_whole
from hindgrad.schedules.base import Schedule, as_int, check_rows
from hindgrad.schedules.ranges import Positive, Range, free_numbers


class KnotSchedule(Schedule):
    """A schedule whose numbers are at knots along the run.

    **Arguments:**

    - `knots`: how many numbers (at least 1; a spline has at least 2).
    - `steps`: the length of the run. A longer run keeps the last step's value to its end.
    - `range`: which values it takes: `Positive()`, `Between(low, high)` or `Real()`.

    Raises `ValueError` if `knots` or `steps` is too small or not a whole number.
    """

    knots: int = eqx.field(static=True, converter=as_int)
    steps: int = eqx.field(static=True, converter=as_int)
    range: Range = Positive()
    least: ClassVar[int] = 1

    def __check_init__(self):
        name = type(self).__name__
        as_whole(name, "knots", self.knots, least=self.least)
        as_whole(name, "steps", self.steps)
        if not isinstance(self.range, Range):
            raise TypeError(f"{name}(range={self.range!r}): a range is needed, such as Positive().")

    @abc.abstractmethod
    def at(self, free: Float[Array, "knots *shape"], t: Int[Array, ""]) -> Float[Array, "*shape"]:
        """The free number at step `t` (0 … steps − 1), of those at the knots."""

    @property
    def rows(self):
        return self.knots

    def value(self, numbers, t):
        return self.range.value(self.at(numbers, t))

    def init(self, value: PyTree) -> PyTree:
        """The numbers of a schedule that stays at `value`: a float or an array, or a pytree of
        them, one schedule for each layer, leaf or element.

        Raises `ValueError` if a value is not within the range.

        >>> hg.schedules.Linear(knots=3, steps=100).init({"w": 1.0, "b": 1.0})["w"].tolist()
        [0.0, 0.0, 0.0]
        """

        def constant(leaf):
            free = free_numbers(self.range, leaf)
            return jnp.broadcast_to(free, (self.knots, *free.shape))

        return jax.tree.map(constant, value)

    def fit(self, values: PyTree) -> PyTree:
        """The numbers of the schedule that comes nearest to known values, to begin with those: an
        array with a row for each step, or a pytree of them. Nearest in the free scale, by least
        squares.

        Raises `ValueError` if there is not a row for each step, or a value is not within the range.

        >>> schedule = hg.schedules.Linear(knots=2, steps=100)
        >>> known = 0.1 * 0.97 ** jnp.arange(100)
        >>> [round(float(rate), 4) for rate in schedule.values(schedule.fit(known))[::33]]
        [0.1, 0.0366, 0.0134, 0.0049]
        """
        weights = jax.vmap(lambda t: self.at(jnp.eye(self.knots), t))(jnp.arange(self.steps))

        def nearest(leaf):
            free = free_numbers(self.range, leaf)
            check_rows(free, self.steps)
            found = jnp.linalg.lstsq(weights, free.reshape(self.steps, -1))[0]
            return found.reshape(self.knots, *free.shape[1:])

        return jax.tree.map(nearest, values)


class Piecewise(KnotSchedule):
    """Constant within each of `knots` equal windows of the run. Steps that share a number share a
    tangent: with it, `Forward()` learns schedules over long runs (Micaelli & Storkey 2021).

    >>> schedule = hg.schedules.Piecewise(knots=2, steps=5, range=hg.schedules.Real())
    >>> [float(schedule(jnp.array([3.0, 1.0]), t)) for t in range(5)]
    [3.0, 3.0, 3.0, 1.0, 1.0]
    """

    def at(self, free, t):
        begins = np.ceil(np.arange(1, self.knots) * self.steps / self.knots).astype(np.int32)
        return free[jnp.searchsorted(jnp.asarray(begins), t, side="right")]


class Linear(KnotSchedule):
    """Straight lines, in the free scale, from knot to knot; the first is at step 0, the last at
    the last step.

    >>> schedule = hg.schedules.Linear(knots=2, steps=5, range=hg.schedules.Real())
    >>> [float(schedule(jnp.array([3.0, 1.0]), t)) for t in range(5)]
    [3.0, 2.5, 2.0, 1.5, 1.0]
    """

    def at(self, free, t):
        return _mean(
            jnp.maximum(0, 1 - jnp.abs(_place(self, t) - jnp.arange(0.0, self.knots))), free
        )


class Spline(KnotSchedule):
    """A natural cubic spline, in the free scale, through the knots, which are placed like those
    of `Linear`: smooth, with continuous second derivatives (de Boor 1978, chapter IX)."""

    least: ClassVar[int] = 2

    def at(self, free, t):
        bumps = _bump(_place(self, t) - jnp.arange(-1.0, self.knots + 1))
        return _mean(bumps @ jnp.asarray(_natural(self.knots), bumps.dtype), free)


def _place(schedule: KnotSchedule, t: Int[Array, ""]) -> Float[Array, ""]:
    """Where step `t` lies, counted in knots."""
    return t.astype(float) * ((schedule.knots - 1) / max(schedule.steps - 1, 1))


def _mean(weights: Float[Array, " knots"], free: Float[Array, "knots *shape"]):
    # In the numbers' own precision, so that nothing promotes a float32 run to float64.
    return jnp.tensordot(weights.astype(free.dtype), free, axes=1)


def _bump(x: Float[Array, " places"]) -> Float[Array, " places"]:
    """The cubic B-spline with knots at −2, −1, 0, 1, 2."""
    x = jnp.abs(x)
    inner, outer = 2 / 3 - x**2 + x**3 / 2, (2 - x) ** 3 / 6
    return jnp.where(x < 1, inner, jnp.where(x < 2, outer, 0))


def _natural(knots: int) -> Float[np.ndarray, "bumps knots"]:
    """The B-spline coefficients of the natural splines that are 1 at one knot, 0 at the others."""
    system, values = np.zeros((knots + 2, knots + 2)), np.zeros((knots + 2, knots))
    for i in range(knots):
        system[i, i : i + 3] = 1 / 6, 2 / 3, 1 / 6
        values[i, i] = 1
    system[knots, :3] = system[knots + 1, -3:] = 1, -2, 1  # no curvature at the ends
    return np.linalg.solve(system, values)

"""Schedules: few numbers that say how a rate or a decay changes over a run.

    rate = hg.schedules.Spline(knots=8, steps=1000)
    decay = hg.schedules.Linear(knots=4, steps=1000, range=hg.schedules.Between(0.5, 0.99))
    hyper = {"rate": rate.init({"w": 0.1, "b": 0.2}), "decay": decay.init(0.9)}
    optimizer = hg.Momentum(lambda h, t: rate(h["rate"], t), lambda h, t: decay(h["decay"], t))

A schedule has no numbers of its own: they are hyperparameters, made by `init` or `fit` and tuned
like any others, each in a free scale in which every real number is allowed.
"""

import abc
from numbers import Integral

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree


class Range(eqx.Module):
    """The values that a schedule takes, as a smooth and rising function of a free number."""

    @abc.abstractmethod
    def value(self, free: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The value at a free number."""

    @abc.abstractmethod
    def free(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The inverse of `value`; not finite outside of the range."""


class Real(Range):
    """Any number: the free number itself."""

    def value(self, free):
        return free

    def free(self, value):
        return value


class Positive(Range):
    """Numbers above 0: exp of the free number. For rates."""

    def value(self, free):
        return jnp.exp(free)

    def free(self, value):
        return jnp.log(value)


class Between(Range):
    """Numbers between two bounds, which are reached by rounding only: `low + (high − low)
    sigmoid(free)`. For decays; `Reversible(min_decay=low)` then always has room."""

    low: float = eqx.field(default=0.0, static=True, converter=float)
    high: float = eqx.field(default=1.0, static=True, converter=float)

    def __check_init__(self):
        if not -np.inf < self.low < self.high < np.inf:
            raise ValueError(
                f"Between({self.low}, {self.high}): two finite bounds are needed, the lower first."
            )

    def value(self, free):
        return self.low + (self.high - self.low) * jax.nn.sigmoid(free)

    def free(self, value):
        return jnp.log((value - self.low) / (self.high - value))


def _as_int(number):
    """NumPy's whole numbers as Python's."""
    return int(number) if isinstance(number, Integral) else number


class Schedule(eqx.Module):
    """A value for each step of a run, from a few numbers at knots along it.

    **Arguments:**

    - `knots`: how many numbers (at least 1; a spline has at least 2).
    - `steps`: the length of the run. A longer run keeps the last step's value to its end.
    - `range`: which values it takes: `Positive()`, `Between(low, high)` or `Real()`.

    Raises `ValueError` if `knots` or `steps` is too small or not a whole number.
    """

    knots: eqx.AbstractVar[int]
    steps: eqx.AbstractVar[int]
    range: eqx.AbstractVar[Range]

    @abc.abstractmethod
    def at(self, free: Float[Array, "knots *shape"], t: Int[Array, ""]) -> Float[Array, "*shape"]:
        """The free number at step `t` (0 … steps − 1), of those at the knots."""

    def init(self, value: PyTree) -> PyTree:
        """The numbers of a schedule that stays at `value`: a float or an array, or a pytree of
        them, one schedule for each layer, leaf or element.

        Raises `ValueError` if a value is not within the range.

        >>> hg.schedules.Linear(knots=3, steps=100).init({"w": 1.0, "b": 1.0})["w"].tolist()
        [0.0, 0.0, 0.0]
        """

        def constant(leaf):
            free = self._free(leaf)
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
            free = self._free(leaf)
            if free.shape[:1] != (self.steps,):
                raise ValueError(
                    f"fit was given values of shape {free.shape}; a row for each of the "
                    f"{self.steps} steps is needed. For one value at all steps there is init."
                )
            found = jnp.linalg.lstsq(weights, free.reshape(self.steps, -1))[0]
            return found.reshape(self.knots, *free.shape[1:])

        return jax.tree.map(nearest, values)

    def values(self, numbers: PyTree) -> PyTree:
        """The values at all steps, in arrays with a row for each: to look at."""
        return jax.vmap(self, in_axes=(None, 0))(numbers, jnp.arange(self.steps))

    def __call__(self, numbers: PyTree, t: Int[Array, "..."] | int) -> PyTree:
        """The value at step `t`, in the structure that was given to `init`.

        Raises `ValueError` if an array of `numbers` has not a row for each knot, or `t` is not one
        step.
        """

        t = jnp.asarray(t)
        if t.shape:
            raise ValueError(
                f"A {type(self).__name__} schedule was asked for steps of shape {t.shape}; it "
                "takes one step. values(numbers) gives all of them."
            )
        t = jnp.clip(t, 0, self.steps - 1)

        def value(leaf):
            leaf = jnp.asarray(leaf)
            if not jnp.issubdtype(leaf.dtype, jnp.inexact):
                leaf = leaf.astype(float)
            if leaf.shape[:1] != (self.knots,):
                raise ValueError(
                    f"A {type(self).__name__} schedule of {self.knots} knots was given numbers of "
                    f"shape {leaf.shape}; init(value) makes them, with a row for each knot."
                )
            return self.range.value(self.at(leaf, t))

        return jax.tree.map(value, numbers)

    def _free(self, value):
        value = jnp.asarray(value, jnp.result_type(float))
        free = self.range.free(value)
        if not isinstance(free, Tracer) and not np.isfinite(free).all():
            outside = np.asarray(value)[~np.isfinite(free)].flat[0]
            raise ValueError(f"The value {outside:g} is not within the schedule's {self.range}.")
        return free


class Piecewise(Schedule):
    """Constant within each of `knots` equal windows of the run. Steps that share a number share a
    tangent: with it, `Forward()` learns schedules over long runs (Micaelli & Storkey 2021).

    >>> schedule = hg.schedules.Piecewise(knots=2, steps=5, range=hg.schedules.Real())
    >>> [float(schedule(jnp.array([3.0, 1.0]), t)) for t in range(5)]
    [3.0, 3.0, 3.0, 1.0, 1.0]
    """

    knots: int = eqx.field(static=True, converter=_as_int)
    steps: int = eqx.field(static=True, converter=_as_int)
    range: Range = Positive()

    def __check_init__(self):
        _check(self, least=1)

    def at(self, free, t):
        begins = np.ceil(np.arange(1, self.knots) * self.steps / self.knots).astype(np.int32)
        return free[jnp.searchsorted(jnp.asarray(begins), t, side="right")]


class Linear(Schedule):
    """Straight lines, in the free scale, from knot to knot; the first is at step 0, the last at
    the last step.

    >>> schedule = hg.schedules.Linear(knots=2, steps=5, range=hg.schedules.Real())
    >>> [float(schedule(jnp.array([3.0, 1.0]), t)) for t in range(5)]
    [3.0, 2.5, 2.0, 1.5, 1.0]
    """

    knots: int = eqx.field(static=True, converter=_as_int)
    steps: int = eqx.field(static=True, converter=_as_int)
    range: Range = Positive()

    def __check_init__(self):
        _check(self, least=1)

    def at(self, free, t):
        return _mean(jnp.maximum(0, 1 - jnp.abs(_place(self, t) - jnp.arange(self.knots))), free)


class Spline(Schedule):
    """A natural cubic spline, in the free scale, through the knots, which are placed like those
    of `Linear`: smooth, with continuous second derivatives (de Boor 1978, chapter IX)."""

    knots: int = eqx.field(static=True, converter=_as_int)
    steps: int = eqx.field(static=True, converter=_as_int)
    range: Range = Positive()

    def __check_init__(self):
        _check(self, least=2)

    def at(self, free, t):
        bumps = _bump(_place(self, t) - jnp.arange(-1, self.knots + 1))
        return _mean(bumps @ jnp.asarray(_natural(self.knots), bumps.dtype), free)


def _place(schedule: Schedule, t: Int[Array, ""]) -> Float[Array, ""]:
    """Where step `t` lies, counted in knots."""
    return t * ((schedule.knots - 1) / max(schedule.steps - 1, 1))


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


def _check(schedule: Schedule, least: int) -> None:
    name = type(schedule).__name__
    for what, value, low in (("knots", schedule.knots, least), ("steps", schedule.steps, 1)):
        if not isinstance(value, int) or value < low:
            raise ValueError(f"{name}({what}={value!r}): a whole number from {low} on is needed.")
    if not isinstance(schedule.range, Range):
        raise TypeError(f"{name}(range={schedule.range!r}): a range is needed, such as Positive().")

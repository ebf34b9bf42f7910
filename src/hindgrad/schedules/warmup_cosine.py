"""A rise in a line, and a fall along half a cosine."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from hindgrad import trees
from hindgrad.arguments import as_whole
from hindgrad.schedules.base import Schedule, as_int, check_rows
from hindgrad.schedules.ranges import Between, Positive, free_numbers

GRID, REFINEMENTS = 101, 8
"""How many warm-ups `fit` compares at a time, and how often it looks closer."""


class WarmupCosine(Schedule):
    """A rate that rises in a line to a peak, and falls along half a cosine to an end. With w steps
    of warm-up (any number between 0 and steps − 1), it is at step t

        peak (t + 1) / (w + 1)                                               for t ≤ w,
        end + (peak − end) (1 + cos(π (t − w) / (steps − 1 − w))) / 2        from there on.

    Its three numbers, log peak, logit of w / (steps − 1) and log end, are hyperparameters like any
    others (those of `optax.warmup_cosine_decay_schedule` are not: it cannot be traced).

    >>> schedule = hg.schedules.WarmupCosine(steps=7)
    >>> rates = schedule.values(schedule.init(peak=0.3, warmup=2, end=0.1))
    >>> [round(float(rate), 2) for rate in rates]
    [0.1, 0.2, 0.3, 0.27, 0.2, 0.13, 0.1]

    **Arguments:**

    - `steps`: the length of the run, at least 2. A longer run keeps the end.
    """

    steps: int = eqx.field(static=True, converter=as_int)

    def __check_init__(self):
        as_whole("WarmupCosine", "steps", self.steps, least=2)

    @property
    def rows(self):
        return 3

    def init(self, peak: PyTree, *, warmup: PyTree, end: PyTree) -> PyTree:
        """The numbers of a schedule: each of the three a float or an array, or a pytree of them,
        one schedule for each layer, leaf or element; `warmup` and `end` may be one for all.

        Raises `ValueError` if peak or end is not above 0, or the warm-up not between 0 and
        steps − 1.
        """
        ranges = Positive(), self._warmups, Positive()

        def numbers(*leaves):
            rows = [free_numbers(range_, leaf) for range_, leaf in zip(ranges, leaves, strict=True)]
            return jnp.stack(jnp.broadcast_arrays(*rows))

        spread = lambda value: jax.tree.broadcast(value, peak)
        return jax.tree.map(numbers, peak, spread(warmup), spread(end))

    def fit(self, values: PyTree) -> PyTree:
        """The numbers of the schedule that comes nearest to known values, to begin with those: an
        array with a row for each step, or a pytree of them. Nearest by least squares.

        Raises `ValueError` if there is not a row for each step, or a value is not above 0.
        """

        def nearest(leaf):
            check_rows(free_numbers(Positive(), leaf), self.steps)
            known = np.asarray(leaf, np.float64)
            found = [self._nearest(column) for column in known.reshape(self.steps, -1).T]
            numbers = (
                jnp.asarray(row).reshape(known.shape[1:]) for row in zip(*found, strict=True)
            )
            peak, warmup, end = numbers
            return self.init(peak, warmup=warmup, end=end)

        return jax.tree.map(nearest, values)

    def value(self, numbers, t):
        wide = numbers.astype(trees.widest(numbers.dtype))
        peak, end = Positive().value(wide[0]), Positive().value(wide[2])
        of_peak, of_end = _shares(
            jnp, t.astype(wide.dtype), self._warmups.value(wide[1]), self.steps
        )
        return (peak * of_peak + end * of_end).astype(numbers.dtype)

    @property
    def _warmups(self):
        return Between(0.0, self.steps - 1.0)

    def _nearest(self, values):
        """Peak, warm-up and end. For a given warm-up the others are a linear problem; the best one
        is looked for on a grid, and then closer and closer around."""
        t, last, least = np.arange(self.steps, dtype=float), self.steps - 1.0, np.min(values)

        def solve(warmup):
            shares = np.stack(_shares(np, t, warmup, self.steps), axis=1)
            found = np.linalg.lstsq(shares, values)[0]
            found = np.where(found > 0, found, least)
            return np.sum((shares @ found - values) ** 2), warmup, found

        low, high = 1e-3 * last, (1 - 1e-3) * last
        found = solve(last / 2)
        for _ in range(REFINEMENTS):
            tried = map(solve, np.linspace(low, high, GRID))
            found = min((found, *tried), key=lambda one: one[0])
            reach = (high - low) / (GRID - 1)
            low, high = max(low, found[1] - reach), min(high, found[1] + reach)
        _, warmup, (peak, end) = found
        return peak, warmup, end


def _shares(xp: Any, t: Any, warmup: Any, steps: int) -> tuple[Any, Any]:
    """How much of its peak and of its end a `WarmupCosine` has at step `t`."""
    rises = t <= warmup
    left = xp.where(rises, 1, steps - 1 - warmup)  # no division by 0, nor its derivative
    falling = (1 + xp.cos(np.pi * xp.clip((t - warmup) / left, 0, 1))) / 2
    return xp.where(rises, (t + 1) / (warmup + 1), falling), xp.where(rises, 0, 1 - falling)

"""A run's decays, and how many bits they lose."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int, PyTree

from hindgrad import gradient_training, numerics, trees
from hindgrad.exact import decay
from hindgrad.gradient_training import GradientTraining
from hindgrad.optimizers.moves import is_decay

MARGIN = 1e-6
"""By how much rounding may bring a decay below `min_decay`."""


class Schedule(NamedTuple):
    """What depends on the step, of all steps; None if that is too large to keep."""

    coefficients: PyTree
    bits: PyTree


class Now(NamedTuple):
    """One step's coefficients in float64, its decays, and the quanta of a bit that they lose."""

    coefficients: PyTree
    decays: dict[str, PyTree]
    bits: dict[str, PyTree]


class Decays(eqx.Module):
    """The decays of one run."""

    like: PyTree
    """The parameters' shapes, in float64."""
    constant: dict[str, PyTree]
    """The bits lost by decays that are plain numbers."""
    x64: bool

    def coefficients(self, dynamics: GradientTraining, t: Int[Array, ""]) -> PyTree:
        """Those of the step's coefficients that are not plain numbers, as the user gives them."""
        with numerics.setting(self.x64):
            given = dynamics.coefficients(t)
        constants = _constants(dynamics)
        return {name: value for name, value in given.items() if name not in constants}

    def schedule(self, dynamics: GradientTraining) -> Schedule:
        """To be computed once, and not in each direction: two programs may round differently."""
        struct = jax.eval_shape(lambda: self.coefficients(dynamics, dynamics.start))
        limit = max(gradient_training.STACK_LIMIT, trees.size(self.like))
        if dynamics.steps * trees.size(struct) > limit:
            return Schedule(None, None)
        ts = dynamics.start + jnp.arange(dynamics.steps, dtype=jnp.int32)
        given = jax.vmap(lambda t: self.coefficients(dynamics, t))(ts)
        return Schedule(given, jax.vmap(lambda _, g: self._varying(dynamics, g))(ts, given))

    def at(self, dynamics: GradientTraining, schedule: Schedule, k: Int[Array, ""]) -> Now:
        """What applies at step `k` of the run."""
        if schedule.coefficients is None:
            given = numerics.isolate(self.coefficients(dynamics, dynamics.start + k))[0]
            bits = numerics.isolate(self._varying(dynamics, given))[0]
        else:
            given, bits = jax.tree.map(lambda x: x[k], schedule)
        coefficients = _whole(dynamics, given)
        decays = _optimizer(dynamics).decays(self.like, coefficients)
        constant = jax.tree.map(jnp.float64, self.constant)
        return Now(coefficients, decays, constant | bits)

    def bits(
        self, dynamics: GradientTraining, min_decay: Any, total: int | None
    ) -> dict[str, list[float]]:
        """How many bits each decay loses in the run, at each of its leaves; at most in a piece,
        if the run is one of those of a run of `total` steps."""
        steps, bits = dynamics.steps, {}
        for name, lost in self.constant.items():
            largest = [float(np.max(x, initial=0)) for x in jax.tree.leaves(lost)]
            bits[name] = [steps * x * decay.QUANTUM for x in largest]
        known, counts = self._known_bits(dynamics, total)
        if isinstance(min_decay, dict) and (unknown := set(min_decay) - set(known) - set(bits)):
            raise ValueError(
                f"Reversible(min_decay) names {sorted(unknown)}; the optimizer's decays are "
                f"{sorted({*known, *bits})}."
            )
        for name, value in known.items():
            least = min_decay.get(name) if isinstance(min_decay, dict) else min_decay
            if value is not None:
                bits[name] = value
            elif least is None:
                raise ValueError(_missing(name, min_decay))
            elif not decay.SMALLEST <= least <= 1:
                raise ValueError(
                    f"Reversible(min_decay): {least!r} for {name!r} is outside of [1/128, 1]."
                )
            else:
                bits[name] = [steps * -float(np.log2(least))] * counts[name]
        return bits

    def _known_bits(self, dynamics, total):
        """Of the decays that are not plain numbers: None unless they depend on the step alone. And
        how many leaves each has."""
        start, steps = dynamics.start, dynamics.steps
        first, total = (start, steps) if total is None else (0, total)
        struct = jax.eval_shape(lambda: self.coefficients(dynamics, start))

        def bits(t):
            return jax.tree.map(
                lambda x: jnp.max(x, initial=0.0),
                self._varying(dynamics, self.coefficients(dynamics, t)),
            )

        counts = {name: len(jax.tree.leaves(b)) for name, b in jax.eval_shape(bits, start).items()}
        if not counts or total * trees.size(struct) > gradient_training.STACK_LIMIT:
            return dict.fromkeys(counts), counts
        most = lambda x: jnp.max(jnp.sum(jnp.pad(x, (0, -total % steps)).reshape(-1, steps), 1))
        with jax.ensure_compile_time_eval():
            found = jax.vmap(bits)(first + jnp.arange(total, dtype=jnp.int32))
            sums = {name: [most(x) for x in jax.tree.leaves(b)] for name, b in found.items()}
        known = {
            name: None
            if any(isinstance(x, Tracer) for x in leaves)
            else [float(x) * decay.QUANTUM for x in leaves]
            for name, leaves in sums.items()
        }
        return known, counts

    def _varying(self, dynamics, given):
        """The bits lost by the decays that are not plain numbers."""
        decays = _optimizer(dynamics).decays(self.like, _whole(dynamics, given))
        return _bits({name: d for name, d in decays.items() if name not in self.constant})


def decays_of(dynamics: GradientTraining, params: PyTree) -> Decays:
    """The decays of a run; to be called in the user's setting."""
    x64 = numerics.users_setting()
    struct = jax.eval_shape(lambda: dynamics.coefficients(dynamics.start))
    with numerics.wide():
        like = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, jnp.float64), params)
        with jax.ensure_compile_time_eval():
            constant = _constant_bits(dynamics, like, struct)
    return Decays(like, constant, x64)


def _constant_bits(dynamics, like, struct):
    """The bits lost by the decays that depend on plain numbers alone."""
    constants = _constants(dynamics)
    given = {name: s for name, s in struct.items() if name not in constants}
    decays = lambda given: _optimizer(dynamics).decays(like, {**given, **constants})
    _, depends = trees.dependence(decays, given)
    fixed = [name for name, d in depends.items() if not any(jax.tree.leaves(d))]
    values = decays(jax.tree.map(lambda s: jnp.ones(s.shape), given))
    found = {name: values[name] for name in fixed}
    for name, d in found.items():
        smallest = min((float(x.kept.min()) for x in _each(d) if x.kept.size), default=1.0)
        if smallest < decay.SMALLEST:
            raise ValueError(
                f"Reversible: the decay {name!r} is {smallest:g}. A decay below 1/128 keeps too "
                "little for a step to be undone (one of 0 keeps nothing). Use Checkpointed()."
            )
    return jax.tree.map(lambda x: float(x) if x.ndim == 0 else x, _bits(found))


def _each(decays):
    return jax.tree.leaves(decays, is_leaf=is_decay)


def _bits(decays):
    lost = lambda d: decay.bits_lost(d.kept, d.lost)
    return jax.tree.map(lost, decays, is_leaf=is_decay)


def _constants(dynamics):
    return _optimizer(dynamics).constants()


def _optimizer(dynamics: Any) -> Any:
    return dynamics.optimizer.moving


def _whole(dynamics, given):
    widen = lambda x: jnp.asarray(x, jnp.float64)
    return jax.tree.map(widen, given) | _constants(dynamics)


def _missing(name, min_decay):
    given = "" if min_decay is None else f" (min_decay={min_decay!r} does not name it)"
    return (
        f"Reversible needs min_decay for the decay {name!r}, which depends on hyperparameters"
        f"{given}: the smallest value that it takes in the run sets the size of the buffer. Give "
        f"Reversible(min_decay=0.8), say, or Reversible(min_decay={{{name!r}: 0.8}})."
    )

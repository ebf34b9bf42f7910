"""A run's decays as ratios of whole numbers, and how many bits they lose."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from hindgrad import dynamics as dynamics_module
from hindgrad import numerics, trees
from hindgrad.dynamics import GradientTraining
from hindgrad.exact import buffer
from hindgrad.exact.ratio import Ratio, ratio
from hindgrad.optimizers.moves import Moves, Scale, is_decay

SINGLE, DOUBLE = 2.9e-8, 0.9e-9
"""How far a decay may be off with float32 and with float64 parameters, relative to 1 − decay."""
HALF_ULP = 2.0**-25
"""How far the numbers that round to one float32 between 1/2 and 1 lie from it."""
MARGIN = 1e-6
"""By how much rounding may bring a decay below `min_decay`."""


class Schedule(NamedTuple):
    """What depends on the step, of all steps; None if that is too large to keep."""

    coefficients: PyTree
    ratios: PyTree


class Now(NamedTuple):
    """One step's coefficients in float64, and its decays as asked for and as ratios."""

    coefficients: PyTree
    asked: dict[str, PyTree]
    ratios: dict[str, PyTree]


class Decays(eqx.Module):
    """The decays of one run."""

    like: PyTree
    """The parameters' shapes, in float64."""
    tolerances: tuple[float, ...]
    """Of each leaf of the parameters."""
    constant: dict[str, PyTree]
    """Ratios of decays that are plain numbers."""
    x64: bool

    def coefficients(self, dynamics: GradientTraining, t: Int[Array, ""]) -> PyTree:
        """Those of the step's coefficients that are not plain numbers, as the user gives them."""
        with numerics.setting(self.x64):
            given = dynamics.coefficients(dynamics.hyper, t)
        constants = _constants(dynamics)
        return {name: value for name, value in given.items() if name not in constants}

    def schedule(self, dynamics: GradientTraining) -> Schedule:
        """To be computed once, and not in each direction: two programs may round differently."""
        struct = jax.eval_shape(lambda: self.coefficients(dynamics, dynamics.start))
        limit = max(dynamics_module.STACK_LIMIT, trees.size(self.like))
        if dynamics.steps * trees.size(struct) > limit:
            return Schedule(None, None)
        ts = dynamics.start + jnp.arange(dynamics.steps, dtype=jnp.int32)
        given = jax.vmap(lambda t: self.coefficients(dynamics, t))(ts)
        return Schedule(given, jax.vmap(lambda g: self._ratios(dynamics, g))(given))

    def at(self, dynamics: GradientTraining, schedule: Schedule, k: Int[Array, ""]) -> Now:
        """What applies at step `k` of the run."""
        if schedule.coefficients is None:
            given = numerics.isolate(self.coefficients(dynamics, dynamics.start + k))[0]
            ratios = self._ratios(dynamics, given)
        else:
            given, ratios = jax.tree.map(lambda x: x[k], schedule)
        coefficients = _whole(dynamics, given)
        asked = dynamics.optimizer.decays(self.like, coefficients)
        return Now(coefficients, asked, self.constant | ratios)

    def bits(self, dynamics: GradientTraining, min_decay: Any) -> dict[str, list[float]]:
        """How many bits each decay loses in the whole run, at each leaf of the parameters."""
        steps, bits = dynamics.steps, {}
        for name, ratios in self.constant.items():
            leaves = jax.tree.leaves(ratios, is_leaf=_is_ratio)
            with jax.ensure_compile_time_eval():
                bits[name] = [steps * float(r.bits) for r in leaves]
        known = self._known_bits(dynamics)
        for name, value in known.items():
            least = min_decay.get(name) if isinstance(min_decay, dict) else min_decay
            if value is not None:
                bits[name] = value
            elif least is None:
                raise ValueError(_missing(name, min_decay))
            elif not buffer.SMALLEST <= least <= 1:
                raise ValueError(
                    f"Reversible(min_decay): {least!r} for {name!r} is outside of [1/256, 1]."
                )
            else:
                count = len(jax.tree.leaves(self.like))
                bits[name] = [steps * -float(np.log2(least))] * count
        return bits

    def _known_bits(self, dynamics):
        """Of the decays that are not plain numbers: None unless they depend on the step alone."""
        start = dynamics.start
        struct = jax.eval_shape(lambda: self.coefficients(dynamics, start))
        names = set(jax.eval_shape(lambda: self._ratios(dynamics, self.coefficients(dynamics, start))))
        if not names:
            return {}
        if dynamics.steps * trees.size(struct) > dynamics_module.STACK_LIMIT:
            return dict.fromkeys(names)

        def bits(t):
            ratios = self._ratios(dynamics, self.coefficients(dynamics, t))
            return jax.tree.map(lambda r: jnp.max(r.bits), ratios, is_leaf=_is_ratio)

        with jax.ensure_compile_time_eval():
            found = jax.vmap(bits)(start + jnp.arange(dynamics.steps, dtype=jnp.int32))
        known = {}
        for name, leaves in found.items():
            leaves = jax.tree.leaves(leaves)
            traced = any(isinstance(leaf, jax.core.Tracer) for leaf in leaves)
            known[name] = None if traced else [float(jnp.sum(leaf)) for leaf in leaves]
        return known

    def _ratios(self, dynamics, given):
        """The ratios of the decays that are not plain numbers."""
        asked = dynamics.optimizer.decays(self.like, _whole(dynamics, given))
        asked = {name: decays for name, decays in asked.items() if name not in self.constant}
        rounded = {name: _is_single(given.get(name)) for name in asked}
        return _ratios(asked, self.tolerances, rounded)


def decays_of(dynamics: GradientTraining, params: PyTree) -> Decays:
    """The decays of a run; to be called in the user's setting."""
    x64 = numerics.users_setting()
    tolerances = tuple(
        DOUBLE if leaf.dtype == jnp.float64 else SINGLE for leaf in jax.tree.leaves(params)
    )
    struct = jax.eval_shape(lambda: dynamics.coefficients(dynamics.hyper, dynamics.start))
    with numerics.wide():
        like = jax.tree.map(lambda p: jax.ShapeDtypeStruct(p.shape, jnp.float64), params)
        with jax.ensure_compile_time_eval():
            unknown = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan), struct)
            constant = _constant_ratios(dynamics, like, tolerances, unknown)
    return Decays(like, tolerances, constant, x64)


def _constant_ratios(dynamics, like, tolerances, unknown):
    """The ratios of the decays that depend on plain numbers alone: those that stay numbers when
    every other coefficient is NaN."""
    constants = _constants(dynamics)
    asked = dynamics.optimizer.decays(like, {**unknown, **constants})
    asked = {
        name: decays
        for name, decays in asked.items()
        if not any(bool(jnp.isnan(x).any()) for x in jax.tree.leaves(decays))
    }
    for name, decays in asked.items():
        smallest = min(float(d.kept.min()) for d in jax.tree.leaves(decays, is_leaf=is_decay))
        if smallest < buffer.SMALLEST:
            raise ValueError(
                f"Reversible: the decay {name!r} is {smallest:g}. A decay below 1/256 keeps too "
                "little for a step to be undone (one of 0 keeps nothing). Use Checkpointed()."
            )
    ratios = _ratios(asked, tolerances, dict.fromkeys(asked, False))
    return jax.tree.map(lambda x: float(x) if x.ndim == 0 else x, ratios)


def _ratios(asked, tolerances, rounded):
    """Ratios like the decays; computed all at once, for it is a loop."""
    if not asked:
        return {}
    decays, structure = jax.tree.flatten(asked, is_leaf=is_decay)
    relative = [*tolerances] * len(asked)
    snaps = [rounded[name] for name in sorted(asked) for _ in tolerances]
    join = lambda parts: jnp.concatenate([jnp.ravel(part) for part in parts])
    kept, lost = (join([getattr(d, part) for d in decays]) for part in ("kept", "lost"))
    tolerance = join([r * jnp.minimum(d.lost, 0.5) for r, d in zip(relative, decays, strict=True)])
    # A decay given in float32 stands for all numbers that round to it.
    snap = join([jnp.full(d.kept.shape, HALF_ULP if s else 0.0) for s, d in zip(snaps, decays, strict=True)])
    together = ratio(kept, lost, jnp.maximum(tolerance, snap))
    sizes = np.cumsum([d.kept.size for d in decays])[:-1]
    parts = [jnp.split(x, sizes) for x in together]
    return jax.tree.unflatten(
        structure,
        [
            Ratio(n.reshape(d.kept.shape), m.reshape(d.kept.shape))
            for d, n, m in zip(decays, *parts, strict=True)
        ],
    )


def _constants(dynamics):
    return dynamics.optimizer.constants()


def _whole(dynamics, given):
    widen = lambda x: x.astype(jnp.float64)
    return jax.tree.map(widen, given) | _constants(dynamics)


def _is_single(coefficient):
    return any(x.dtype != jnp.float64 for x in jax.tree.leaves(coefficient))


def _is_ratio(x):
    return isinstance(x, Ratio)


def _missing(name, min_decay):
    given = "" if min_decay is None else f" (min_decay={min_decay!r} does not name it)"
    return (
        f"Reversible needs min_decay for the decay {name!r}, which depends on hyperparameters"
        f"{given}: the smallest value that it takes in the run sets the size of the buffer. Give "
        f"Reversible(min_decay=0.8), say, or Reversible(min_decay={{{name!r}: 0.8}})."
    )

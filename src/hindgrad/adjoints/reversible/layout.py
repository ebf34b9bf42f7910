"""Leaves side by side in one array: one kernel for all of them, in place of one for each."""

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from hindgrad.exact.fixed_point import Fixed

SMALL = 2**13
"""Leaves of fewer elements are joined: copying larger ones costs more than a kernel of its own."""


class Layout(NamedTuple):
    """Which leaves lie side by side."""

    shapes: tuple[tuple[int, ...], ...]
    """Those of the leaves."""
    groups: tuple[tuple[int, ...], ...]
    """The numbers of the leaves in each array."""

    @staticmethod
    def of(shapes: Sequence[tuple[int, ...]], kinds: Sequence[Hashable]) -> "Layout":
        """Small leaves of one kind side by side; a kind of None stays alone.

        All stay alone where there are several devices: each leaf may be split over them in its
        own way.
        """
        groups: dict[Hashable, list[int]] = {}
        for i, kind in enumerate(kinds):
            large = math.prod(shapes[i]) >= SMALL
            alone = large or kind is None or jax.device_count() > 1
            groups.setdefault(("alone", i) if alone else kind, []).append(i)
        return Layout(tuple(shapes), tuple(map(tuple, groups.values())))

    def join(self, group: int, leaves: Sequence[Array]) -> Array:
        """The group's leaves side by side; each is broadcast to its shape first."""
        shapes = [self.shapes[i] for i in self.groups[group]]
        whole = list(map(jnp.broadcast_to, leaves, shapes))
        return whole[0] if len(whole) == 1 else jnp.concatenate([x.reshape(-1) for x in whole])

    def split(self, group: int, array: Any) -> list[Any]:
        """The inverse of `join`, of NumPy arrays too."""
        shapes = [self.shapes[i] for i in self.groups[group]]
        if len(shapes) == 1:
            return [array]
        ends = self._ends(group)
        begins = ends - [math.prod(shape) for shape in shapes]
        return [
            array[begin:end].reshape(shape)
            for begin, end, shape in zip(begins.tolist(), ends.tolist(), shapes, strict=True)
        ]

    def first(self, group: int, flags: Bool[Array, "..."]) -> Int[Array, ""]:
        """The number of the leaf in which the group's first flag lies."""
        members = jnp.asarray(self.groups[group], jnp.int32)
        if len(members) == 1 or not flags.size:
            return members[0]
        # In int32: some of JAX's operations are lowered in the user's setting, without int64.
        at = jax.lax.argmax(flags.reshape(-1), 0, jnp.int32)
        ends = jnp.asarray(self._ends(group), jnp.int32)
        return members[jnp.sum(ends <= at, dtype=jnp.int32)]

    def _ends(self, group):
        return np.cumsum([math.prod(self.shapes[i]) for i in self.groups[group]])


class Packed(eqx.Module):
    """A state's leaves in the arrays of a layout."""

    arrays: tuple[Fixed, ...]
    layout: Layout = eqx.field(static=True)

    def with_arrays(self, groups: Sequence[int], arrays: Sequence[Fixed]) -> "Packed":
        """With other arrays for these groups."""
        new = dict(zip(groups, arrays, strict=True))
        return Packed(tuple(new.get(i, x) for i, x in enumerate(self.arrays)), self.layout)

    def split(self, group: int) -> list[tuple[int, list[Any]]]:
        """The group's leaves by their numbers, each as its arrays; the drift belongs to all."""
        fixed, layout = self.arrays[group], self.layout
        digits = [layout.split(group, x) for x in (fixed.high, *fixed.low)]
        drift = [] if fixed.drift is None else [fixed.drift]
        return [
            (i, [*parts, *drift]) for i, *parts in zip(layout.groups[group], *digits, strict=True)
        ]

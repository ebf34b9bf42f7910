"""An optimizer's step written as moves, each of which can be taken back."""

import abc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from hindgrad.optimizers.base import Optimizer


class State(NamedTuple):
    """What a step changes."""

    params: PyTree
    memory: PyTree


class Decay(eqx.Module):
    """A multiplication by a number between 0 and 1, elementwise."""

    value: eqx.AbstractVar[Array]

    @property
    @abc.abstractmethod
    def kept(self) -> Array:
        """The number."""

    @property
    @abc.abstractmethod
    def lost(self) -> Array:
        """1 − the number."""

    @abc.abstractmethod
    def __call__(self, x: Array) -> Array:
        """`x` times the number, in floating point."""

    @abc.abstractmethod
    def replaced(self, kept: Array, lost: Array) -> "Decay":
        """The decay with another value, which the derivative takes for the old one."""


class Keep(Decay):
    """`x ← value · x`."""

    value: Array

    @property
    def kept(self):
        return self.value

    @property
    def lost(self):
        return 1 - self.value

    def __call__(self, x):
        return self.value * x

    def replaced(self, kept, lost):
        del lost
        return Keep(_straight_through(self.value, kept))


class Lose(Decay):
    """`x ← x − value · x`: for decays so near 1 that they would be rounded."""

    value: Array

    @property
    def kept(self):
        return 1 - self.value

    @property
    def lost(self):
        return self.value

    def __call__(self, x):
        return x - self.value * x

    def replaced(self, kept, lost):
        del kept
        return Lose(_straight_through(self.value, lost))


def _straight_through(value, replacement):
    return value + jax.lax.stop_gradient(replacement.astype(value.dtype) - value)


def is_decay(x: Any) -> bool:
    """Whether this is a `Decay`, for `jax.tree.map`."""
    return isinstance(x, Decay)


class Scale(NamedTuple):
    """Multiplies a part of the state by a decay.

    Run exactly, the part has `digits` digits of 24 bits beyond the 42 fractional bits of the
    leading one, and numbers of the scale of the parameters to the `power`.
    """

    where: Callable[[State], PyTree]
    """The part: a pytree of which the decay's is a prefix."""
    decay: str
    """Which of the optimizer's decays."""
    digits: int = 0
    power: int = 1


class Add(NamedTuple):
    """Adds to a part of the state what can be computed from the rest of it."""

    where: Callable[[State], PyTree]
    delta: Callable[[State, PyTree], PyTree]
    """`(state, gradient) -> what is added`; it must not depend on the part itself."""


Move = Scale | Add


class Moves(NamedTuple):
    """A step as moves, in their order.

    Each phase may read only what lets it be undone: `before` and `after` no gradient, `absorb`
    the gradient at parameters that it leaves alone.
    """

    before: Sequence[Move] = ()
    """Before the gradient is taken; on the parameters only."""
    absorb: Sequence[Move] = ()
    """With the gradient; on the memory only."""
    after: Sequence[Move] = ()
    """Without the gradient again."""


class MovingOptimizer(Optimizer):
    """An optimizer whose step is a sequence of moves: one that `Reversible` can run backwards.

    Write `coefficients`, `init`, `decays` and `moves`; the step in floating point, the exact one
    and its inverse follow.
    """

    @abc.abstractmethod
    def decays(self, params: PyTree, coefficients: PyTree) -> dict[str, PyTree]:
        """The step's decays by name: each a `Keep` or `Lose`, or a pytree of them that is a prefix
        of what it multiplies."""

    @abc.abstractmethod
    def moves(self, params: PyTree, coefficients: PyTree, decays: dict[str, PyTree]) -> Moves:
        """The step. `params` (arrays or structs) give shapes and dtype only."""

    def clipped(self, grads: PyTree, coefficients: PyTree) -> PyTree:
        """The gradient as the moves get it."""
        del coefficients
        return grads

    @property
    def irreversible(self) -> str | None:
        """Why the moves cannot be undone; None if they can."""
        return None

    def constants(self) -> dict[str, PyTree]:
        """The coefficients that are plain numbers, unrounded, under their names in
        `coefficients`."""
        return {}

    def memory_along(self, stride: PyTree, coefficients: PyTree) -> PyTree | None:
        """The memory with which the step before moved the parameters by `stride`; None if that
        is not known. For `Interpolated`."""
        del stride, coefficients
        return None

    def move(self, params, memory, coefficients):
        decays = self.decays(params, coefficients)
        moves = self.moves(params, coefficients, decays)
        return _play(moves.before, State(params, memory), None, decays).params

    def update(self, grads, memory, params, coefficients):
        decays = self.decays(params, coefficients)
        return self.update_with(decays, grads, memory, params, coefficients)

    def update_with(
        self,
        decays: PyTree,
        grads: PyTree,
        memory: PyTree,
        params: PyTree,
        coefficients: PyTree,
        after: tuple[PyTree, PyTree] | None = None,
    ) -> tuple[PyTree, PyTree]:
        """`update` with these decays for its own; if `after`, what it gives, is known, that is
        computed only as far as the derivative asks for it."""
        # Of a complex loss, JAX's gradient is the conjugate of the direction of steepest ascent.
        grads = self.clipped(jax.tree.map(jnp.conj, grads), coefficients)
        moves = self.moves(params, coefficients, decays)
        state = State(params, memory)
        after = None if after is None else State(*after)
        return tuple(_play([*moves.absorb, *moves.after], state, grads, decays, after))


def _play(moves, state, grads, decays, after=None):
    known = {} if after is None else _known_after_each(moves, state, after)
    for i, move in enumerate(moves):
        old = move.where(state)
        if isinstance(move, Scale):
            change = lambda d, part: jax.tree.map(lambda x, d=d: d(x).astype(x.dtype), part)
            new = jax.tree.map(change, decays[move.decay], old, is_leaf=is_decay)
        else:
            change = lambda x, delta: (x + delta).astype(x.dtype)
            new = jax.tree.map(change, old, move.delta(state, grads))
        state = put(move.where, state, new)
        if i in known:
            leaves, structure = jax.tree.flatten(state)
            for leaf, value in known[i].items():
                leaves[leaf] = _known(leaves[leaf], value)
            state = jax.tree.unflatten(structure, leaves)
    return state


def _known_after_each(moves, state, after):
    """For each move, by their numbers: the leaves of the state that no later one changes, and
    their values."""
    last = {leaf: i for i, move in enumerate(moves) for leaf in changed(move, state)}
    values = jax.tree.leaves(jax.tree.map(lambda _, known: known, state, after))
    return {i: {leaf: values[leaf] for leaf in last if last[leaf] == i} for i in last.values()}


@jax.custom_jvp
def _known(computed: Array, known: Array) -> Array:
    """What is computed, by its known value: it is then computed only where its derivative needs
    the numbers on the way."""
    del computed
    return known


@_known.defjvp
def _known_jvp(primals, tangents):
    return primals[1], tangents[0]


def changed(move: Move, state: State) -> list[int]:
    """The numbers of the state's leaves that the move changes."""
    leaves, structure = jax.tree.flatten(state)
    return jax.tree.leaves(move.where(jax.tree.unflatten(structure, range(len(leaves)))))


def put(where: Callable[[State], PyTree], state: State, new: PyTree) -> State:
    """The state with another part there."""
    return eqx.tree_at(where, state, new, is_leaf=lambda x: x is None)

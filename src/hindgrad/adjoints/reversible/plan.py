"""What is settled before a run in exact arithmetic begins: formats, sizes of the buffers."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from hindgrad import numerics, trees
from hindgrad.adjoints.reversible.decays import Decays, decays_of
from hindgrad.adjoints.reversible.failure import Messages
from hindgrad.exact import buffer, decay, fixed_point
from hindgrad.exact.buffer import Buffer
from hindgrad.exact.fixed_point import is_fixed
from hindgrad.gradient_training import GradientTraining
from hindgrad.optimizers.moves import Scale, State, changed


class Format(NamedTuple):
    """How a leaf of the state is written as fixed-point numbers."""

    bits: int
    digits: int
    dtype: Any
    drift: tuple[int, ...] | None
    """The shape of its decay; None if it has none."""


class Lanes(NamedTuple):
    """The buffers of one multiplication."""

    decay: str
    leaves: tuple[int, ...]
    """Which leaves of the state it multiplies."""
    rows: tuple[int, ...]
    """How many digits each leaf's lanes push in the whole run."""
    least: float
    """The smallest decay that there is room for."""


class Position(NamedTuple):
    """Where an exact run is."""

    state: State
    """Of `Fixed`s."""
    model: PyTree
    """The model's own state, in its own types: it is kept at every step, and never undone."""
    buffers: tuple[tuple[Buffer, ...], ...] = ()
    """For each multiplication, of each leaf."""
    faults: tuple[tuple[Any, ...], ...] = ()
    """The first steps with too small a decay and with too full a buffer, −1 if there is none."""


class Plan(eqx.Module):
    """The formats and sizes of one run."""

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    formats: tuple[Format, ...]
    lanes: tuple[Lanes, ...]
    decays: Decays
    memory: Any
    messages: Messages

    def begin(self, state: PyTree) -> Position:
        """The exact (params, memory), and the model's state."""
        *state, model = state
        drift = lambda shape: None if shape is None else jnp.zeros(shape, jnp.float64)
        leaves = [
            fixed_point.encode(jnp.asarray(x), f.bits, f.digits, drift(f.drift))
            for x, f in zip(jax.tree.leaves(state), self.formats, strict=True)
        ]
        return Position(jax.tree.unflatten(self.structure, leaves), model)

    def emptied(self, position: Position, *, keep: bool) -> Position:
        """The same, with empty buffers; without stacks unless `keep`."""
        make = lambda i, rows: buffer.empty(self.shapes[i], rows if keep else None, self.memory)
        buffers = tuple(tuple(map(make, lanes.leaves, lanes.rows)) for lanes in self.lanes)
        none = jnp.full(2, -1, jnp.int32)
        faults = tuple(tuple(none for _ in lanes.leaves) for lanes in self.lanes)
        return position._replace(buffers=buffers, faults=faults)

    def decode(self, position: Position) -> tuple[PyTree, PyTree, PyTree]:
        """The (params, memory, model) in their own types."""
        floats = self._floats(position.state)
        return (*jax.tree.unflatten(self.structure, floats), position.model)

    def params(self, position: Position) -> PyTree:
        """The parameters alone."""
        params = position.state.params  # the first of the state
        return jax.tree.unflatten(
            jax.tree.structure(params, is_leaf=is_fixed), self._floats(params)
        )

    def _floats(self, part):
        leaves = jax.tree.leaves(part, is_leaf=is_fixed)
        formats = zip(leaves, self.formats, strict=False)
        return [fixed_point.decode(x, format_.dtype) for x, format_ in formats]

    def each_buffer(self, position: Position) -> list[tuple[int, Buffer, Any]]:
        """Every buffer, with its leaf's number and its faults."""
        return [
            entry
            for lanes, buffers, faults in zip(
                self.lanes, position.buffers, position.faults, strict=True
            )
            for entry in zip(lanes.leaves, buffers, faults, strict=True)
        ]


def plan_for(adjoint: Any, dynamics: Any, state: PyTree, total: int | None = None) -> Plan:
    """The plan of a run from a state (or its structs); of any piece of one of `total` steps, if
    that is given. `ValueError` if it cannot be undone."""
    _check_reversible(dynamics)
    *state, model = state
    _check_kept(adjoint, dynamics.steps, model)
    dynamics, state = jax.tree.map(_constant, (dynamics, tuple(state)))
    state = State(*state)
    paths, structure = jax.tree_util.tree_flatten_with_path(state)
    leaves = [leaf for _, leaf in paths]
    if any(map(jnp.iscomplexobj, leaves)):
        raise ValueError(
            "Reversible() works on real numbers, and the parameters hold complex ones. Train their "
            "real and imaginary parts, or use Checkpointed()."
        )
    names = tuple(jax.tree_util.keystr(path).removeprefix(".") for path, _ in paths)
    decays = decays_of(dynamics, state.params)
    with numerics.wide():
        scalings = _scalings(decays, dynamics, state)
        bits = decays.bits(dynamics, adjoint.min_decay, total)
    lanes = tuple(
        Lanes(
            move.decay,
            where,
            tuple(buffer.rows_for(bits[move.decay][i]) for i in parts),
            _least(move.decay, decays, adjoint.min_decay),
        )
        for move, where, parts, _ in scalings
    )
    formats = _formats(adjoint.scale, state, leaves, scalings)
    shapes = tuple(leaf.shape for leaf in leaves)
    messages = Messages(names, dynamics.steps)
    return Plan(structure, shapes, formats, lanes, decays, adjoint.memory, messages)


def _constant(leaf):
    return jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf


def _check_reversible(dynamics):
    optimizer = dynamics.optimizer.moving if isinstance(dynamics, GradientTraining) else None
    if optimizer is None:
        raise ValueError(
            "Reversible() can run backwards only what is written as moves that can be undone: a "
            "Training with hg.Momentum, hg.Adam or another hg.moves.MovingOptimizer. Neither "
            "unroll nor an optimizer from optax is. Use Checkpointed()."
        )
    if optimizer.irreversible is not None:
        raise ValueError(
            f"Reversible() cannot undo this: {optimizer.irreversible}. Use Checkpointed()."
        )


def _check_kept(adjoint, steps, model):
    needed = steps * trees.nbytes(model)
    if needed > adjoint.budget:
        raise ValueError(
            f"Reversible(budget={adjoint.budget}) keeps the model's state at every step, and "
            f"{steps} steps of {trees.nbytes(model)} bytes are {needed} bytes. Give a larger "
            "budget, keep averages of weights by hg.Averaged(optimizer, …), which runs backwards, "
            "or use Checkpointed()."
        )


class Scaling(NamedTuple):
    """A multiplication of a step."""

    move: Scale
    where: tuple[int, ...]
    """The numbers of the state's leaves that it multiplies."""
    parts: tuple[int, ...]
    """For each of them, the number of the decay's leaf."""
    shapes: tuple[tuple[int, ...], ...]
    """And that one's shape."""


def _scalings(decays, dynamics, state):
    """The multiplications of a step, in their order."""
    found = []

    def look():
        schedule = decays.schedule(dynamics)
        now = decays.at(dynamics, schedule, jnp.int32(0))
        moves = dynamics.optimizer.moving.moves(decays.like, now.coefficients, now.decays)
        found.extend(move for phase in moves for move in phase if isinstance(move, Scale))
        return now.bits

    bits = jax.eval_shape(look)
    scalings = []
    for move in found:
        leaves, structure = jax.tree.flatten(bits[move.decay])
        numbered = jax.tree.unflatten(structure, range(len(leaves)))
        parts = jax.tree.leaves(jax.tree.broadcast(numbered, move.where(state)))
        shapes = tuple(leaves[i].shape for i in parts)
        scalings.append(Scaling(move, tuple(changed(move, state)), tuple(parts), shapes))
    return scalings


def _least(name, decays, min_decay):
    if name in decays.constant or min_decay is None:
        return decay.SMALLEST
    return min_decay.get(name, decay.SMALLEST) if isinstance(min_decay, dict) else min_decay


def _formats(scale, state, leaves, scalings):
    structure = jax.tree.structure(state.params)
    count = structure.num_leaves
    try:
        scale = jax.tree.leaves(jax.tree.broadcast(scale, state.params))
    except ValueError as error:
        raise ValueError(
            "Reversible(scale) is neither a number nor a pytree that is a prefix of the params."
        ) from error
    for value in scale:
        if not value > 0 or math.log2(value) % 1:
            raise ValueError(f"Reversible(scale={value!r}): a power of two is needed.")
    digits = [1 if leaf.dtype == jnp.float64 else 0 for leaf in leaves]
    factor = [scale[i] if i < count else 1.0 for i in range(len(leaves))]
    drift = [None] * len(leaves)
    for move, where, _, shapes in scalings:
        like_params = jax.tree.structure(move.where(state)) == structure
        for j, i in enumerate(where):
            digits[i], drift[i] = max(digits[i], move.digits), shapes[j]
            factor[i] = (scale[j] if like_params else 1.0) ** move.power
    return tuple(
        Format(fixed_point.bits_for(f), n, leaf.dtype, shape)
        for f, n, leaf, shape in zip(factor, digits, leaves, drift, strict=True)
    )

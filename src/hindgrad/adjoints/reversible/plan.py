"""What is settled before a run in exact arithmetic begins: formats, sizes of the buffers."""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from hindgrad import numerics, trees
from hindgrad.adjoints.reversible import unread
from hindgrad.adjoints.reversible.decays import Decays, decays_of
from hindgrad.adjoints.reversible.failure import Messages
from hindgrad.adjoints.reversible.layout import Layout, Packed
from hindgrad.exact import buffer, decay, fixed_point
from hindgrad.exact.buffer import Buffer
from hindgrad.gradient_training import GradientTraining
from hindgrad.optimizers.moves import Move, Scale, State, changed


class Format(NamedTuple):
    """How leaves of the state are written as fixed-point numbers."""

    bits: int
    digits: int
    dtype: Any
    drift: tuple[int, ...] | None
    """The shape of their decay; None if they have none."""


class Change(NamedTuple):
    """What one move of a step changes."""

    leaves: tuple[int, ...]
    """Of the state, in the order of the move's part."""
    groups: tuple[int, ...]
    """The arrays in which these leaves lie."""
    lanes: "Lanes | None"
    """For a multiplication."""


class Lanes(NamedTuple):
    """The buffers of one multiplication, one for each of its groups."""

    decay: str
    parts: tuple[int, ...]
    """Which leaf of the decay multiplies each group."""
    rows: tuple[int, ...]
    """How many digits each group's lanes push in the whole run."""
    least: float
    """The smallest decay that there is room for."""


class Position(NamedTuple):
    """Where an exact run is."""

    state: Packed
    model: PyTree
    """The model's own state, in its own types. It is never undone: what the way back needs of it
    is kept at every step, the rest is that of the end."""
    buffers: tuple[tuple[Buffer, ...], ...] = ()
    """For each move, of each group; none for an addition."""
    faults: tuple[tuple[Any, ...], ...] = ()
    """The first steps with too small a decay and with too full a buffer, −1 if there is none."""


class Plan(eqx.Module):
    """The formats and sizes of one run."""

    structure: Any
    """That of (params, memory)."""
    params: Any
    """That of the parameters."""
    layout: Layout
    formats: tuple[Format, ...]
    """Of the layout's groups."""
    changes: tuple[Change, ...]
    """Of a step's moves, in their order."""
    decays: Decays
    read: tuple[bool, ...]
    """For each leaf of the model's state, whether the way back needs its values."""
    memory: Any
    messages: Messages

    def kept(self, model: PyTree) -> PyTree:
        """What of a model's state is kept at every step."""
        return _kept(model, self.read)

    def begin(self, state: PyTree) -> Position:
        """The exact (params, memory), and the model's state."""
        *state, model = state
        leaves = list(map(jnp.asarray, jax.tree.leaves(state)))
        zero = numerics.unseen_zero(next((x for x in leaves if x.size), leaves[0]))

        def encoded(group, format_):
            x = self.join(group, leaves)
            drift = _no_drift(x, format_.drift, zero)
            return fixed_point.encode(x, format_.bits, format_.digits, drift)

        arrays = tuple(encoded(group, format_) for group, format_ in enumerate(self.formats))
        return Position(Packed(arrays, self.layout), model)

    def join(self, group: int, leaves: Any) -> Any:
        """The group's array, from the state's leaves by their numbers."""
        return self.layout.join(group, [leaves[i] for i in self.layout.groups[group]])

    def emptied(self, position: Position, *, keep: bool) -> Position:
        """The same, with empty buffers; without stacks unless `keep`."""
        none = jnp.full(2, -1, jnp.int32)
        make = lambda group, rows: buffer.empty(
            position.state.arrays[group].high, rows if keep else None, self.memory
        )
        lanes = [(c.groups, c.lanes.rows) if c.lanes else ((), ()) for c in self.changes]
        return position._replace(
            buffers=tuple(tuple(map(make, groups, rows)) for groups, rows in lanes),
            faults=tuple(tuple(none for _ in groups) for groups, _ in lanes),
        )

    def decode(self, position: Position) -> tuple[PyTree, PyTree, PyTree]:
        """The (params, memory, model) in their own types."""
        leaves = self._floats(position, self.structure.num_leaves)
        return (*jax.tree.unflatten(self.structure, leaves), position.model)

    def decode_params(self, position: Position) -> PyTree:
        """The parameters alone, which are the first of the state."""
        leaves = self._floats(position, self.params.num_leaves)
        return jax.tree.unflatten(self.params, leaves)

    def exact(self, position: Position) -> State:
        """The state in float64."""
        leaves = self._floats(position, self.structure.num_leaves, jnp.dtype(jnp.float64))
        return jax.tree.unflatten(self.structure, leaves)

    def _floats(self, position, count, dtype=None):
        """The state's first leaves, in their own types unless another is given."""
        found = {}
        for group, (leaves, format_) in enumerate(
            zip(self.layout.groups, self.formats, strict=True)
        ):
            if leaves[0] < count:
                floats = fixed_point.decode(position.state.arrays[group], dtype or format_.dtype)
                found.update(zip(leaves, self.layout.split(group, floats), strict=True))
        return [found[i] for i in range(count)]

    def each_buffer(self, position: Position) -> list[tuple[int, Buffer, Any]]:
        """Every buffer, with its group's number and its faults."""
        return [
            entry
            for change, buffers, faults in zip(
                self.changes, position.buffers, position.faults, strict=True
            )
            for entry in zip(change.groups, buffers, faults, strict=bool(change.lanes))
        ]


def plan_for(adjoint: Any, dynamics: Any, state: PyTree, total: int | None = None) -> Plan:
    """The plan of a run from a state (or its structs); of any piece of one of `total` steps, if
    that is given. `ValueError` if it cannot be undone."""
    _check_reversible(dynamics)
    *state, model = state
    dynamics, state = jax.tree.map(_constant, (dynamics, tuple(state)))
    read = unread.read(dynamics, state[0], model)
    _check_kept(adjoint, dynamics.steps, _kept(model, read))
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
        found = _touched(decays, dynamics, state)
        bits = decays.bits(dynamics, adjoint.min_decay, total)
    formats = _formats(adjoint.scale, state, leaves, found)
    layout = Layout.of([leaf.shape for leaf in leaves], _kinds(state, formats, found))
    changes = tuple(_change(touched, layout, bits, decays, adjoint.min_decay) for touched in found)
    formats = tuple(formats[group[0]] for group in layout.groups)
    messages = Messages(names, dynamics.steps)
    params = jax.tree.structure(state.params)
    return Plan(structure, params, layout, formats, changes, decays, read, adjoint.memory, messages)


def _kept(model, read):
    leaves, structure = jax.tree.flatten(model)
    kept = [x if is_read else None for x, is_read in zip(leaves, read, strict=True)]
    return jax.tree.unflatten(structure, kept)


def _no_drift(x, shape, zero):
    """The drift of numbers that no decay has multiplied yet; where they are, if it is one for
    each. `zero` is none that a compiler knows: it would compute the first step's powers while
    compiling, and round them otherwise than on the way back."""
    if shape is None:
        return None
    return jnp.full_like(x, zero, jnp.float64) if shape == x.shape else jnp.full(shape, zero)


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
            f"Reversible(budget={adjoint.budget}) keeps at every step what training reads of the "
            f"model's state, and {steps} steps of {trees.nbytes(model)} bytes are {needed} bytes. "
            "Give a larger budget, or use Checkpointed()."
        )


class Scaled(NamedTuple):
    """What a multiplication does to the leaves that it changes."""

    decay: str
    digits: int
    power: int
    parts: tuple[int, ...]
    """For each of them, the number of the leaf of the decay that multiplies it."""
    shapes: tuple[tuple[int, ...], ...]
    """And that one's shape."""
    is_like_params: bool
    """Whether they are a tree like the parameters'."""


class Touched(NamedTuple):
    """The numbers of the state's leaves that a move of a step changes, and how."""

    leaves: tuple[int, ...]
    scaled: Scaled | None
    """None for an addition."""


def _touched(decays, dynamics, state):
    """What the moves of a step change, in their order."""
    found = []

    def look():  # the moves hold what is traced here, and do not leave it
        schedule = decays.schedule(dynamics)
        now = decays.at(dynamics, schedule, jnp.int32(0))
        phases = dynamics.optimizer.moving.moves(decays.like, now.coefficients, now.decays)
        found.extend(_touched_by(move, now.bits, state) for phase in phases for move in phase)

    jax.eval_shape(look)
    return found


def _touched_by(move: Move, bits: Any, state: State) -> Touched:
    leaves = tuple(changed(move, state))
    if not isinstance(move, Scale):
        return Touched(leaves, None)
    of_decay, structure = jax.tree.flatten(bits[move.decay])
    numbered, part = jax.tree.unflatten(structure, range(len(of_decay))), move.where(state)
    parts = tuple(jax.tree.leaves(jax.tree.broadcast(numbered, part)))
    shapes = tuple(of_decay[i].shape for i in parts)
    is_like_params = jax.tree.structure(part) == jax.tree.structure(state.params)
    scaled = Scaled(move.decay, move.digits, move.power, parts, shapes, is_like_params)
    return Touched(leaves, scaled)


def _kinds(state, formats, found):
    """For each leaf of the state, what must be alike for it to lie beside another; None for a
    leaf whose decay is elementwise."""
    count = len(jax.tree.leaves(state.params))
    changed_by = [[] for _ in formats]
    for number, touched in enumerate(found):
        parts = touched.scaled.parts if touched.scaled else [None] * len(touched.leaves)
        for i, part in zip(touched.leaves, parts, strict=True):
            changed_by[i].append((number, part))
    return [
        None if format_.drift else (i < count, format_, *changes)
        for i, (format_, changes) in enumerate(zip(formats, changed_by, strict=True))
    ]


def _change(touched, layout, bits, decays, min_decay):
    leaves, scaled = touched
    group_of = {i: group for group, members in enumerate(layout.groups) for i in members}
    groups = tuple(dict.fromkeys(group_of[i] for i in leaves))
    if scaled is None:
        return Change(leaves, groups, None)
    part_of = dict(zip(leaves, scaled.parts, strict=True))
    parts = tuple(part_of[layout.groups[group][0]] for group in groups)
    rows = tuple(buffer.rows_for(bits[scaled.decay][part]) for part in parts)
    least = _least(scaled.decay, decays, min_decay)
    return Change(leaves, groups, Lanes(scaled.decay, parts, rows, least))


def _least(name, decays, min_decay):
    if name in decays.constant or min_decay is None:
        return decay.SMALLEST
    return min_decay.get(name, decay.SMALLEST) if isinstance(min_decay, dict) else min_decay


def _formats(scale, state, leaves, found):
    count = len(jax.tree.leaves(state.params))
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
    for touched, scaled in found:
        if scaled is None:
            continue
        for j, i in enumerate(touched):
            digits[i], drift[i] = max(digits[i], scaled.digits), scaled.shapes[j]
            factor[i] = (scale[j] if scaled.is_like_params else 1.0) ** scaled.power
    return tuple(
        Format(fixed_point.bits_for(f), n, leaf.dtype, shape)
        for f, n, leaf, shape in zip(factor, digits, leaves, drift, strict=True)
    )

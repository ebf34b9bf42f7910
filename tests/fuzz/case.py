"""A training as plain settings, which the library and the reference read."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import hindgrad as hg
from hindgrad.objective import init_key
from tests.fuzz import reference
from tests.fuzz.operations import At, D
from tests.fuzz.rules import EVERY, REVERSE_ONLY, ROUNDING, UNTRUE

ROWS = 6
"""Rows of the data."""


class Pair(NamedTuple):
    """A container of parameters."""

    first: Any
    second: Any


class Block(eqx.Module):
    """A layer with fields that are not to be trained: floats, NumPy arrays, None, static ones."""

    weight: Any
    slope: float
    table: np.ndarray
    missing: None
    count: int
    flag: bool
    name: str = eqx.field(static=True)

    def __call__(self, z):
        z = z * jnp.resize(self.weight, (1, D)).astype(z.dtype) if self.weight.size else z
        if self.slope == 0:  # Python's own number, as dropout's rate is in Equinox
            return z
        activate = {"leaky": lambda z: jnp.where(z > 0, z, self.slope * z), "sine": jnp.sin}
        z = activate[self.name](z) if self.flag else z
        return z * self.table[: self.count].sum().astype(z.dtype)


@dataclass
class Leaf:
    """A trained array, before its dtype is known."""

    value: np.ndarray
    dtype: str

    def array(self, wide):
        return jnp.asarray(self.value, jnp.float64 if wide else self.dtype)


@dataclass
class Hypers:
    """The hyperparameters drawn so far."""

    steps: int
    structure: Any
    trained: list[int]
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def leaves(self):
        return len(self.trained)

    def add(self, name, value):
        """A scalar as a Python float, a longer one as an array."""
        value = np.asarray(value)
        self.values[name] = float(value) if value.shape == () else value

    def tree(self, function):
        """`function(i)` at the i-th trained leaf, None at the others."""
        places: list[Any] = [None] * self.structure.num_leaves
        for i, place in enumerate(self.trained):
            places[place] = function(i)
        return jax.tree.unflatten(self.structure, places)


@dataclass
class Case:
    """One training, as plain settings that library and reference read."""

    seed: int
    precision: str
    steps: int
    spec: Any
    """The parameters, with `Leaf`s where arrays are trained."""
    hypers: Hypers
    optimizer: Any
    operations: list[tuple[str, int]]
    """(name, number of the leaf that it takes)."""
    batching: str
    data: dict[str, np.ndarray]
    start_kind: str
    entry: str
    closed: list[str]
    """Hyperparameters that the functions close over, in place of being given them."""
    narrow: list[str]
    """Hyperparameters in float32 where others are in float64."""
    score_weights: np.ndarray
    cut: int
    """Where a resumed run is resumed."""

    @property
    def x64(self):
        return self.precision in ("double", "mixed")

    @property
    def has_only_reverse_rules(self):
        """Whether an operation has a rule for the reverse mode only."""
        return any(name in REVERSE_ONLY for name, _ in self.operations)

    @property
    def coarse(self):
        """Whether numbers of fewer than 64 bits enter."""
        return self.precision != "double" or any(name in ROUNDING for name, _ in self.operations)

    @property
    def untrue(self):
        return any(name in UNTRUE for name, _ in self.operations)

    @property
    def start_is_differentiated(self):
        """Whether parameters or memory depend on the hyperparameters when the run begins."""
        return self.start_kind != "constant" or getattr(self.optimizer, "name", "") == "injected"

    @property
    def trained(self):
        return self.hypers.trained

    def hyper(self, values: Any, wide: bool) -> Any:
        """The hyperparameters that derivatives are taken by, of these values, as arrays."""

        def array(name, value):
            narrow = name in self.narrow and not wide
            return jax.tree.map(
                lambda x: jnp.asarray(x, jnp.float32) if narrow else self._array(x, wide), value
            )

        return {name: array(name, value) for name, value in values.items()}

    def complete(self, hyper):
        """With those that have no derivative."""
        return {**hyper, "count": 2, "name": "sgd", "none": None, "order": jnp.arange(ROWS)}

    def _array(self, x, wide):
        return jnp.asarray(x, jnp.float64 if wide or self.x64 else jnp.float32)

    def start(self, hyper, wide):
        """The initial parameters."""
        scale = hyper["scale"] if self.start_kind != "constant" else 1.0

        def build(leaf):
            if not isinstance(leaf, Leaf):
                return leaf
            array = leaf.array(wide)
            return array if self.start_kind == "constant" else (array * scale).astype(array.dtype)

        start = jax.tree.map(build, self.spec)
        if self.start_kind == "drawn":
            key = init_key(self.key)
            start = self._disturbed(start, key)
        return start

    def _disturbed(self, params, key):
        parts = reference.Parts(params, self.trained)
        keys = jax.random.split(key, len(self.trained))
        noise = [
            jax.random.normal(k, w.shape, jnp.float32).astype(w.dtype) / 8
            for k, w in zip(keys, parts.values, strict=True)
        ]
        return parts.whole([w + n for w, n in zip(parts.values, noise, strict=True)])

    @property
    def key(self):
        return jax.random.key(self.seed)

    def batches(self, wide=False, key=None):
        """A function of the step."""
        data = {"x": self._array(self.data["x"], wide), "label": jnp.asarray(self.data["label"])}
        key = jax.random.key(3) if key is None else key
        if self.batching in ("minibatches", "drawn"):
            return hg.minibatches(data, size=4 if self.seed % 2 else 3, key=key)
        if self.batching == "full":
            return hg.full_batch(data, key=key)

        def own(t):
            index = (2 * t + jnp.arange(3)) % ROWS
            rows = jax.tree.map(lambda x: x[index], data)
            return {**rows, "index": index, "key": jax.random.fold_in(key, t), "t": t}

        return own

    def stacked_batches(self, wide):
        """Those of all steps."""
        batches = self.batches(wide, self.key if self.batching == "drawn" else None)
        every = [batches(jnp.int32(t)) for t in range(self.steps)]
        return jax.tree.map(lambda *xs: jnp.stack(xs), *every)

    def loss(self, wide):
        """The loss `(params, hyper, batch)`."""

        def loss(params, hyper, batch):
            own = isinstance(batch, dict)
            data = batch if own else batch.data
            index = batch["index"] if own else batch.index
            key = batch["key"] if own else batch.key
            z = data["x"]
            at = At(data["label"], key, batch["t"] if own else index[0], exact=wide)
            z = z + hyper["shift"][None] if "shift" in hyper else z
            leaves = reference.Parts(params, self.trained).values
            for name, leaf in self.operations:
                z = EVERY[name](z, _taker(leaves[leaf], z.dtype), at)
            is_block = lambda x: isinstance(x, Block)
            for block in jax.tree.leaves(params, is_leaf=is_block):
                z = block(z) if is_block(block) else z
            target = jnp.sin(data["x"].sum(-1, keepdims=True) + jnp.arange(D)[None])
            misses = jnp.sum((z - target) ** 2, axis=-1)
            if "weights" in hyper:
                misses = misses * hyper["weights"][hyper["order"][index]]
            value = jnp.mean(misses / (1 + misses / 8))
            if "penalty" in hyper:
                squares = sum(jnp.sum(w.astype(z.dtype) ** 2) for w in leaves)
                value += jnp.exp(hyper["penalty"]) * squares
            return value.astype(z.dtype)

        return loss

    def score(self, params, hyper, losses):
        """Of the trained parameters, and of the losses if they are given."""
        leaves = reference.Parts(params, self.trained).values
        dtype = self._array(0.0, leaves[0].dtype == jnp.float64).dtype
        flat = jnp.concatenate([w.astype(dtype).ravel() for w in leaves])
        weights = self._array(self.score_weights, False)
        value = jnp.mean((flat - jnp.resize(weights, flat.shape)) ** 2 + jnp.sin(flat))
        if "direct" in hyper:
            slope, more = hyper["direct"]
            value = value + slope * jnp.mean(flat) + jnp.sum(more["square"] ** 2)
        if losses is not None:
            value = value + jnp.dot(jnp.sin(jnp.arange(1, self.steps + 1.0)), losses) / self.steps
        return value

    def __str__(self):
        hyper = jax.tree.map(np.shape, self.hypers.values)
        return "\n  ".join(
            [
                f"case {self.seed}: {self.precision}, {self.steps} steps of {self.optimizer}",
                f"params {self.spec}",
                f"operations {self.operations}",
                f"hyper {hyper}, closed over: {self.closed}, in float32: {self.narrow}",
                f"batches {self.batching}, start {self.start_kind}, entry {self.entry}",
            ]
        )


def _taker(leaf, dtype):
    """Gives the leaf in any shape, by repetition."""

    def take(*shape):
        if leaf.shape == shape:
            return leaf.astype(dtype)
        if leaf.size == 0:
            return jnp.full(shape, 0.5, dtype)
        return jnp.resize(leaf, shape).astype(dtype)

    return take

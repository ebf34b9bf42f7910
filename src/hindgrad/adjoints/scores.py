"""The cotangents of one score, or of many scores side by side, on one way back."""

import abc
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from hindgrad import trees
from hindgrad.dynamics import Pulled
from hindgrad.sums import Compensated

TOGETHER = 2**19
"""So many numbers may the states of the scores have that are pulled back together: what a core's
cache holds."""


class Scores(abc.ABC):
    """How many scores the cotangents on a way back are of."""

    @abc.abstractmethod
    def stacked(self, zeros: PyTree) -> PyTree:
        """The zeros with which the sums begin."""

    @abc.abstractmethod
    def zeros_where_none(self, like: PyTree, cotangents: PyTree) -> PyTree:
        """The cotangents of a state `like` that, with zeros in place of None."""

    @abc.abstractmethod
    def by_step(self, cotangents: PyTree) -> PyTree:
        """The cotangents of the stacked outputs, with the steps as the leading axis."""

    @abc.abstractmethod
    def pull(
        self,
        pull: Callable[[PyTree], Pulled],
        d_state: PyTree,
        d_output: PyTree,
        total: Compensated,
    ) -> tuple[PyTree, Compensated, PyTree, Array | None]:
        """Pulls the cotangents of (state, output) back through a step: the cotangents of the state
        before, the sum with the step's share, what is kept of the step, and its loss again."""

    @abc.abstractmethod
    def finish(self, finish: Callable[[PyTree, PyTree, PyTree], Any], pulled: Pulled) -> Any:
        """What `finish(share, kept, initial)` makes of each score's sums."""

    @abc.abstractmethod
    def same(self, x: Array) -> Array:
        """What is the same for all scores, as a cotangent."""


class OneScore(Scores):
    """One."""

    def same(self, x):
        return x

    def stacked(self, zeros):
        return zeros

    def zeros_where_none(self, like, cotangents):
        return trees.zeros_where_none(like, cotangents)

    def by_step(self, cotangents):
        return cotangents

    def pull(self, pull, d_state, d_output, total):
        pulled = pull((d_state, d_output))
        return pulled.state, total.plus(pulled.share), pulled.kept, pulled.loss

    def finish(self, finish, pulled):
        return finish(pulled.share, pulled.kept, pulled.state)


class ManyScores(Scores):
    """Many, as the leading axis of every cotangent. A step is recalled and linearised once; then
    the scores are pulled back in blocks, one block after another and in place."""

    def __init__(self, count: int, size: int):
        """`count` scores of states with `size` numbers."""
        self.count = count
        most = max(1, min(count, TOGETHER // max(size, 1)))
        even = max(block for block in range(1, most + 1) if count % block == 0)
        self.blocks = count // even if 2 * even >= most else -(-count // most)
        self.block = -(-count // self.blocks)

    def same(self, x):
        return _repeated(x, self.count)

    def stacked(self, zeros):
        return jax.tree.map(lambda x: _repeated(jnp.zeros_like(x), self.blocks, self.block), zeros)

    def zeros_where_none(self, like, cotangents):
        floats = eqx.filter(like, eqx.is_inexact_array)
        zeros = jax.tree.map(lambda x: _repeated(jnp.zeros_like(x), self.count), floats)
        cotangents = jax.tree.map(lambda zeros, c: zeros if c is None else c, zeros, cotangents)
        return self._in_blocks(cotangents)

    def by_step(self, cotangents):
        return jax.tree.map(lambda x: jnp.moveaxis(x, 2, 0), self._in_blocks(cotangents))

    def pull(self, pull, d_state, d_output, total):
        def of_block(d_state, d_output, total):
            pulled = self._together(pull, (d_state, d_output))
            return pulled.state, total.plus(pulled.share), pulled.kept, pulled.loss

        first = jax.tree.map(lambda x: x[0], (d_state, d_output, total))
        *_, kept, loss = eqx.filter_eval_shape(of_block, *first)
        kept = jax.tree.map(lambda x: _repeated(jnp.zeros_like(x), self.blocks), kept)
        loss = jax.tree.map(jnp.zeros_like, loss)

        def body(i, carry):
            *rest, _ = carry
            read = lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False)
            block = _read_first(i, jax.tree.map(read, (rest[0], d_output, rest[1])))
            *new, loss = of_block(*block)
            write = lambda xs, x: jax.lax.dynamic_update_index_in_dim(xs, x, i, 0)
            return *jax.tree.map(write, tuple(rest), tuple(new)), loss

        return jax.lax.fori_loop(
            jnp.int32(0), jnp.int32(self.blocks), body, (d_state, total, kept, loss)
        )

    def finish(self, finish, pulled):
        kept = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 2), pulled.kept)
        one_by_one = lambda x: x.reshape(-1, *x.shape[2:])[: self.count]
        parts = jax.tree.map(one_by_one, (pulled.share, kept, pulled.state))
        return jax.lax.map(lambda parts: finish(*parts), parts)

    def _together(self, pull, cotangents):
        """A block's cotangents pulled back side by side; the loss is the same for all."""
        if self.block == 1:  # an axis of one would only make products slower
            state, share, kept, loss = pull(jax.tree.map(lambda x: x[0], cotangents))
            state, share, kept = jax.tree.map(lambda x: x[None], (state, share, kept))
            return Pulled(state, share, kept, loss)
        return jax.vmap(pull, out_axes=Pulled(0, 0, 0, None))(cotangents)

    def _in_blocks(self, tree):
        """[scores, …] as [blocks, block, …], filled up with zeros."""
        missing = self.blocks * self.block - self.count
        fill = lambda x: jnp.concatenate([x, _repeated(jnp.zeros_like(x[0]), missing)])
        cut = lambda x: (fill(x) if missing else x).reshape(self.blocks, self.block, *x.shape[1:])
        return jax.tree.map(cut, tree)


def side_by_side(
    pull_back: Callable[..., PyTree], state: PyTree, inputs: PyTree, cotangents: PyTree
) -> PyTree:
    """`pull_back(OneScore(), inputs, cotangents)`; where `vmap` batches the cotangents and nothing
    else, `pull_back(ManyScores(…), inputs, cotangents)` for all of them at once, in blocks by the
    size of the run's `state`."""
    arrays, static = eqx.partition((inputs, cotangents), eqx.is_array)
    size = trees.size(eqx.filter(state, eqx.is_inexact_array))

    def call(scores, inputs, cotangents):
        return pull_back(scores, *eqx.combine((inputs, cotangents), static))

    one = jax.custom_batching.custom_vmap(functools.partial(call, OneScore()))

    @one.def_vmap
    def many(count, batched, inputs, cotangents):
        if any(jax.tree.leaves(batched[0])):
            axes = jax.tree.map(lambda b: 0 if b else None, tuple(batched))
            found = jax.vmap(functools.partial(call, OneScore()), axes)(inputs, cotangents)
        else:
            whole = lambda b, x: x if b else _repeated(x, count)
            cotangents = jax.tree.map(whole, batched[1], cotangents)
            found = call(ManyScores(count, size), inputs, cotangents)
        return found, jax.tree.map(lambda _: True, found)

    return one(*arrays)


def batched_together(results: PyTree, inputs: PyTree) -> PyTree:
    """The results, of which `vmap` batches all if it batches any input, as it does with those of
    `side_by_side`: a function and its derivative must be alike in that."""
    floats = jax.tree.leaves(eqx.filter(inputs, eqx.is_inexact_array))
    some = jnp.stack([jnp.isnan(x.reshape(-1)[0]) for x in floats if x.size])
    return jax.tree.map(lambda x: jnp.where(jnp.any(some), x, x), results)


def _repeated(x, *counts):
    """With further leading axes. (What is made from a shape alone is not where `x` is.)"""
    return jnp.broadcast_to(x, (*counts, *x.shape))


def _read_first(i, block):
    """What is read of a block, before the block is written: XLA's CPU compiler would rather read it
    wherever it is needed, and copy the states of all scores to that end. A loop stays in its place,
    also one that is run as often as a number says that the compiler does not know: never."""

    def behind_a_loop(i, block):
        trips = jnp.where(i < 0, jnp.int32(1), jnp.int32(0))
        again = lambda _, x: jax.tree.map(jnp.negative, x)
        return jax.lax.fori_loop(jnp.int32(0), trips, again, block)

    return jax.lax.platform_dependent(i, block, cpu=behind_a_loop, default=lambda _, block: block)

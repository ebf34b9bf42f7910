"""Sums over the steps of a run, of which there may be millions: without their rounding."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

BLOCK = 8
"""Steps that are summed plainly, if there is memory for the sums of so small blocks."""
LIMIT = 2**22
"""How many numbers the sums of all blocks may have together."""


class Compensated(NamedTuple):
    """A running sum, and what its rounding has lost so far (Kahan 1965)."""

    total: PyTree
    lost: PyTree

    @staticmethod
    def of(zeros: PyTree) -> "Compensated":
        """The empty sum."""
        return Compensated(zeros, zeros)

    def plus(self, terms: PyTree) -> "Compensated":
        """The sum with another term; whole numbers just add."""

        def add(total, lost, term):
            term = term - lost
            new = total + term
            return new, (new - total) - term

        leaves, structure = jax.tree.flatten(terms)
        both = zip(jax.tree.leaves(self.total), jax.tree.leaves(self.lost), leaves, strict=True)
        sums = [add(*parts) for parts in both]
        total, lost = ([s[i] for s in sums] for i in range(2))
        return Compensated(*(jax.tree.unflatten(structure, part) for part in (total, lost)))


def over_blocks(pull: Callable[..., PyTree], stacked: PyTree, size: int) -> PyTree:
    """`pull(*stacked)`, a linear function that sums `size` numbers over the leading axis: in
    blocks of that axis, whose sums are added pairwise."""
    steps = jax.tree.leaves(stacked)[0].shape[0]
    block = max(BLOCK, -(-steps * size // LIMIT))
    if block >= steps:
        return pull(*stacked)
    whole = steps - steps % block
    cut = lambda x: x[:whole].reshape(whole // block, block, *x.shape[1:])
    parts = jax.vmap(pull)(*jax.tree.map(cut, stacked))
    sums = jax.tree.map(pairwise, parts)
    if whole == steps:
        return sums
    rest = pull(*jax.tree.map(lambda x: x[whole:], stacked))
    return jax.tree.map(jnp.add, sums, rest)


def pairwise(x: Array) -> Array:
    """The sum over the leading axis, whose rounding grows with the logarithm of its length."""
    while x.shape[0] > 1:
        half = x.shape[0] // 2
        rest = x[2 * half :]
        x = jnp.concatenate([x[:half] + x[half : 2 * half], rest])
    return x[0]

"""Which rows train, and which validate: drawn anew by each key."""

from abc import abstractmethod
from typing import final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from hindgrad.apps.table import DataError, Table, strata


class Split(eqx.Module):
    """Draws some rows of a pool to train on and others to validate on. How many is always the
    same, so that trainings are compiled once."""

    train_slots: eqx.AbstractVar[Int[Array, " train"]]
    valid_slots: eqx.AbstractVar[Int[Array, " valid"]]

    @abstractmethod
    def order(self, key: PRNGKeyArray) -> Int[Array, " pool"]:
        """The rows of the pool in an order of which the slots take their parts."""

    def draw(self, key: PRNGKeyArray) -> tuple[Int[Array, " train"], Int[Array, " valid"]]:
        """The rows to train on and those to validate on."""
        order = self.order(key)
        return order[self.train_slots], order[self.valid_slots]


@final
class Stratified(Split):
    """Every part has its share of each class, or of each quantile of a target."""

    strata: Int[Array, " pool"]
    train_slots: Int[Array, " train"]
    valid_slots: Int[Array, " valid"]

    def order(self, key: PRNGKeyArray) -> Int[Array, " pool"]:
        noise = jax.random.uniform(jax.random.fold_in(key, 1), self.strata.shape)
        return jnp.lexsort((noise, self.strata))


@final
class Grouped(Split):
    """No group has rows in both parts.

    Groups come in random order; the first rows validate, the last train, and so many lie between
    that no group reaches from one part into the other: one less than the largest group has.
    """

    groups: Int[Array, " pool"]
    count: int = eqx.field(static=True)
    train_slots: Int[Array, " train"]
    valid_slots: Int[Array, " valid"]

    def order(self, key: PRNGKeyArray) -> Int[Array, " pool"]:
        first, second = jax.random.split(jax.random.fold_in(key, 1))
        noise = jax.random.uniform(first, self.groups.shape)
        places = jax.random.permutation(second, self.count)
        return jnp.lexsort((noise, places[self.groups]))


@final
class Whole(Split):
    """All rows train, and the same ones say how well that went."""

    train_slots: Int[Array, " pool"]
    valid_slots: Int[Array, " pool"]

    @classmethod
    def of(cls, rows: int) -> "Whole":
        """Of so many rows."""
        return cls(jnp.arange(rows), jnp.arange(rows))

    def order(self, key: PRNGKeyArray) -> Int[Array, " pool"]:
        del key
        return self.train_slots


@final
class Fixed(Split):
    """The same rows at every draw."""

    train_slots: Int[Array, " train"]
    valid_slots: Int[Array, " valid"]
    rows: int = eqx.field(static=True)
    """How many there are in all."""

    def order(self, key: PRNGKeyArray) -> Int[Array, " pool"]:
        del key
        return jnp.arange(self.rows)


def set_aside(table: Table, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The pool, and the rows to test on: about `share` of all, whole groups if there are any."""
    rng = np.random.default_rng(seed)
    if table.groups is None:
        groups = strata(table)
        order = np.lexsort((rng.random(len(groups)), groups))
        pool, test = slots(np.bincount(groups), share)
        return order[pool], order[test]
    counts = np.bincount(table.groups)
    present = rng.permutation(np.flatnonzero(counts))
    before = np.cumsum(counts[present]) - counts[present]
    tested = present[
        : max(1, np.count_nonzero(before + counts[present] / 2 <= share * len(table.y)))
    ]
    aside = np.isin(table.groups, tested[: len(present) - 2])
    order = rng.permutation(len(table.y))
    return order[~aside[order]], order[aside[order]]


def split_of(table: Table, pool: np.ndarray, share: float) -> Split:
    """How the pool is divided: about `share` of it validates.

    Raises `DataError` if that leaves no rows for one of the parts.
    """
    if table.groups is None:
        groups = strata(table)[pool]
        train, valid = slots(np.bincount(groups), share)
        _check(table, valid)
        return Stratified(jnp.asarray(groups), jnp.asarray(train), jnp.asarray(valid))
    division = _grouped(table.groups[pool], share)
    _check(table, np.asarray(division.valid_slots))
    return division


def halves(groups: np.ndarray) -> Split:
    """Half of the rows trains and half validates, but for those between."""
    return _grouped(groups, 0.5)


def _grouped(numbers: np.ndarray, share: float) -> Grouped:
    _, groups = np.unique(numbers, return_inverse=True)
    counts, rows = np.bincount(groups), len(groups)
    gap = int(counts.max()) - 1
    most = rows - gap
    valid = np.arange(max(0, min(max(1, round(share * most)), most - 1)))
    train = np.arange(len(valid) + gap, rows)
    return Grouped(
        groups=jnp.asarray(groups, jnp.int32),
        count=len(counts),
        train_slots=jnp.asarray(train),
        valid_slots=jnp.asarray(valid),
    )


def _check(table: Table, valid: np.ndarray) -> None:
    if not len(valid):
        raise DataError(
            f"{table.name}: --test leaves no row to validate by; lower it, or give more rows."
        )


def slots(counts: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions, in an order that is sorted by group, of the rows that stay and of those that are
    set aside: `share` of each group, at least one row, and never all."""
    apart = np.clip(np.round(share * counts).astype(int), 1, np.maximum(counts - 1, 0))
    starts = np.cumsum(counts) - counts
    aside = [np.arange(a, a + n) for a, n in zip(starts, apart, strict=True)]
    stay = [np.arange(a + n, a + c) for a, n, c in zip(starts, apart, counts, strict=True)]
    return np.concatenate(stay), np.concatenate(aside)

"""One leaf of the hyperparameters, as a user points at it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

Where = Callable[[PyTree], Any]
"""A function from the hyperparameters to one leaf: `lambda hyper: hyper["weight"]`."""


class Leaf(NamedTuple):
    """Which of the hyperparameters' floats."""

    place: int
    """Its number among them."""
    name: str
    """Its path, as it is shown."""

    def of(self, tree: PyTree) -> Array:
        """That leaf of a tree like the hyperparameters."""
        return _floats(tree)[0][self.place]

    def put(self, hyper: PyTree, value: Array) -> PyTree:
        """The hyperparameters with another value there."""
        floats, rest = eqx.partition(hyper, eqx.is_inexact_array)
        leaves, structure = jax.tree.flatten(floats)
        leaves[self.place] = value
        return eqx.combine(jax.tree.unflatten(structure, leaves), rest)


def found(caller: str, where: Where, hyper: PyTree) -> Leaf:
    """The leaf that `where` points at.

    Raises `ValueError` if that is not exactly one leaf of floats.
    """
    leaves, structure = _floats(hyper)
    places = list(map(_Place, range(len(leaves))))
    try:
        place: Any = where(jax.tree.unflatten(structure, places))
    except (LookupError, AttributeError, TypeError) as error:
        raise ValueError(_no_leaf(caller, hyper)) from error
    if not isinstance(place, _Place):
        raise ValueError(_no_leaf(caller, hyper))
    return Leaf(place.number, _names(hyper)[place.number])


class _Place:
    """Stands for a leaf: it can be picked, and nothing can be computed with it."""

    def __init__(self, number: int):
        self.number = number


def only_row_of_numbers(hyper: PyTree) -> Leaf | None:
    """The only leaf of floats with one axis; None if there is none, or several."""
    leaves, _ = _floats(hyper)
    rows = [place for place, leaf in enumerate(leaves) if leaf.ndim == 1]
    return Leaf(rows[0], _names(hyper)[rows[0]]) if len(rows) == 1 else None


def _floats(tree):
    return jax.tree.flatten(eqx.filter(tree, eqx.is_inexact_array))


def _names(hyper):
    paths = jax.tree.leaves_with_path(eqx.filter(hyper, eqx.is_inexact_array))
    return ["hyper" + jax.tree_util.keystr(path) for path, _ in paths]


def _no_leaf(caller, hyper):
    return (
        f'{caller} needs a function that picks one leaf of floats, lambda hyper: hyper["weight"], '
        f"say. There are {', '.join(_names(hyper))}."
    )

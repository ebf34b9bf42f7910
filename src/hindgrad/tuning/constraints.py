"""Constraints on hyperparameters, as exact Euclidean projections.

Each constraint says what holds for the hyperparameter at an address. All that is said about one
array is brought into one form: bounds, at most one coupling of all its elements (their sum, or
that of their absolute values), and symmetry. That form has a projection in O(n log n), which is
why constraints that meet on one array are still projected onto exactly, and not in turns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from hindgrad import trees
from hindgrad.tuning.projections import AbsoluteTotal, Coupling, Total


@dataclass(frozen=True, eq=False)
class Region:
    """What is said about one array: the normal form."""

    lower: np.ndarray | float = -np.inf
    upper: np.ndarray | float = np.inf
    coupling: Coupling | None = None
    symmetric: bool = False
    zero_diagonal: bool = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Region) and self._content() == other._content()

    def __hash__(self):
        return hash(self._content())

    def _content(self):
        """All of it as values: equal constraints share what was compiled for one of them."""
        bounds = [np.asarray(bound, np.float64) for bound in (self.lower, self.upper)]
        values = tuple((bound.shape, bound.tobytes()) for bound in bounds)
        return values, self.coupling, self.symmetric, self.zero_diagonal

    @property
    def whole(self) -> bool:
        """Whether it concerns the array as a whole, not each element for itself."""
        return self.coupling is not None or self.symmetric

    def project(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The nearest point, where the bounds have the shape of `x`.

        Transposition changes neither symmetric bounds nor a coupling, so the nearest symmetric
        matrix is projected onto them and stays symmetric, and that is the exact projection.
        """
        y = x.astype(trees.widest(x.dtype))
        if self.symmetric:
            y = 0.5 * (y + jnp.swapaxes(y, -1, -2))
        lower, upper = _constant(self.lower, y), _constant(self.upper, y)
        if self.coupling is None:
            y = jnp.clip(y, lower, upper)
        else:
            flat = self.coupling.project(y.ravel(), lower.ravel(), upper.ravel())
            y = flat.reshape(y.shape)
        return y.astype(x.dtype)


Regions = tuple[tuple[str, Region], ...]
"""Addresses, and what is said about the hyperparameters there."""


class Constraint(eqx.Module):
    """A closed convex set of hyperparameters. Called with hyperparameters it gives the nearest
    ones in the set: the Euclidean projection.

    A hyperparameter is addressed by its name in `hyper`, or by a dotted path through
    dictionaries, sequences and attributes: `"layers.0.rate"` is `hyper["layers"][0].rate`, and
    `""` is the whole of `hyper`. What is not floating-point is left alone.

    `a & b` is the intersection. It is exact, also where both constrain one array, with at most
    one `Simplex` or `L1Ball` for each array; bounds on a `Symmetric` matrix must be symmetric.
    A constraint is static under `jax.jit`, and calling it works under `jit` and `vmap`.

    >>> constraint = hg.constraints.Box(w=(0, 1)) & hg.constraints.L1Ball(w=1.25)
    >>> constraint({"w": jnp.array([3.0, -1.0, 0.5])})["w"].tolist()
    [1.0, 0.0, 0.25]

    Calling raises `ValueError` if there is nothing at an address, or nothing that can be
    constrained, and if the constraints on an array cannot all be satisfied.
    """

    regions: eqx.AbstractVar[Regions]

    def __call__(self, hyper: PyTree) -> PyTree:
        named, structure = jax.tree_util.tree_flatten_with_path(hyper, lambda x: x is None)
        names = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in named]
        leaves = [leaf for _, leaf in named]
        said: dict[int, list[Region]] = {}
        for address, region in self.regions:
            for i in _addressed(address, region, names, leaves):
                said.setdefault(i, []).append(region)
        for i, regions in said.items():
            leaf = trees.as_hyper(leaves[i])
            leaves[i] = _meet(names[i], regions, jnp.shape(leaf)).project(leaf)
        return jax.tree.unflatten(structure, leaves)

    def __and__(self, other: "Constraint") -> "Intersection":
        return Intersection(self, other)


@final
class Box(Constraint):
    """Bounds: `Box(rate=(0, None), decay=(0, 1))`, or `Box({"layers.0.rate": (0, 1)})`.

    A pair for each address: lower and upper bound, each a number, None for none, or an array that
    broadcasts to the hyperparameter. At an address with several arrays below, it bounds each.

    Raises `ValueError` if a bound is NaN or a lower bound is above an upper one.
    """

    regions: Regions = eqx.field(static=True)

    def __init__(self, bounds: Mapping[str, Any] | None = None, /, **named: Any):
        given = _given("Box", "(0, 1)", bounds, named)
        self.regions = tuple((address, _bounds(address, pair)) for address, pair in given.items())


@final
class NonNegative(Constraint):
    """No element below 0: `NonNegative("rho", "layers.0.rate")`.

    At an address with several arrays below, each of them.
    """

    regions: Regions = eqx.field(static=True)

    def __init__(self, *addresses: str):
        region = Region(lower=0.0)
        self.regions = tuple((a, region) for a in _names("NonNegative", addresses))


@final
class Simplex(Constraint):
    """Elements of at least 0 that sum to a total: `Simplex(weights=1.0)`.

    Raises `ValueError` if the total is negative or not finite.
    """

    regions: Regions = eqx.field(static=True)

    def __init__(self, totals: Mapping[str, Any] | None = None, /, **named: Any):
        given = _given("Simplex", "1.0", totals, named)
        self.regions = tuple(
            (a, Region(lower=0.0, coupling=Total(_size("Simplex", a, total))))
            for a, total in given.items()
        )


@final
class L1Ball(Constraint):
    """Absolute values that sum to at most a radius: `L1Ball(weights=1500.0)`.

    With `Box(weights=(0, 1))` it is the set of the data hyper-cleaning of Franceschi et al. 2017.

    Raises `ValueError` if the radius is negative or not finite.
    """

    regions: Regions = eqx.field(static=True)

    def __init__(self, radii: Mapping[str, Any] | None = None, /, **named: Any):
        given = _given("L1Ball", "1.0", radii, named)
        self.regions = tuple(
            (a, Region(coupling=AbsoluteTotal(_size("L1Ball", a, radius))))
            for a, radius in given.items()
        )


@final
class Symmetric(Constraint):
    """Symmetric matrices (the last two axes): `Symmetric("C")`.

    **Arguments:**

    - `addresses`: the matrices.
    - `zero_diagonal`: whether their diagonals are held at 0 as well.
    """

    regions: Regions = eqx.field(static=True)

    def __init__(self, *addresses: str, zero_diagonal: bool = False):
        region = Region(symmetric=True, zero_diagonal=zero_diagonal)
        self.regions = tuple((a, region) for a in _names("Symmetric", addresses))


@final
class Intersection(Constraint):
    """What lies in all of several constraints; made by `&`."""

    regions: Regions = eqx.field(static=True)

    def __init__(self, *constraints: Constraint):
        for constraint in constraints:
            if not isinstance(constraint, Constraint):
                raise TypeError(
                    f"{constraint!r} cannot be joined to constraints: onto an intersection with a "
                    "function of your own there is no exact projection. Give one function that "
                    "does all of it, or only constraints such as Box and Simplex."
                )
        self.regions = sum((constraint.regions for constraint in constraints), ())


def projection(project: Any) -> Callable[[PyTree], PyTree]:
    """One function hyper → hyper from None, a constraint, a sequence of them (all of which are to
    hold) or a function of the user's.

    Raises `TypeError` if it is none of these.
    """
    if project is None:
        return _unchanged
    if isinstance(project, (list, tuple)):
        return Intersection(*project)
    if isinstance(project, Constraint):
        return project
    if callable(project):
        return _Projection(project)
    raise TypeError(
        f"{project!r} is no projection: give a constraint such as Box(rate=(0, None)), a list of "
        "constraints, a function hyper -> hyper, or None."
    )


def _unchanged(hyper):
    return hyper


class _Projection(eqx.Module):
    """A function of the user's, checked to keep the hyperparameters' shapes."""

    function: Callable[[PyTree], PyTree]

    def __call__(self, hyper: PyTree) -> PyTree:
        before, after = trees.as_hyper(hyper), trees.as_hyper(self.function(hyper))
        shapes = lambda tree: jax.tree.map(lambda x: jnp.shape(x) if eqx.is_array(x) else (), tree)
        if shapes(before) != shapes(after):
            raise ValueError(
                f"project=… turned hyperparameters of the shapes {shapes(before)} into "
                f"{shapes(after)}; it must give back the same."
            )
        is_float = eqx.is_inexact_array
        cast = lambda x, y: jnp.asarray(y).astype(x.dtype) if is_float(x) else y
        return jax.tree.map(cast, before, after)


def _constant(bound, like: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """A bound as an array; one number is not stored as many."""
    bound = np.asarray(bound)
    if bound.size and (bound == bound.flat[0]).all():
        return jnp.full_like(like, bound.flat[0])
    return jnp.asarray(bound, like.dtype)


def _meet(name: str, regions: list[Region], shape: tuple[int, ...]) -> Region:
    """All that is said about one array of that shape, checked to leave something."""
    where = f"The constraints on {name!r}, of shape {shape},"
    try:
        lower = np.max([np.broadcast_to(r.lower, shape) for r in regions], axis=0)
        upper = np.min([np.broadcast_to(r.upper, shape) for r in regions], axis=0)
    except ValueError:
        shapes = {np.shape(b) for r in regions for b in (r.lower, r.upper)} - {()}
        raise ValueError(
            f"{where} have bounds of shapes {sorted(shapes)}; bounds must broadcast to it."
        ) from None
    symmetric = any(r.symmetric for r in regions)
    if symmetric:
        if len(shape) < 2 or shape[-1] != shape[-2]:
            raise ValueError(f"{where} say that it is symmetric; a square matrix is needed.")
        if any((b != np.swapaxes(b, -1, -2)).any() for b in (lower, upper)):
            raise ValueError(
                f"{where} have bounds that differ from their transpose, though the matrix is "
                "symmetric; give the same bound for both of two mirrored elements."
            )
    if any(r.zero_diagonal for r in regions):
        diagonal = np.broadcast_to(np.eye(shape[-1], dtype=bool), shape)
        lower = np.where(diagonal, np.maximum(lower, 0), lower)
        upper = np.where(diagonal, np.minimum(upper, 0), upper)
    empty = (lower > upper) | (lower == np.inf) | (upper == -np.inf)
    if empty.any():
        at = np.unravel_index(np.argmax(empty), shape)
        raise ValueError(
            f"{where} leave nothing: the lower bound is {lower[at]:g} and the upper one "
            f"{upper[at]:g}" + (f" at index {tuple(map(int, at))}." if at else ".")
        )
    couplings = [r.coupling for r in regions if r.coupling is not None]
    if len(couplings) > 1:
        raise ValueError(
            f"{where} hold {len(couplings)} of Simplex and L1Ball; only one for an array can be "
            f"projected onto exactly. Found: {couplings}."
        )
    coupling = couplings[0] if couplings else None
    conflict = coupling and coupling.conflict(lower, upper)
    if conflict:
        raise ValueError(f"{where} leave nothing: {conflict}.")
    return Region(lower, upper, coupling, symmetric)


def _addressed(address: str, region: Region, names: list[str], leaves: list) -> list[int]:
    """Which leaves a region at an address is about."""
    inside = lambda name: not address or name == address or name.startswith(address + ".")
    found = [i for i, name in enumerate(names) if inside(name)]
    if not found:
        there = ", ".join(map(repr, names)) or "nothing"
        raise ValueError(f"There is no {address!r} in the hyperparameters; there is {there}.")
    floats = [i for i in found if _is_float(leaves[i])]
    if not floats:
        values = ", ".join(f"{names[i]!r}: {leaves[i]!r}" for i in found)
        raise ValueError(
            f"Nothing at {address!r} can be constrained, as it is not floating-point: {values}. "
            "Write a number as 1.0."
        )
    if region.whole and [names[i] for i in found] != [address]:
        raise ValueError(
            f"Simplex, L1Ball and Symmetric each concern one array, and {address!r} has "
            f"{', '.join(repr(names[i]) for i in found)} below it; name one of these."
        )
    return floats


def _is_float(leaf):
    if isinstance(leaf, (jax.Array, np.ndarray, np.generic)):
        return jnp.issubdtype(leaf.dtype, jnp.floating)
    return isinstance(leaf, float)


def _given(kind, example, mapping, named):
    """What is said for each address, by a mapping or by keywords."""
    if mapping is not None and not isinstance(mapping, Mapping):
        raise TypeError(
            f"{kind}({mapping!r}) does not say which hyperparameter: write {kind}(rate={example})"
            f' or {kind}({{"layers.0.rate": {example}}}).'
        )
    given = {**(mapping or {}), **named}
    if not given:
        raise ValueError(f"{kind}() constrains nothing: write {kind}(rate={example}).")
    return given


def _names(kind, addresses):
    if not addresses:
        raise ValueError(f'{kind}() constrains nothing: write {kind}("name").')
    return addresses


def _bounds(address, pair):
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ValueError(
            f"Box: {address!r} has {pair!r}, not a pair of bounds such as (0, 1) or (0, None)."
        )
    values = zip(pair, (-np.inf, np.inf), strict=True)
    lower, upper = (_known("Box", address, none if x is None else x) for x, none in values)
    if np.isnan(lower).any() or np.isnan(upper).any():
        raise ValueError(f"Box: a bound of {address!r} is NaN; None stands for no bound.")
    region = Region(lower, upper)
    if lower.ndim == upper.ndim == 0:
        _meet(address, [region], ())
    return region


def _size(kind, address, value):
    number = _known(kind, address, value)
    if number.ndim or not 0 <= number < np.inf:
        raise ValueError(
            f"{kind}: {address!r} has {value!r}; one finite number, at least 0, is needed."
        )
    return float(number)


def _known(kind, address, value):
    try:
        return np.asarray(value, np.float64)
    except jax.errors.TracerArrayConversionError:
        raise ValueError(
            f"{kind}: what {address!r} has is traced, but constraints are checked beforehand; make "
            "them outside of jax.jit, jax.grad and jax.vmap."
        ) from None

"""Where arrays are: on one device, or split over the devices of a mesh."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.core import ShapedArray, Tracer
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Shaped


def is_spread(x: Any) -> bool:
    """Whether this is an array on several devices. (Of one that is being traced, nothing is known;
    on an explicit mesh, its type says where it is.)"""
    return isinstance(x, jax.Array) and not isinstance(x, Tracer) and x.sharding.num_devices > 1


def mesh_of(tree: Any) -> Mesh | None:
    """The mesh on which a tree's arrays are, or that which is set; None if there is none."""
    current = _of_arrays(tree) or jax.sharding.get_mesh()
    return None if current.empty else current


def mesh_within(tree: Any) -> Mesh | AbstractMesh:
    """The same within a program too, where the arrays may be traced; an empty one if there is
    none."""
    return _of_arrays(tree) or jax.sharding.get_abstract_mesh()


def _of_arrays(tree):
    for x in jax.tree.leaves(tree):
        if is_spread(x) and isinstance(x.sharding, NamedSharding):
            return cast(Mesh, x.sharding.mesh)  # that of an array which is there
    return None


def devices(tree: Any) -> int:
    """On how many devices a tree's arrays are."""
    return max((x.sharding.num_devices for x in jax.tree.leaves(tree) if is_spread(x)), default=1)


def split_first(x: Shaped[Array, "n ..."], lanes: NamedSharding) -> Shaped[Array, "n ..."]:
    """`x`, split by its first axis as `lanes` are."""
    rest = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 1)
    place = NamedSharding(lanes.mesh, PartitionSpec(*lanes.spec, *rest))
    return jax.lax.with_sharding_constraint(x, place)


def own_part(split: NamedSharding, size: int) -> slice:
    """Which of `size` rows the devices of this process have.

    Raises `ValueError` if those are not one after another.
    """
    parts = split.addressable_devices_indices_map((size,)).values()
    ranges = sorted({part[0].indices(size)[:2] for part in parts if part is not None})
    (first, _), (_, last) = ranges[0], ranges[-1]
    if any(a[1] < b[0] for a, b in itertools.pairwise(ranges)):
        raise ValueError(f"The rows of process {jax.process_index()} are apart: {ranges}.")
    return slice(first, last)


def at(x: Shaped[Array, "*shape"], split: NamedSharding | None) -> Shaped[Array, "*shape"]:
    """`x`, with its first axis split as that of another array."""
    if split is None:
        return x
    place = NamedSharding(split.mesh, PartitionSpec(split.spec[0], *[None] * (x.ndim - 1)))
    return _put(x, place, typed=AxisType.Explicit in split.mesh.axis_types)


def lanes(axis: str, mesh: Mesh | AbstractMesh | None, what: str) -> NamedSharding:
    """How `what` is independent is split over an axis of the mesh.

    Raises `ValueError` if there is no such axis over which the compiler splits arrays.
    """
    types = () if mesh is None else zip(mesh.axis_names, mesh.axis_types, strict=True)
    automatic = [repr(name) for name, kind in types if kind == AxisType.Auto]
    if repr(axis) not in automatic:
        raise ValueError(
            f"{what} are split over an automatic axis of a mesh, and there is "
            f"{', '.join(automatic) or 'none'}. See jax.set_mesh and "
            "jax.make_mesh(…, axis_types=…)."
        )
    return NamedSharding(cast(Mesh, mesh), PartitionSpec(axis))


def again(spec: Sequence[Any], mesh: Mesh) -> NamedSharding:
    """A place as it was on another mesh: split over the axes of the same names."""
    known = [tuple(name for name in _names(_as_entry(e)) if name in mesh.shape) for e in spec]
    return NamedSharding(mesh, PartitionSpec(*[entry or None for entry in known]))


def kept(x: Array) -> Array:
    """An array on several devices, as a constant of a program: that is a whole copy on every
    device, and what is computed from it too, unless it is said where it is."""
    sharding = x.sharding
    if not isinstance(sharding, NamedSharding):
        return x
    mesh = sharding.mesh
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    spec = [_only_auto(entry, types) for entry in sharding.spec]
    if all(entry is None for entry in spec) and AxisType.Auto not in mesh.axis_types:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*spec)))


def rows(array: Any) -> NamedSharding | None:
    """Where an array is, if its rows are split over devices, as far as that is known."""
    sharding = _sharding(array)
    if not isinstance(sharding, NamedSharding) or not any(sharding.spec[:1]):
        return None
    return sharding


def of_all_rows(arrays: Sequence[Any]) -> tuple[NamedSharding | None, ...]:
    """The same of several arrays with rows in common. Where one of them is, is not known within a
    program: there it is taken to be split as the first is that is known to be."""
    known = list(map(rows, arrays))
    first = next((sharding for sharding in known if sharding is not None), None)
    if first is None:
        return tuple(known)
    split = NamedSharding(first.mesh, PartitionSpec(first.spec[0]))
    is_unknown = lambda x: isinstance(x, Tracer) and _sharding(x) is None
    pairs = zip(arrays, known, strict=True)
    return tuple(split if is_unknown(x) else sharding for x, sharding in pairs)


def ways(sharding: NamedSharding) -> int:
    """Over how many devices the rows of an array with that sharding are split."""
    return math.prod(sharding.mesh.shape[name] for name in _names(sharding.spec[0]))


def cut(
    x: Shaped[Array, "n *row"], size: int, sharding: NamedSharding | None
) -> Shaped[Array, "parts size *row"]:
    """Rows in parts of `size`, each of which is split over the devices as all are (`sharding`,
    where the type does not say it)."""
    typed, split = _typed_and_split(x, sharding)
    if typed is not None:
        of_rows = PartitionSpec(None, *typed.spec[1:])
        x = jax.sharding.reshard(x, NamedSharding(typed.mesh, of_rows))
    x = x.reshape(-1, size, *x.shape[1:])
    if split is None or size % ways(split):
        return x
    of_rest = (None,) * (x.ndim - 2) if typed is None else typed.spec[1:]
    target = NamedSharding(split.mesh, PartitionSpec(None, split.spec[0], *of_rest))
    return _put(x, target, typed=typed is not None)


class Across(NamedTuple):
    """The devices over which rows are split."""

    split: NamedSharding | None
    """None for one device, or where it is not known."""
    typed: bool
    """Whether types say where arrays are."""

    @classmethod
    def of(cls, array: Any, sharding: NamedSharding | None) -> "Across":
        """Those of an array's rows (`sharding`, where its type does not say it)."""
        typed, split = _typed_and_split(array, sharding)
        return cls(split, typed is not None or of_type(array) is not None)

    @property
    def names(self) -> tuple[str, ...] | None:
        """The mesh's axes of them."""
        return None if self.split is None else _names(self.split.spec[0])

    @property
    def devices(self) -> int:
        """How many they are."""
        return 1 if self.split is None else ways(self.split)

    def cut(
        self, x: Shaped[Array, "n *row"], inside: int, size: int
    ) -> Shaped[Array, "inside devices size *row"]:
        """Rows as parts of that size, so many on each device."""
        place, typed = None, of_type(x)
        if self.split is not None and typed is not None:
            spec = PartitionSpec(self.names, None, None, *typed.spec[1:])
            place = NamedSharding(self.split.mesh, spec)
        shape = self.devices, inside, size, *x.shape[1:]
        return self.placed(jnp.moveaxis(jnp.reshape(x, shape, out_sharding=place), 0, 1))

    def spread(
        self, x: Shaped[Array, "*shape"], inside: int
    ) -> Shaped[Array, "inside devices *shape"]:
        """The same for each of so many parts on each device."""
        return self.placed(jnp.broadcast_to(x, (inside, self.devices, *x.shape)))

    def placed(self, x: Shaped[Array, "inside devices ..."]) -> Shaped[Array, "inside devices ..."]:
        """The same, with the second axis over the devices."""
        if self.split is None:
            return x
        rest, typed = [PartitionSpec.UNCONSTRAINED] * (x.ndim - 2), of_type(x)
        if self.typed:
            rest = [] if typed is None else [_without(e, self.names) for e in typed.spec[2:]]
        place = NamedSharding(self.split.mesh, PartitionSpec(None, self.names, *rest))
        return _put(x, place, typed=self.typed)


def shares(x: Any, axis: int) -> int:
    """Into how many equal parts an axis is cut such that none of them is on several devices."""
    typed = of_type(x)
    if typed is None:
        return math.gcd(x.shape[axis], jax.device_count())
    return math.prod(typed.mesh.shape[name] for name in _names(typed.spec[axis]))


def chosen(
    array: Shaped[Array, "n *row"], index: Int[Array, " size"], sharding: NamedSharding | None
) -> Shaped[Array, "size *row"]:
    """Some rows of an array, split over the devices as those are (`sharding`, where its type does
    not say it): each device then works on its own share of them."""
    typed, sharding = _typed_and_split(array, sharding)
    is_split = sharding is not None and index.size % ways(sharding) == 0
    explicit = None
    if typed is not None:
        explicit = PartitionSpec(typed.spec[0] if is_split else None, *typed.spec[1:])
    elif sharding is not None:
        array = jax.lax.with_sharding_constraint(array, sharding)
    found = array.at[index].get(
        mode="promise_in_bounds", wrap_negative_indices=False, out_sharding=explicit
    )
    if typed is None and is_split:
        found = jax.lax.with_sharding_constraint(found, sharding)
    return found


def on_mesh(x: Any) -> Any:
    """`x`, or its struct; where there is an explicit mesh, with a type that is of it."""
    mesh = jax.sharding.get_abstract_mesh()
    is_struct = isinstance(x, jax.ShapeDtypeStruct)
    if AxisType.Explicit not in mesh.axis_types or not (is_struct or isinstance(x, jax.Array)):
        return x
    sharding = NamedSharding(mesh, PartitionSpec(*[None] * x.ndim))
    if is_struct:
        sharding = x.sharding or sharding
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    return jax.sharding.reshard(x, sharding) if jax.typeof(x).sharding.mesh.empty else x


def like(x: Shaped[Array, "*shape"], other: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """`x`, where the type of another array says that that is."""
    sharding = of_type(other)
    return x if sharding is None else jax.sharding.reshard(x, sharding)


def whole(x: Shaped[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """`x`, of which every device has all, where its type says that it has not."""
    sharding = of_type(x)
    if sharding is None:
        return x
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec()))


def stacked_like(
    x: Shaped[Array, "count *shape"], other: Shaped[Array, "*shape"]
) -> Shaped[Array, "count *shape"]:
    """The same for several such arrays, stacked."""
    sharding = of_type(other)
    if sharding is None:
        return x
    spec = PartitionSpec(None, *sharding.spec)
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, spec))


def _put(x, place, *, typed):
    """`x` there: a matter of its type, or for the compiler."""
    return (jax.sharding.reshard if typed else jax.lax.with_sharding_constraint)(x, place)


def _typed_and_split(x, sharding):
    """How rows are split according to the type, None if it does not say; and how they are split."""
    if of_type(x) is None and not (sharding and AxisType.Explicit in sharding.mesh.axis_types):
        return None, sharding
    return rows(x), rows(x)


def _sharding(x):
    """That of an array on several devices, or of what is on an explicit mesh."""
    return x.sharding if is_spread(x) else of_type(x)


def of_type(x: Any) -> NamedSharding | None:
    """Where the type of an array says that it is; on no mesh or on an automatic one, nothing."""
    sharding = x.sharding if isinstance(x, ShapedArray) else jax.typeof(x).sharding
    return sharding if AxisType.Explicit in sharding.mesh.axis_types else None


def _as_entry(entry):
    return tuple(entry) if isinstance(entry, list) else entry


def _names(entry):
    return entry if isinstance(entry, tuple) else () if entry is None else (entry,)


def _without(entry, others):
    """One entry of a partition without some axes."""
    return tuple(name for name in _names(entry) if name not in others) or None


def _only_auto(entry, types):
    """The names in one entry of a partition that types do not know: those of automatic axes."""
    names = tuple(name for name in _names(entry) if types.get(name) == AxisType.Auto)
    return names or None

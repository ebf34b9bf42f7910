#!/usr/bin/env bash
# jax 0.10.1: on the mesh that `jax.make_mesh` makes by default (explicit axes), `jax.scipy.sparse.linalg.cg`
# raises ShardingTypeError for every vector that is split over devices, whatever the operator: its inner
# products are `jnp.vdot`, which wants to be told where its one number lies. `jnp.sum(x * y)` needs no telling,
# and on a mesh of automatic axes `cg` solves the same system.
#
# Seen: explicit: cg ShardingTypeError, vdot ShardingTypeError, sum of products 56.0; auto: cg solves
source "$(dirname "$0")/environment.sh"
environment jax==0.10.1 jaxlib==0.10.1
XLA_FLAGS=--xla_force_host_platform_device_count=4 python - <<'PYTHON'
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def tried(function):
    """What it gives, or the kind of its error."""
    try:
        return np.asarray(function())
    except Exception as error:
        return type(error).__name__


def on(mesh):
    """A system solved by `cg`, and two inner products, of vectors split over a mesh."""
    with jax.set_mesh(mesh):
        x = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, PartitionSpec("d")))
        y = jax.device_put(jnp.full(8, 2.0), x.sharding)
        solved = tried(lambda: jax.scipy.sparse.linalg.cg(lambda v: 4 * v, x)[0])
        return solved, tried(lambda: jnp.vdot(x, y)), tried(lambda: jnp.sum(x * y))


default = jax.make_mesh((4,), ("d",))
assert default.axis_types == (AxisType.Explicit,)
solved, product, total = on(default)
print(f"explicit: cg {solved}, vdot {product}, sum of products {total}; ", end="")
assert solved == product == "ShardingTypeError", "it is accepted now"
assert total == 56
solved, product, _ = on(jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,)))
print("auto: cg", "solves" if np.allclose(solved, np.arange(8) / 4) else "does not")
assert np.allclose(solved, np.arange(8) / 4)
assert product == 56
PYTHON

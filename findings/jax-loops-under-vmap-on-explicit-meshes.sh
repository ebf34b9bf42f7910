#!/usr/bin/env bash
# jax 0.12.0.1 (and 0.10.1): jax.vmap over an array that is split over an explicit axis, the kind that
# jax.make_mesh makes. A loop whose carry begins with a number written into the program raises a
# ValueError about a mesh without axes; the same loop that begins with jnp.ones(()) runs.
#
# Seen: from jnp.ones(()): [0. 1.]; from 1.0: ValueError: Resource axis: runs of P('runs',) is not found in mesh: ().
source "$(dirname "$0")/environment.sh"
environment jax==0.12.0.1 jaxlib==0.12.0.1
XLA_FLAGS=--xla_force_host_platform_device_count=2 python - <<'PYTHON'
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

mesh = jax.make_mesh((2,), ("runs",))


def cubed(begin):
    loop = lambda x: jax.lax.fori_loop(0, 3, lambda i, total: total * x, begin())
    with jax.set_mesh(mesh):
        x = jax.device_put(jnp.arange(2.0), NamedSharding(mesh, PartitionSpec("runs")))
        return jax.vmap(loop)(x)


print("from jnp.ones(())", cubed(lambda: jnp.ones(())))
try:
    print("from 1.0", cubed(lambda: 1.0))
except ValueError as error:
    print("from 1.0", error)
    assert "is not found in mesh: ()" in str(error)
else:
    raise SystemExit("it runs now")
PYTHON

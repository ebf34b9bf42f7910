#!/usr/bin/env bash
# jax 0.12.0.1 (and 0.10.1): the layers of a network are stacked, and jax.lax.scan goes over them. If the
# stack is split over devices by the axis that the scan goes over, two layers on each of eight devices, the
# compiler gathers all layers on every device before the loop. Split by any other axis, one layer at a time
# is gathered, within the loop, and the gradient takes a tenth of the memory.
#
# Seen: layers: gathers of [16, 256, 256], 8.4 MiB; rows: gathers of [256, 256], 0.7 MiB; columns: 0.6 MiB.
source "$(dirname "$0")/environment.sh"
environment jax==0.12.0.1 jaxlib==0.12.0.1
XLA_FLAGS=--xla_force_host_platform_device_count=8 python - <<'PYTHON'
import re

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

mesh = jax.make_mesh((8,), ("d",), axis_types=(AxisType.Auto,))


def loss(layers, x):
    layer = jax.checkpoint(lambda x, w: (jnp.tanh(x @ w), None))
    return jnp.sum(jax.lax.scan(layer, x, layers)[0])


def compiled(spec):
    layers = jax.device_put(jnp.ones((16, 256, 256)), NamedSharding(mesh, spec))
    x = jax.device_put(jnp.ones((64, 256)), NamedSharding(mesh, P("d")))
    program = jax.jit(jax.grad(loss)).lower(layers, x).compile()
    gathers = re.findall(r"= f32\[([\d,]+)\]\S* all-gather\(", program.as_text())
    return gathers, program.memory_analysis().temp_size_in_bytes / 2**20


found = {
    name: compiled(spec)
    for name, spec in {"layers": P("d"), "rows": P(None, "d"), "columns": P(None, None, "d")}.items()
}
for name, (gathers, memory) in found.items():
    print(f"split by {name}: gathers of {', '.join(gathers)}; {memory:.1f} MiB")
assert "16,256,256" in found["layers"][0]
assert not any("16,256,256" in found[name][0] for name in ("rows", "columns"))
assert found["layers"][1] > 8 * max(found["rows"][1], found["columns"][1])
PYTHON

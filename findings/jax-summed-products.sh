#!/usr/bin/env bash
# jax 0.10.2 on a CPU: a matrix times each of many rows, squared and summed, comes out wrong under
# jax.jit, without a word (jax issue 39103). 0.10.1 and 0.12 are right.
#
# Seen: with 40,000 rows in float32 errors up to 6.4e-3 of values near 1; without jit none.
source "$(dirname "$0")/environment.sh"
environment jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
python - <<'PYTHON'
import jax
import jax.numpy as jnp

rows = jnp.stack([jnp.arange(40_000) / 40_000, jnp.ones(40_000), jnp.zeros(40_000)], 1)
sizes = lambda matrix: jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(rows)
error = float(jnp.abs(jax.jit(sizes)(jnp.eye(3)) - sizes(jnp.eye(3))).max())
print(f"off by {error:.1e}")
assert error > 1e-3, "the sums are right now"
PYTHON

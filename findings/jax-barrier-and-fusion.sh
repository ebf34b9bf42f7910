#!/usr/bin/env bash
# jax 0.10.2 on a CPU: optimization_barrier does not keep the compiler from contracting a product and a
# sum into one rounding: barrier(a b) + c has the same bits as a b + c, which are not those of the
# two operations one after the other. (With jax 0.12 the barrier holds.)
#
# Seen: of 10,000 sums 2,366 differ from NumPy's, with the barrier and without. Where the processor
# has no fused product and sum, none does, and nothing is told.
source "$(dirname "$0")/environment.sh"
environment jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
python - <<'PYTHON'
import jax
import jax.numpy as jnp
import numpy as np

rng = np.random.default_rng(0)
a, b, c = (rng.normal(size=10_000).astype(np.float32) for _ in range(3))
plain = jax.jit(lambda a, b, c: a * b + c)
behind = jax.jit(lambda a, b, c: jax.lax.optimization_barrier(a * b) + c)
contracted, held = (int(np.sum(np.asarray(f(a, b, c)) != a * b + c)) for f in (plain, behind))
print(contracted, "differ without the barrier,", held, "with it")
if contracted:
    assert held == contracted, "the barrier holds now"
PYTHON

#!/usr/bin/env bash
# jax 0.10.1, CPU: `jnp.vdot(x, y)` and `jnp.sum(x * y)` of large arrays take five to eight times as long
# as `(x * y).reshape(-1, 64) @ jnp.ones(64)`, whose sum is the same: a product of a matrix and a vector
# is vectorised, a sum of everything is not. With rows longer than there are rows, the product is slow
# too. A network's penalty on its weights, and its derivative by a scalar, are such sums.
#
# Seen (2^18 numbers, with an addition to all of them): vdot 336 us, sum 315 us, rows of 64 66 us,
# rows of 1024 288 us
here=$(cd "$(dirname "$0")" && pwd)
source "$here/environment.sh"
environment jax==0.10.1 jaxlib==0.10.1
PYTHONPATH=$here XLA_FLAGS=--xla_cpu_multi_thread_eigen=false python - <<'PYTHON'
import jax
import jax.numpy as jnp
from timed import microseconds

x, y = (jax.random.normal(jax.random.key(i), (512, 512)) for i in range(2))
rows = lambda n: lambda x: jnp.sum((x * y).reshape(-1, n) @ jnp.ones(n))
candidates = {
    "vdot": lambda x: jnp.vdot(x, y),
    "sum": lambda x: jnp.sum(x * y),
    "rows of 64": rows(64),
    "rows of 1024": rows(1024),
}
found = microseconds(candidates, x)
assert abs(rows(64)(x) - jnp.vdot(x, y)) < 1e-3 * jnp.sqrt(x.size)
assert found["vdot"] > 3 * found["rows of 64"], "inner products are fast now"
assert found["sum"] > 3 * found["rows of 64"], "sums are fast now"
assert found["rows of 1024"] > 3 * found["rows of 64"], "long rows are fast now"
PYTHON

#!/usr/bin/env bash
# jax 0.10.1, CPU: `jnp.vdot(x, y)` and `jnp.sum(x * y)` of large arrays take five to eight times as long
# as `(x * y).reshape(-1, 64) @ jnp.ones(64)`, whose sum is the same: a product of a matrix and a vector
# is vectorised, a sum of everything is not. With rows longer than there are rows, the product is slow
# too. A network's penalty on its weights, and its derivative by a scalar, are such sums.
#
# Seen (2^18 numbers, with an addition to all of them): vdot 336 us, sum 315 us, rows of 64 66 us,
# rows of 1024 288 us
source "$(dirname "$0")/environment.sh"
environment jax==0.10.1 jaxlib==0.10.1
XLA_FLAGS=--xla_cpu_multi_thread_eigen=false python - <<'PYTHON'
import statistics
import time

import jax
import jax.numpy as jnp

x, y = (jax.random.normal(jax.random.key(i), (512, 512)) for i in range(2))
rows = lambda n: lambda x, y: jnp.sum((x * y).reshape(-1, n) @ jnp.ones(n))
candidates = {
    "vdot": jnp.vdot,
    "sum": lambda x, y: jnp.sum(x * y),
    "rows of 64": rows(64),
    "rows of 1024": rows(1024),
}


def repeated(function):
    """100 times, each from what the one before gave, so that nothing is left out."""
    again = lambda _, x: x + 0 * function(x, y)
    return jax.jit(lambda x: jax.lax.fori_loop(0, 100, again, x)[0, 0])


programs = {name: repeated(function) for name, function in candidates.items()}
seconds = {name: [] for name in programs}
for _ in range(15):
    for name, program in programs.items():
        begin = time.perf_counter()
        jax.block_until_ready(program(x))
        seconds[name].append(time.perf_counter() - begin)
micro = {name: 1e4 * statistics.median(times) for name, times in seconds.items()}
print(", ".join(f"{name} {value:.0f} us" for name, value in micro.items()))
exact = jnp.vdot(x.astype(float), y.astype(float))
assert abs(rows(64)(x, y) - exact) < 1e-3 * jnp.sqrt(x.size)
assert micro["vdot"] > 3 * micro["rows of 64"], "inner products are fast now"
assert micro["sum"] > 3 * micro["rows of 64"], "sums are fast now"
assert micro["rows of 1024"] > 3 * micro["rows of 64"], "long rows are fast now"
PYTHON

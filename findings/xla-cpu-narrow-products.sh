#!/usr/bin/env bash
# jax 0.10.1, CPU: the gradient by the weights of a classifier's last layer, `x.T @ d` with 512 units and
# 10 classes, takes about ten times as long as `(d.T @ x).T`, the same numbers. Writing the latter
# does not help: XLA folds the transpose back into the product. Only with optimization barriers before
# and after the product does it stay: `barrier(barrier(d.T) @ x).T`.
#
# Seen (128 rows): x.T @ d 273 us, (d.T @ x).T 266 us, with barriers 27 us
source "$(dirname "$0")/environment.sh"
environment jax==0.10.1 jaxlib==0.10.1
XLA_FLAGS=--xla_cpu_multi_thread_eigen=false python - <<'PYTHON'
import statistics
import time

import jax
import jax.numpy as jnp

x, d = (jax.random.normal(jax.random.key(i), (128, n)) for i, n in enumerate((512, 10)))
barrier = jax.lax.optimization_barrier
candidates = {
    "x.T @ d": lambda x, d: x.T @ d,
    "(d.T @ x).T": lambda x, d: (d.T @ x).T,
    "with barriers": lambda x, d: barrier(barrier(d.T) @ x).T,
}


def repeated(function):
    """100 times, each from what the one before gave, so that nothing is left out."""
    again = lambda _, x: x + 0 * barrier(function(x, d))[0, 0]
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
first, *others = (function(x, d) for function in candidates.values())
assert all(jnp.allclose(first, other, atol=1e-4) for other in others)
assert micro["x.T @ d"] > 3 * micro["with barriers"], "narrow products are fast now"
assert micro["(d.T @ x).T"] > 3 * micro["with barriers"], "the transpose is left alone now"
PYTHON

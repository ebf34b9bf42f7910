#!/usr/bin/env bash
# jax 0.12.0.1: within `with jax.enable_x64(True)` the work that is handed to a thread is done in float32.
# The setting is each thread's own, and ThreadPoolExecutor does not pass it on: what the thread makes is
# float32 without a word, and the same compiled function, called with the same float64 array, rounds
# it to float32, with a warning about a dtype that nobody asked for there. An executable that was compiled
# here (`lower(...).compile()`) gives float64 in any thread.
#
# Seen: float64 here, float32 in a thread (made and computed), float64 by the executable.
source "$(dirname "$0")/environment.sh"
environment jax==0.12.0.1 jaxlib==0.12.0.1 numpy==2.4.6
python - <<'PYTHON'
import warnings
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp

squared = jax.jit(lambda x: jnp.sum(x * x))
make = lambda: jnp.full(3, 0.1)
with jax.enable_x64(True), ThreadPoolExecutor(1) as threads:
    x = make()
    here, executable = squared(x), squared.lower(x).compile()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = threads.submit(make).result()
        ahead = threads.submit(executable, x).result()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        there = threads.submit(squared, x).result()
for name, value in {"here": here, "made there": made, "there": there, "ahead": ahead}.items():
    print(f"{name}: {value.dtype}")
print([str(warning.message)[:60] for warning in said])
assert x.dtype == here.dtype == ahead.dtype == "float64"
assert made.dtype == there.dtype == "float32", "threads have the setting now"
PYTHON

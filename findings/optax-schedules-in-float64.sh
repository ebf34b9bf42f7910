#!/usr/bin/env bash
# optax 0.2.8 (jax 0.10.2): with jax_enable_x64 the schedules linear, polynomial, exponential and
# warm-up give float32 for the int32 count that optax's own states hold, and float64 for the Python
# int of the same value; cosine gives float64 for both. An int32 array divided by a Python int is
# float32 in JAX, with x64 too. Derivatives through a float64 run keep seven digits.
#
# Seen at step 3 of 10: linear float32 0.73, polynomial float32 0.541, exponential float32 0.96888614
# (float64: 0.9688861611972633), cosine float64
source "$(dirname "$0")/environment.sh"
environment jax==0.10.2 jaxlib==0.10.2 optax==0.2.8
python - <<'PYTHON'
import jax
import jax.numpy as jnp
import optax

jax.config.update("jax_enable_x64", True)
schedules = {
    "linear": optax.linear_schedule(1.0, 0.1, 10),
    "polynomial": optax.polynomial_schedule(1.0, 0.1, 2, 10),
    "exponential": optax.exponential_decay(1.0, 10, 0.9),
    "warm-up": optax.warmup_constant_schedule(0.0, 1.0, 10),
    "cosine": optax.cosine_decay_schedule(1.0, 10),
}
seen = {name: jnp.asarray(schedule(jnp.int32(3))).dtype for name, schedule in schedules.items()}
print({name: (str(dtype), schedules[name](jnp.int32(3))) for name, dtype in seen.items()})
assert (jnp.int32(3) / 10).dtype == jnp.float32, "int32 / int is no longer float32"
wanted = {name: "float64" if name == "cosine" else "float32" for name in schedules}
assert {k: str(v) for k, v in seen.items()} == wanted, "the dtypes changed"
PYTHON

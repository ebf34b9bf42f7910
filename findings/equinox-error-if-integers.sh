#!/usr/bin/env bash
# equinox 0.13.8 (jax 0.10.2): error_if(on_error="nan") makes NaN of floats, as it says, and
# 2147483647 of the int32 beside them. A counter, index or seed that passes through it goes on as a
# large number that looks valid.
#
# Seen: (nan, 2147483647) for (1.0, 3)
source "$(dirname "$0")/environment.sh"
environment jax==0.10.2 jaxlib==0.10.2 equinox==0.13.8
python - <<'PYTHON'
import equinox as eqx
import jax
import jax.numpy as jnp

check = jax.jit(lambda x, i: eqx.error_if((x, i), x > 0, "positive", on_error="nan"))
x, i = check(jnp.float32(1.0), jnp.int32(3))
print(x, i)
assert jnp.isnan(x), "the float is no longer NaN"
assert i == 2147483647, "the integer is something else now"
PYTHON

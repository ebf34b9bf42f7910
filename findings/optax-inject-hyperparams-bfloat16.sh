#!/usr/bin/env bash
# optax 0.2.8 (jax 0.10.2): inject_hyperparams rounds hyperparameters to the parameters' dtype. With
# bfloat16 parameters the default b2=0.999 of adam becomes 1, its bias correction divides 0 by 0, and
# the very first update is NaN. Plain optax.adam with the same settings is well.
#
# Seen: b2 = 1 in bfloat16, update [nan nan]; without inject_hyperparams [-0.000999 -0.000999]
source "$(dirname "$0")/environment.sh"
environment jax==0.10.2 jaxlib==0.10.2 optax==0.2.8
python - <<'PYTHON'
import jax.numpy as jnp
import optax

params = jnp.ones(2, jnp.bfloat16)
injected, plain = optax.inject_hyperparams(optax.adam)(learning_rate=1e-3), optax.adam(1e-3)
state = injected.init(params)
b2 = state.hyperparams["b2"]
update, _ = injected.update(params, state, params)
wanted, _ = plain.update(params, plain.init(params), params)
print("b2", b2, b2.dtype, "update", update, "without inject_hyperparams", wanted)
assert jnp.all(jnp.isfinite(wanted))
assert b2.dtype == jnp.bfloat16 and b2 == 1, "b2 is no longer rounded to 1"
assert jnp.all(jnp.isnan(update)), "the update is finite now"
PYTHON

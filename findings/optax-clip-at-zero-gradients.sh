#!/usr/bin/env bash
# optax 0.2.8 (jax 0.10.2): the derivative of clip_by_global_norm is NaN in reverse mode where all
# gradients are zero, although it clips nothing there and its derivative is the identity. In forward
# mode it is right. A training that is differentiated through becomes NaN by one step without a
# gradient (a padded batch, a loss that is switched off).
#
# Seen: reverse [nan nan], forward [1. 1.]
source "$(dirname "$0")/environment.sh"
environment jax==0.10.2 jaxlib==0.10.2 optax==0.2.8
python - <<'PYTHON'
import jax
import jax.numpy as jnp
import optax


def clipped(grads):
    return optax.clip_by_global_norm(1.0).update(grads, optax.EmptyState())[0]


zero = jnp.zeros(2)
reverse = jax.grad(lambda g: jnp.sum(clipped(g)))(zero)
forward = jax.jvp(clipped, (zero,), (jnp.ones(2),))[1]
print("reverse", reverse, "forward", forward)
assert jnp.all(forward == 1), "the forward-mode derivative changed"
assert jnp.all(jnp.isnan(reverse)), "the reverse-mode derivative is finite now"
PYTHON

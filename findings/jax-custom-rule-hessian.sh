#!/usr/bin/env bash
# jax 0.10.2: where a custom_vjp gives another rule than the derivative (straight-through, clipping in
# the backward pass), the Jacobian of jax.grad is not symmetric. Products with "the Hessian" by
# jvp of grad and by vjp of grad then differ, both without a word.
#
# Seen for a sign with the straight-through rule: jvp of grad [1.877 0.515], vjp of grad [1.922 0.424]
source "$(dirname "$0")/environment.sh"
environment jax==0.10.2 jaxlib==0.10.2
python - <<'PYTHON'
import jax
import jax.numpy as jnp


@jax.custom_vjp
def sign(x):
    return jnp.sign(x)


sign.defvjp(lambda x: (jnp.sign(x), None), lambda _, g: (g,))
mix = jnp.array([[1.0, 2.0], [-1.0, 1.0]])
loss = lambda w: jnp.sum(sign(mix @ w) * jnp.sin(w))
w, u = jnp.array([1.0, -3.0]), jnp.array([1.0, 0.5])
forward = jax.jvp(jax.grad(loss), (w,), (u,))[1]
reverse = jax.vjp(jax.grad(loss), w)[1](u)[0]
print("jvp of grad", forward, "vjp of grad", reverse)
assert jnp.max(jnp.abs(forward - reverse)) > 0.01, "both agree now"
PYTHON

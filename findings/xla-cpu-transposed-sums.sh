#!/usr/bin/env bash
# jax 0.10.1, CPU: the transpose of a product of matrices costs nothing, since XLA makes another
# product of it; the transpose of a sum of two products stays, and the loop that follows reads memory
# across its rows. JAX writes just that: the derivative of a gradient by weights (a Hessian-vector
# product of any network) transposes the sum of two products. Transposed term by term, no transpose is
# left in the compiled program.
#
# Seen: transposes left: of a product 0, of a sum of products 1, of the terms 0;
# jax.linearize of jax.grad of a network's loss: transposes of sums written: 1
source "$(dirname "$0")/environment.sh"
environment jax==0.10.1 jaxlib==0.10.1
python - <<'PYTHON'
import re

import jax
import jax.numpy as jnp

a, b, c, d = (jax.random.normal(jax.random.key(i), (128, 512)) for i in range(4))
start = jnp.zeros((512, 512))


def transposes(function):
    """How many are left in the compiled program, whose result is added to something."""
    text = jax.jit(function).lower(start, a, b, c, d).compile().as_text()
    return len(re.findall(r" transpose\(", text))


left = [
    transposes(lambda s, a, b, c, d: s + (a.T @ b).T),
    transposes(lambda s, a, b, c, d: s + (a.T @ b + c.T @ d).T),
    transposes(lambda s, a, b, c, d: s + ((a.T @ b).T + (c.T @ d).T)),
]
print(f"transposes left: of a product {left[0]}, of a sum of products {left[1]}, of the terms {left[2]};")

loss = lambda w: jnp.sum(jnp.tanh(jnp.tanh(a @ w["in"]) @ w["out"]) ** 2)
w = {"in": jnp.ones((512, 64)), "out": jnp.ones((64, 8))}
_, tangent = jax.linearize(jax.grad(loss), w)
jaxpr = jax.make_jaxpr(tangent)(w).jaxpr
source = {v: e.primitive.name for e in jaxpr.eqns for v in e.outvars}
operands = [source.get(e.invars[0]) for e in jaxpr.eqns if e.primitive.name == "transpose"]
sums = operands.count("add_any")
print(f"jax.linearize of jax.grad of a network's loss: transposes of sums written: {sums}")
assert left[0] == 0
assert left[1] > 0, "the transpose of a sum is gone now"
assert left[2] == 0
assert sums > 0, "JAX writes it otherwise now"
PYTHON

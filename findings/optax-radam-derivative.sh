#!/usr/bin/env bash
# optax 0.2.8 (jax 0.10.2): the derivative of a run of radam by its rate is NaN, always, if it is taken
# in reverse mode; the run itself and the forward-mode derivative are finite. One would guess that
# eps_root helps, as for adam.
#
# The rectification takes the square root of a negative number in the first steps and drops it by a
# `where`; the derivative of the root, NaN, is multiplied by 0 and stays NaN.
#
# Seen: loss 1.0686, reverse nan (eps_root 0 and 1e-8), forward -22.05
source "$(dirname "$0")/environment.sh"
environment jax==0.10.2 jaxlib==0.10.2 optax==0.2.8
python - <<'PYTHON'
import jax
import jax.numpy as jnp
import optax


def loss(rate, eps_root=0.0):
    params = jnp.array([1.0, 2.0])
    optimizer = optax.radam(rate, eps_root=eps_root)
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(2 * params, state, params)
        params = optax.apply_updates(params, updates)
    return jnp.sum(params**2)


reverse = [float(jax.grad(loss)(0.1, eps_root)) for eps_root in (0.0, 1e-8)]
forward = float(jax.jvp(loss, (0.1,), (1.0,))[1])
print("loss", loss(0.1), "reverse", reverse, "forward", forward)
assert jnp.isfinite(loss(0.1))
assert abs(forward + 22.05) < 0.1, "the forward-mode derivative changed"
assert all(jnp.isnan(jnp.array(reverse))), "the reverse-mode derivative is finite now"
PYTHON

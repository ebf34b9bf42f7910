#!/usr/bin/env bash
# optax 0.2.8: `clip_by_global_norm` takes a bound of float32 (an array, as a schedule, a tuned value or
# `inject_hyperparams` gives it) for gradients of float32 only: with one leaf in bfloat16 it raises, since it
# selects between the gradient and a product that JAX has promoted. `clip`, `clip_by_block_rms` and
# `scale` take the same bound and gradients.
#
# Seen: clip_by_global_norm: TypeError; clip: float32; clip_by_block_rms: float32; scale: float32
source "$(dirname "$0")/environment.sh"
environment optax==0.2.8 jax==0.10.1 jaxlib==0.10.1
python - <<'PYTHON'
import jax.numpy as jnp
import optax

gradients = {"w": jnp.ones(3, jnp.bfloat16)}
bound = jnp.float32(0.5)


def outcome(make):
    transformation = make(bound)
    try:
        updates, _ = transformation.update(gradients, transformation.init(gradients))
    except TypeError as error:
        assert "same dtypes, got" in str(error), error
        return "TypeError"
    return str(updates["w"].dtype)


names = "clip_by_global_norm", "clip", "clip_by_block_rms", "scale"
found = {name: outcome(getattr(optax, name)) for name in names}
print("; ".join(f"{name}: {what}" for name, what in found.items()))
assert found.pop("clip_by_global_norm") == "TypeError", "it takes the bound now"
assert "TypeError" not in found.values(), found
PYTHON

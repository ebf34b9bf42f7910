#!/usr/bin/env bash
# flax 0.12.8 (jax 0.10.1): a pure function that merges a module from its graph, parameters and state,
# and lets its batch normalisation update the running statistics, runs under jax.jit. Under jax.grad
# with respect to the parameters the same function raises TraceContextError, also where the state is
# an argument: merge takes the state's own variables, which belong to the trace outside. With
# copy=True it runs under both, to the same values.
#
# Seen: jit ok; grad TraceContextError; with copy=True jit ok, grad ok
source "$(dirname "$0")/environment.sh"
environment jax==0.10.1 jaxlib==0.10.1 flax==0.12.8
python - <<'PYTHON'
import flax.errors
import jax
import jax.numpy as jnp
from flax import nnx

graph, params, state = nnx.split(nnx.BatchNorm(3, rngs=nnx.Rngs(0)), nnx.Param, ...)
rows = jnp.arange(12.0).reshape(4, 3)


def loss(params, state, **options):
    model = nnx.merge(graph, params, state, **options)
    value = jnp.sum(model(rows) ** 3)
    return value, nnx.split(model, nnx.Param, ...)[2]


def outcome(transformed):
    try:
        transformed(params, state)
    except flax.errors.TraceContextError as error:
        return type(error).__name__
    return "ok"


found = {}
for name, options in (("merge", {}), ("merge with copy=True", {"copy": True})):
    given = lambda p, s, o=options: loss(p, s, **o)
    found[name] = outcome(jax.jit(given)), outcome(jax.grad(given, has_aux=True))
    print(name, "jit:", found[name][0], "grad:", found[name][1])
assert found["merge with copy=True"] == ("ok", "ok")
assert found["merge"] == ("ok", "TraceContextError"), "merge is the same under both now"
PYTHON

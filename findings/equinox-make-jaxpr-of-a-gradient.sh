#!/usr/bin/env bash
# equinox 0.13.8: `filter_make_jaxpr` of `jax.grad` or `jax.value_and_grad` of a module warns twice that a
# JAX-transformed callable was assigned as an attribute, of a class of equinox's own; where warnings are
# errors, it raises. Nobody assigned anything: it keeps the function in a module of its own for a moment.
# Behind a lambda it is silent, and the result is the same.
#
# Seen: jax.grad(module): 2 warnings about equinox._make_jaxpr._MakeJaxpr; behind a lambda: 0
source "$(dirname "$0")/environment.sh"
environment equinox==0.13.8 jax==0.10.1 jaxlib==0.10.1
python - <<'PYTHON'
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp


class Scaled(eqx.Module):
    scale: jax.Array

    def __call__(self, x):
        return self.scale * x**2


def warned(function):
    """The program, and the warnings that come with it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        program, *_ = eqx.filter_make_jaxpr(function)(jnp.float32(1.0))
    return str(program), [str(w.message) for w in caught]


gradient = jax.grad(Scaled(jnp.float32(2.0)))
direct, messages = warned(gradient)
behind, none = warned(lambda x: gradient(x))
owner = "equinox._make_jaxpr._MakeJaxpr"
print(f"jax.grad(module): {len(messages)} warnings about {owner}; behind a lambda: {len(none)}")
assert direct == behind
assert messages and all(owner in message for message in messages), "it is silent now"
assert not none
PYTHON

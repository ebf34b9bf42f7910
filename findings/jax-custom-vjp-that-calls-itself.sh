#!/usr/bin/env bash
# jax 0.12.0.1 (and 0.10.1): a custom_vjp function whose forward rule calls the function itself for its
# value, as is commonly written. First derivatives and jax.grad of jax.grad are right, while
# jax.hessian, which is forward over reverse, raises a TypeError. With a forward rule that computes the
# value, without the decorated function, jax.hessian is right too.
#
# Seen, of a sine at 1: calls itself: grad of grad -0.84147096, hessian TypeError
#                       computes:     grad of grad -0.84147096, hessian -0.84147096
source "$(dirname "$0")/environment.sh"
environment jax==0.12.0.1 jaxlib==0.12.0
python - <<'PYTHON'
import jax
import jax.numpy as jnp


def sine(calls_itself):
    function = jax.custom_vjp(lambda x: jnp.sin(x))
    value = function if calls_itself else jnp.sin
    function.defvjp(lambda x: (value(x), jnp.cos(x)), lambda cosine, c: (c * cosine,))
    return function


def second(function):
    twice = float(jax.grad(jax.grad(function))(1.0))
    try:
        return twice, float(jax.hessian(function)(1.0))
    except TypeError as error:
        return twice, type(error).__name__


for calls_itself in (True, False):
    print("calls itself" if calls_itself else "computes", second(sine(calls_itself)))
right = float(-jnp.sin(1.0))
assert second(sine(False)) == (right, right)
assert second(sine(True)) == (right, "TypeError"), "it has forward over reverse now"
PYTHON

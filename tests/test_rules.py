"""Which derivative rules in a program are not known to be derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import pytest

from hindgrad.jaxprs import equations
from hindgrad.rules import own_rules


@jax.custom_vjp
def clipped(x):
    return x


clipped.defvjp(lambda x: (x, None), lambda _, g: (jnp.clip(g, -1, 1),))


@jax.custom_jvp
def straight(x):
    return jnp.round(x)


straight.defjvp(lambda primals, tangents: (straight(primals[0]), tangents[0]))


@jax.custom_gradient
def reversal(x):
    return x, lambda g: -g


@eqx.filter_custom_vjp
def filtered(x):
    return x


filtered.def_fwd(lambda perturbed, x: (x, None))
filtered.def_bwd(lambda residuals, g, perturbed, x: g)

OWN = {"custom_vjp": clipped, "custom_jvp": straight, "gradient": reversal, "filter": filtered}


def within(function):
    """A function at every depth of a program."""
    return {
        "outermost": function,
        "jit": jax.jit(function),
        "scan": lambda x: jax.lax.scan(lambda c, _: (function(c), None), x, None, 2)[0],
        "cond": lambda x: jax.lax.cond(x.sum() > 0, function, jnp.sin, x),
        "while": lambda x: jax.lax.fori_loop(0, 2, lambda _, c: function(c), x),
        "checkpoint": jax.checkpoint(function),
        "vmap": jax.vmap(function),
    }


@pytest.mark.parametrize("function", OWN.values(), ids=OWN)
def test_found_at_every_depth(function):
    for name, program in within(function).items():
        assert own_rules(jax.make_jaxpr(program)(jnp.ones(3)).jaxpr), name


def test_rules_of_jax_are_derivatives():
    def loss(x):
        parts = [jax.nn.relu(x), jax.nn.softmax(x), jax.nn.relu6(x), jax.nn.silu(x)]
        total = sum(jnp.sum(part) for part in parts) + jax.nn.logsumexp(x)
        return total + optax.softmax_cross_entropy_with_integer_labels(x, jnp.int32(1))

    program = jax.make_jaxpr(loss)(jnp.ones(3)).jaxpr
    assert any("custom" in e.primitive.name for e in equations(program))
    assert own_rules(program) == []

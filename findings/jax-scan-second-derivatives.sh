#!/usr/bin/env bash
# jax: a function with a custom_jvp rule that is not its derivative (rounding with a smooth slope).
# First derivatives through a loop follow the rule, written with lax.scan or unrolled in Python. Second
# ones follow it in the unrolled loop only: under lax.scan the rounded values count as constants, as
# they do for finite differences of the first derivative.
#
# Seen with 0.10.1: first derivatives equal (10.44); second ones −734 unrolled and −453 scanned.
source "$(dirname "$0")/environment.sh"
environment jax==0.10.1 jaxlib==0.10.1 numpy==2.4.6
python - <<'PYTHON'
import jax
import jax.numpy as jnp

jax.config.update("jax_enable_x64", True)


@jax.custom_jvp
def rounded(x):
    return jnp.round(4 * x) / 4


@rounded.defjvp
def rule(primals, tangents):
    return rounded(primals[0]), tangents[0] * jnp.exp(-(primals[0] ** 2))


def step(w, rate):
    return w - rate * jax.grad(lambda w: jnp.sum((rounded(3 * w) + w - 1) ** 2))(w)


def unrolled(rate):
    w = jnp.array([0.3, -0.5])
    for _ in range(3):
        w = step(w, rate)
    return jnp.sum(jnp.sin(w))


def scanned(rate):
    w, _ = jax.lax.scan(lambda w, _: (step(w, rate), None), jnp.array([0.3, -0.5]), None, 3)
    return jnp.sum(jnp.sin(w))


first = [float(jax.grad(f)(0.05)) for f in (unrolled, scanned)]
second = [float(jax.grad(jax.grad(f))(0.05)) for f in (unrolled, scanned)]
difference = float(jax.grad(scanned)(0.05 + 1e-6) - jax.grad(scanned)(0.05 - 1e-6)) / 2e-6
print("first:", first, "second, unrolled and scanned:", second, "difference:", difference)
assert abs(first[0] - first[1]) < 1e-9
assert abs(second[1] - difference) < 1e-2
assert abs(second[1] - second[0]) > 1, "scan follows the rule now"
PYTHON

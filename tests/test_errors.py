"""Errors of compiled programs: the message reaches the user, whatever differentiates."""

import jax
import jax.numpy as jnp
import pytest

from hindgrad import errors, programs

MESSAGES = ["too small", "Reversible: cause, leaf, step and remedy"]


def checked(x):
    return errors.raise_if(jnp.sin(x), x > 1, jnp.int32(1), MESSAGES)


WAYS = {
    "plain": lambda x: checked(x),
    "jit": jax.jit(checked),
    "grad": jax.grad(checked),
    "grad of jit": jax.grad(jax.jit(checked)),
    "jit of grad": jax.jit(jax.grad(checked)),
    "hessian": jax.hessian(checked),
    "vmap": lambda x: jax.vmap(checked)(jnp.stack([x, x / 4])),
    "compiled": programs.compiled(checked),
    "grad of compiled": jax.grad(programs.compiled(checked)),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_message_is_what_is_said_last(way):
    jax.block_until_ready(way(jnp.float32(0.5)))
    with pytest.raises((RuntimeError, ValueError)) as raised:  # JAX 0.10 raises either
        jax.block_until_ready(way(jnp.float32(2.0)))
    assert str(raised.value).splitlines()[-1].endswith(MESSAGES[1])
    assert "filter_jit" not in str(raised.value)


def test_compiled_raises_the_message_alone():
    with pytest.raises(errors.RunError, match=f"^{MESSAGES[1]}$"):
        programs.compiled(checked)(jnp.float32(2.0))


def test_derivatives_pass():
    x = jnp.float32(0.5)
    assert jax.grad(checked)(x) == jnp.cos(x)
    assert jax.hessian(checked)(x) == -jnp.sin(x)


def test_whole_numbers_and_others_stay():
    tree = {"n": jnp.int32(3), "name": "w", "none": None, "x": jnp.ones(2)}
    same = jax.jit(lambda f: errors.raise_if(tree | {"name": None}, f, jnp.int32(0), MESSAGES))
    assert same(False)["n"] == 3
    assert errors.raise_if(tree, jnp.bool_(False), jnp.int32(0), MESSAGES)["name"] == "w"

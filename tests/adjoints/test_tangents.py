"""Tangents side by side: against `jax.jacfwd`, in blocks of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad.adjoints import tangents

AT = {"a": jnp.arange(1.0, 4.0), "b": jnp.float32(0.5), "m": jnp.ones((2, 2))}
SIZE = 8


def function(at):
    """Floats of several shapes, an integer, and nothing."""
    whole = tangents.flat(at)
    return {
        "sin": jnp.sin(whole)[:5] * at["b"],
        "dot": whole @ whole,
        "count": jnp.int32(3),
        "no": None,
    }


def dense(at):
    floats = lambda flat: {k: function(tangents.unflat(flat, at))[k] for k in ("sin", "dot")}
    return jax.jacfwd(floats)(tangents.flat(at))


def test_flat_and_back():
    flat = tangents.flat(AT)
    assert flat.tolist() == [1, 2, 3, 0.5, 1, 1, 1, 1]
    back = tangents.unflat(flat, AT)
    assert jax.tree.structure(back) == jax.tree.structure(AT)
    jax.tree.map(np.testing.assert_array_equal, back, AT)


def test_directions_are_the_unit_matrix_and_then_nothing():
    rows = jax.vmap(tangents.flat)(tangents.directions(AT, 0, SIZE))
    np.testing.assert_array_equal(rows, np.eye(SIZE))
    rows = jax.vmap(tangents.flat)(tangents.directions(AT, jnp.int32(6), 4))
    np.testing.assert_array_equal(rows, np.eye(4, SIZE, 6))


def test_each_leaf_keeps_its_dtype():
    mixed = {"half": jnp.ones(2, jnp.bfloat16), "single": jnp.ones(1)}
    units = tangents.directions(mixed, 0, 3)
    assert units["half"].dtype == jnp.bfloat16
    assert tangents.flat(mixed).dtype == jnp.float32
    assert tangents.unflat(jnp.ones(3), mixed)["half"].dtype == jnp.bfloat16


@pytest.mark.parametrize("block", [None, 1, 3, 8, 100])
def test_jacobian(block):
    value, derivatives = jax.jit(lambda at: tangents.jacobian(function, at, SIZE, block))(AT)
    wanted = jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), dense(AT))
    jax.tree.map(np.testing.assert_array_equal, value, function(AT))
    assert (derivatives["count"], derivatives["no"]) == (None, None)
    for name in ("sin", "dot"):
        assert derivatives[name].shape[0] == SIZE
        np.testing.assert_allclose(derivatives[name], wanted[name], rtol=1e-6)


@pytest.mark.parametrize("block", [1, 3])
def test_pulled_in_blocks(block):
    """What `jax.vjp` gives, with None for a zero cotangent."""
    cotangent = {"sin": jnp.arange(5.0), "dot": None, "count": None, "no": None}
    got = tangents.pulled_in_blocks(function, AT, SIZE, block, cotangent)
    wanted = tangents.unflat(jnp.arange(5.0) @ dense(AT)["sin"], AT)
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-6), got, wanted)


def test_combine_is_the_derivative_along_a_direction():
    _, derivatives = tangents.jacobian(function, AT, SIZE, None)
    along = jax.tree.map(jnp.cos, AT)
    _, wanted = jax.jvp(lambda at: function(at)["sin"], (AT,), (along,))
    np.testing.assert_allclose(tangents.combine(along, derivatives)["sin"], wanted, rtol=1e-5)

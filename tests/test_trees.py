"""Dependence of results on arguments, and closures made part of a pytree."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hindgrad import trees


def test_dependence():
    def function(x):
        return {
            "x": jnp.sin(x["a"])[0],
            "constant": jnp.ones(2),
            "loop": jax.lax.fori_loop(0, 3, lambda i, c: c * x["a"][1], 1.0),
            "name": "no array",
        }

    struct, depends = trees.dependence(function, {"a": jnp.ones(3)})
    assert depends == {"x": True, "constant": False, "loop": True, "name": None}
    assert struct["constant"].shape == (2,)


def test_closed_functions_carry_their_arrays():
    def outer(x):
        closed = trees.close(lambda y: {"sum": x + y, "constant": jnp.asarray(0.5)}, x)
        arrays, static = eqx.partition(closed, eqx.is_array)
        doubled = eqx.combine(jax.tree.map(lambda a: 2 * a, arrays), static)
        return doubled(1.0 * x), closed(x)["constant"] * x

    result, half = jax.jit(outer)(3.0)
    assert (result["sum"], result["constant"], half) == (9.0, 0.5, 1.5)


def test_as_hyper():
    hyper = {"f": 0.5, "i": 3, "none": None, "array": np.ones(2), "function": jnp.sin, "flag": True}
    got = trees.as_hyper(hyper)
    assert eqx.is_array(got["f"])
    assert not got["f"].weak_type
    assert isinstance(got["array"], jax.Array)
    assert (got["i"], got["none"], got["function"], got["flag"]) == (3, None, jnp.sin, True)


def test_sizes():
    tree = {"a": jnp.zeros((2, 3)), "b": np.zeros(4, np.float64), "c": None}
    assert trees.size(tree) == 10
    assert trees.nbytes(tree) == 6 * 4 + 4 * 8


def test_norm_is_of_all_floats_in_their_widest_type(x64):
    tree = {"a": jnp.array([3.0], jnp.bfloat16), "b": jnp.array([4j]), "n": 7, "e": jnp.zeros(0)}
    with jax.numpy_dtype_promotion("strict"):
        norm = trees.norm(tree)
    assert norm == 5
    assert norm.dtype == jnp.float64
    assert trees.norm({"a": jnp.full(4, 0.5, jnp.float16)}).dtype == jnp.float32
    assert trees.widest(jnp.bfloat16, np.float16) == np.float32
    assert trees.norm({"n": 1}) == 0

"""What hypergradients hand on: any arrays as floats, and back to the bit."""

import jax
import jax.numpy as jnp
import numpy as np

from hindgrad.adjoints import carried


def test_there_and_back(x64, key):
    tree = {
        "floats": jnp.array([0.1, -0.0, jnp.nan, jnp.inf]),
        "half": jnp.bfloat16(0.3),
        "count": jnp.int32(-(2**31)),
        "long": jnp.array([[2**63 - 1, -1, 0]], jnp.int64),
        "bytes": jnp.array([0, 255], jnp.uint8),
        "small": jnp.int8(-5),
        "truth": jnp.array([True, False]),
        "key": jax.random.split(key, 3),
        "old": jax.random.key_data(key),
        "none": None,
    }
    floats = carried.as_floats(tree)
    assert all(jnp.issubdtype(x.dtype, jnp.inexact) for x in jax.tree.leaves(floats))
    back = carried.from_floats(floats, like=tree)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    tree["key"], back["key"] = (jax.random.key_data(t["key"]) for t in (tree, back))
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(back), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()

"""What users pass: NumPy's whole numbers are as good as Python's, booleans are neither."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad.arguments import as_folder, as_key, as_keys, as_whole, floats_and_rest


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_whole_numbers(value):
    assert as_whole("f", "steps", value) == 3
    assert type(as_whole("f", "steps", value)) is int
    assert as_key("f", value) == jax.random.key(3)


@pytest.mark.parametrize("value", [True, np.bool_(True), 3.0, "3", None, 0, -1, np.int8(0)])
def test_no_whole_numbers(value):
    with pytest.raises(ValueError, match=r"f\(steps=.*\): a whole number, at least 1"):
        as_whole("f", "steps", value)


def test_keys():
    key = jax.random.key(1)
    assert as_key("f", key) is key
    assert as_keys("f", None) == ()
    assert as_keys("f", 1) == (key,)
    old = jax.random.PRNGKey(1)
    assert as_key("f", old) is old
    assert jax.jit(lambda k: as_key("f", k))(key) == key
    for wrong in (True, np.bool_(False), 1.0, "seed"):
        with pytest.raises(TypeError, match="neither a key nor a seed"):
            as_key("f", wrong)
    for wrong in (-1, 2**32, np.int64(-3)):
        with pytest.raises(ValueError, match=r"f\(seed=.*a seed goes from 0 to"):
            as_key("f", wrong, name="seed")
    with pytest.raises(ValueError, match=r"array of keys of shape \(2,\)"):
        as_key("f", jax.random.split(key))


def test_floats_and_rest():
    floats, rest = floats_and_rest("f", {"a": 1.0, "n": 3, "b": np.ones(2, np.float32)})
    assert floats["a"].dtype == jnp.float32
    assert (floats["n"], rest["n"], rest["a"]) == (None, 3, None)
    for none in ({"n": 3}, {}, jnp.zeros((0, 2)), {"a": np.arange(3)}):
        with pytest.raises(ValueError, match="f was given hyperparameters without a float"):
            floats_and_rest("f", none)


@pytest.mark.parametrize("value", [3, None, b"here", ["a"]])
def test_a_folder(value, tmp_path):
    assert as_folder("checkpoint", str(tmp_path)) == tmp_path
    with pytest.raises(ValueError, match=r"^checkpoint=.*: the path of a folder is needed\.$"):
        as_folder("checkpoint", value)

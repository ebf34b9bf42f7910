"""Precision: the user's setting, and values kept as they are."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad import numerics


def test_users_setting_within_wide():
    """Float64 exists within `wide`, and the user's setting comes back."""
    assert not numerics.users_setting()
    with numerics.wide():
        assert jnp.zeros(1).dtype == jnp.float64
        with numerics.setting(False):
            assert jnp.zeros(1).dtype == jnp.float32
    x, tree = numerics.isolate(jnp.arange(3.0), {"w": jnp.ones(2)})
    np.testing.assert_array_equal(x, [0, 1, 2])
    np.testing.assert_array_equal(tree["w"], [1, 1])


@pytest.mark.parametrize("wide", [True, False])
def test_threads_have_the_precision_of_who_made_them(wide):
    with jax.enable_x64(wide), numerics.threads(2, "some") as pool:
        x = jnp.full(3, 0.1)
        found = list(pool.map(lambda x: x * 2, [x, x]))
        assert {y.dtype for y in found} == {x.dtype}
        assert pool.submit(lambda: threading.current_thread().name).result().startswith("some")

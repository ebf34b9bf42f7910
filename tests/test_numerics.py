"""Precision: the user's setting, and values kept as they are."""

import jax.numpy as jnp
import numpy as np

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

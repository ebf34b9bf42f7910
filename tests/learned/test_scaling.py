"""Random units: the same problem in other coordinates."""

import jax
import jax.numpy as jnp
import numpy as np

from hindgrad.learned import Quadratics, RandomlyScaled

SPREAD = 2.0


def pair(seed):
    """A problem, and the same in random units."""
    family, key = Quadratics(5), jax.random.key(seed)
    return family(jax.random.fold_in(key, 0)), RandomlyScaled(family, SPREAD)(key)


def test_it_is_the_same_problem_in_other_units():
    (start, loss), (scaled_start, scaled_loss) = pair(1)
    units, key = start / scaled_start, jax.random.key(2)
    np.testing.assert_allclose(scaled_loss(scaled_start, key), loss(start, key), rtol=1e-5)
    elsewhere = jnp.arange(5.0)
    np.testing.assert_allclose(scaled_loss(elsewhere / units, key), loss(elsewhere, key), rtol=1e-5)
    grads = jax.grad(scaled_loss)(elsewhere / units, key)
    np.testing.assert_allclose(grads, units * jax.grad(loss)(elsewhere, key), rtol=1e-4)


def test_units_are_log_uniform_and_every_problems_own():
    logs = []
    for seed in range(60):
        (start, _), (scaled_start, _) = pair(seed)
        logs.append(np.log(start / scaled_start))
    logs = np.concatenate(logs)
    assert np.abs(logs).max() <= SPREAD + 1e-4
    assert len(np.unique(logs)) > 290
    # The standard deviations of the mean of 300 uniform numbers and of their share below -1.
    assert abs(logs.mean()) < 4 * SPREAD / np.sqrt(3 * 300)
    assert abs((logs < -SPREAD / 2).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 300)


def test_the_parameters_may_be_a_tree_of_any_float():
    def family(key):
        start = {"a": jax.random.normal(key, (3, 2)), "b": jnp.ones((), jnp.float16)}
        return start, lambda params, _: jnp.sum(params["a"]) + params["b"]

    params, loss = RandomlyScaled(family)(jax.random.key(0))
    assert params["a"].shape == (3, 2)
    assert params["b"].dtype == jnp.float16
    assert jnp.isfinite(loss(params, jax.random.key(1)))
    assert len(np.unique(params["a"])) == 6

"""Estimates of the weights' gradient: windows against loops written by hand, smoothed ones against
quadrature."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
from hindgrad.learned import CoordinateLSTM, Quadratics
from hindgrad.learned.gradients import Backpropagated, Episode, Smoothed
from means import assert_mean
from tests.learned.rate import Rate

STEP_WEIGHTS = jnp.array([0.0, 1.0, 0.5, 2.0, 1.0, 3.0])
STEPS, UNROLL, BATCH = 6, 3, 2
LSTM = CoordinateLSTM((2,), preprocess=None)


def noisy(key):
    params, loss = Quadratics(3)(key)
    return params, lambda p, key: loss(p, key) + jax.random.uniform(key)


def window_by_hand(weights, key, positions, ts):
    """What the losses of the steps `ts` add up to for the problems of a key, and where these are
    then: one problem after the other, by `jax.grad` and optax."""
    transformation, total, after = LSTM.as_optax(weights), 0.0, []
    for number in range(BATCH):
        own = jax.random.fold_in(key, number)
        params, loss = noisy(jax.random.fold_in(own, 0))
        state = transformation.init(params)
        if positions is not None:
            params, state = positions[number]
        for t in ts:
            step_key = jax.random.fold_in(jax.random.fold_in(own, 1), t)
            value, grads = jax.value_and_grad(loss)(params, step_key)
            # The loss depends on the weights through the parameters; the gradient does not.
            total += STEP_WEIGHTS[t] * jnp.log(value) / BATCH
            updates, state = transformation.update(jax.lax.stop_gradient(grads), state)
            params = optax.apply_updates(params, updates)
        after.append((params, state))
    return total, after


def gradient_by_hand(weights, key, positions, ts):
    function = lambda weights: window_by_hand(weights, key, positions, ts)
    (value, after), gradient = jax.jit(jax.value_and_grad(function, has_aux=True))(weights)
    return value, gradient, after


@pytest.mark.parametrize("unroll", [UNROLL, STEPS], ids=["truncated", "whole"])
def test_windows_are_those_by_hand(x64, key, unroll):
    """The second window goes on where the first one ended, with a derivative of its own; then
    other problems follow, those of the latest key."""
    weights = LSTM.weights(jax.random.key(2))
    episode = Episode(LSTM, noisy, STEP_WEIGHTS.astype(float), jnp.log, BATCH)
    estimate = Backpropagated(episode, unroll, hg.Stored())
    keys = jax.random.split(key, 3)
    first = eqx.filter_jit(estimate.begin)(weights, keys[0])
    carried, positions, call = first, None, eqx.filter_jit(estimate)
    for begin in range(0, STEPS, unroll):
        value, gradient, carried, _ = call(weights, carried, keys[1])
        ts = range(begin, begin + unroll)
        right, right_gradient, positions = gradient_by_hand(weights, keys[0], positions, ts)
        assert value == pytest.approx(float(right), rel=1e-12)
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        jax.tree.map(close, gradient, right_gradient)
    fresh = eqx.filter_jit(estimate.begin)(weights, keys[1])
    assert jax.tree.all(jax.tree.map(np.array_equal, carried[0], fresh[0]))
    assert carried[1] == fresh[1]
    assert not np.array_equal(first[0].params, fresh[0].params)


def test_problems_that_diverged_are_not_gone_on_with(key):
    weights = {"log_rate": jnp.array(40.0)}
    episode = Episode(Rate(), Quadratics(2), jnp.ones(6), lambda x: x, BATCH)
    estimate = Backpropagated(episode, 3, hg.Stored())
    value, _, (position, _), _ = estimate(weights, estimate.begin(weights, key), jax.random.key(9))
    assert not np.isfinite(value)
    assert position.t == 0
    assert np.all(np.isfinite(position.params))


RATE, CURVATURE, SPREAD, WINDOW = jnp.log(0.3), 1.5, 0.4, 2
SMALL_WEIGHTS = jnp.array([1.0, 0.5, 1.0, 2.0])
NODES, MASSES = np.polynomial.hermite_e.hermegauss(24)


def bowl(key):
    del key
    return jnp.array(1.0), lambda params, key: CURVATURE / 2 * params**2


def total(log_rates):
    """The sum of the bowl's weighted losses, with a rate for each step."""
    steps = 1 - jnp.exp(log_rates) * CURVATURE
    at = jnp.cumprod(jnp.concatenate([jnp.ones(1), steps[:-1]]))
    return jnp.sum(SMALL_WEIGHTS * CURVATURE / 2 * at**2)


def smoothed_gradient(windows):
    """The derivative of the mean of `total` over a perturbation for each window, by quadrature."""
    nodes = jnp.array(list(itertools.product(NODES, repeat=windows)))
    masses = np.prod(list(itertools.product(MASSES, repeat=windows)), axis=1)
    at = lambda x: jnp.repeat(x, 4 // windows)
    slope = jax.grad(lambda rate, noise: total(rate + at(SPREAD * noise)))
    slopes = jax.jit(jax.vmap(slope, (None, 0)))(jnp.asarray(RATE, float), nodes)
    return np.sum(slopes * masses) / np.sum(masses)


def estimates(make, count):
    """Of many keys, the first estimate and those that go on from it."""
    weights = {"log_rate": jnp.asarray(RATE, float)}
    episode = Episode(Rate(), bowl, SMALL_WEIGHTS.astype(float), lambda x: x, 1)

    def several(key):
        estimate = Smoothed(episode, make(key))
        carried, found = estimate.begin(weights, key), []
        for _ in range(count):
            value, gradient, carried, _ = estimate(weights, carried, key)
            found.append((value, gradient["log_rate"]))
        return found

    return jax.jit(jax.vmap(several))(jax.random.split(jax.random.key(6), 100))


def test_evolution_on_average_is_the_gradient_of_the_smoothed_loss(x64):
    (value, gradient), (_, again) = estimates(
        lambda key: hg.Evolution(40, spread=SPREAD, key=key), count=2
    )
    right = smoothed_gradient(windows=1)
    plain = jax.grad(lambda rate: total(jnp.full(4, rate)))(jnp.asarray(RATE, float))
    assert abs(right - plain) > 0.05 * abs(plain)
    assert_mean(gradient, right)
    assert_mean(again, right)
    assert not np.any(gradient == again)
    np.testing.assert_allclose(value, total(jnp.full(4, RATE)), rtol=1e-6)


def test_persistent_evolution_on_average_is_the_gradient_of_the_smoothed_loss(x64):
    """The first one is of a whole pass, later ones of a window each: their mean is, too."""
    make = lambda key: hg.PersistentEvolution(40, window=WINDOW, spread=SPREAD, key=key)
    (_, gradient), (_, first), (_, second) = estimates(make, count=3)
    right = smoothed_gradient(windows=2)
    assert_mean(gradient, right)
    assert_mean((first + second) / 2, right)

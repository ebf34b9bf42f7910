"""The learned momentum: against one written by hand, and what follows from seeing only ratios."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hindgrad.learned import RelativeLSTM
from hindgrad.learned.arrays import SPANS
from hindgrad.learned.relative import RATIOS
from tests.learned.small import check_slopes, steps_of, weights_of

STEPS = 3


@pytest.fixture
def optimizer():
    return RelativeLSTM(hidden=(3,), rate=0.05, decay=0.8)


def gradients(key):
    keys = jax.random.split(key, STEPS)
    return [
        {"a": jax.random.normal(k, (2, 3)), "b": jax.random.normal(k, (4,)) / 100} for k in keys
    ]


def rms(x):
    return np.sqrt(np.mean(x**2) + 1e-30)


def by_hand(optimizer, weights, grads):
    """One array, as the docstring says."""
    last = before = np.zeros(grads[0].shape)
    state, steps = optimizer.network.begin(1), []
    for t, g in enumerate(grads):
        cosine = lambda x, y: np.mean(x * y) / (rms(x) * rms(y))
        c = g - before
        features = [
            np.log(rms(g) / rms(before)),
            np.log(optimizer.rate * rms(c) / rms(last)) / 2,
            np.log(optimizer.rate * rms(g) / rms(last)) / 2,
            *(cosine(*pair) for pair in ((g, last), (c, last), (g, before), (c, g))),
        ]
        features = np.concatenate([np.clip(features, -5, 5), np.tanh(t / SPANS.astype(float) - 1)])
        assert features.shape == (RATIOS + len(SPANS),)
        outputs, state = optimizer.network(weights, jnp.asarray(features)[:, None], state)
        a, b = np.asarray(outputs)[:, 0]
        odds = optimizer.decay / (1 - optimizer.decay) * np.exp(b)
        last = odds / (1 + odds) * last - optimizer.rate * np.exp(a) * g
        before = g
        steps.append(last)
    return steps


def test_each_array_has_a_rate_and_decay_of_its_own(x64, key, optimizer):
    weights, grads = weights_of(optimizer, key), gradients(key)
    found = steps_of(optimizer, weights, grads)
    for name in ("a", "b"):
        alone = by_hand(optimizer, weights, [np.asarray(g[name]) for g in grads])
        for t in range(STEPS):
            np.testing.assert_allclose(found[t][name], alone[t], rtol=1e-10)


def test_gradients_of_any_size_are_alike(x64, key, optimizer):
    """As many times smaller gradients give as many times smaller steps."""
    weights, grads = weights_of(optimizer, key), gradients(key)
    small = steps_of(optimizer, weights, jax.tree.map(lambda g: 1e-6 * g, grads))
    large = steps_of(optimizer, weights, grads)
    for s, g in zip(jax.tree.leaves(small), jax.tree.leaves(large), strict=True):
        np.testing.assert_allclose(s, 1e-6 * g, rtol=1e-4)


def test_silent_weights_give_momentum(key, optimizer):
    weights = jax.tree.map(jnp.zeros_like, optimizer.weights(key))
    grads = gradients(key)
    momentum = optax.sgd(optimizer.rate, momentum=optimizer.decay)
    state = momentum.init(grads[0])
    for g, found in zip(grads, steps_of(optimizer, weights, grads), strict=True):
        expected, state = momentum.update(g, state)
        jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=1e-4), found, expected)


def test_the_derivative_is_finite_where_gradients_are_zero(key, optimizer):
    """At the minimum, when the gradient stays the same, and with nothing in an array."""
    for size in (0.0, 1.0):
        grads = {"a": size * jnp.eye(3)[0], "b": jnp.zeros((0, 2))}
        check_slopes(optimizer, weights_of(optimizer, key), [grads] * STEPS)


def test_no_parameters(key, optimizer):
    transformation = optimizer.as_optax(optimizer.weights(key))
    assert transformation.update({}, transformation.init({}))[0] == {}

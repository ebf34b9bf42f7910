"""Steps with equal singular values: against NumPy, and what follows from seeing only ratios."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad.learned import SpectralLSTM
from hindgrad.learned.arrays import SPANS
from hindgrad.learned.networks import apply, sigmoid
from hindgrad.learned.spectral import LONG, QUINTIC
from tests.learned.small import check_slopes, steps_of, weights_of

STEPS = 3


@pytest.fixture
def optimizer():
    return SpectralLSTM(hidden=(3,), rate=0.05, decays=(0.5, 0.8))


def gradients(key):
    draw = lambda key, name, shape: jax.random.normal(jax.random.fold_in(key, name), shape)
    keys = jax.random.split(key, STEPS)
    return [{"a": draw(k, 0, (5, 3)), "b": draw(k, 1, (4,)) / 100} for k in keys]


def equal_by_hand(matrix):
    """The iteration on singular values alone."""
    u, values, v = np.linalg.svd(matrix, full_matrices=False)
    values = values / np.linalg.norm(values)
    a, b, c = QUINTIC
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    return (u * values) @ v * max(1, matrix.shape[1] / matrix.shape[0]) ** 0.5


def by_hand(optimizer, weights, grads):
    """One array, as the docstring says."""
    rms = lambda x: np.sqrt(np.mean(x**2))
    decays, averages, square = optimizer.decays, [0.0, 0.0], 0.0
    h = c = np.zeros((3, 1))
    steps = []
    for t, g in enumerate(grads, 1):
        averages = [d * a + (1 - d) * g for d, a in zip(decays, averages, strict=True)]
        ahead = [d * a + (1 - d) * g for d, a in zip(decays, averages, strict=True)]
        square = LONG * square + (1 - LONG) * np.mean(g**2)
        size = np.sqrt(square / (1 - LONG**t))
        directions = [equal_by_hand(a) if g.ndim == 2 else a / size for a in ahead]
        unbiased = [a / (1 - d**t) for d, a in zip(decays, averages, strict=True)]
        features = [
            *(np.mean(g * a) / rms(g) / rms(a) for a in averages),
            *(np.log(rms(g) / rms(a)) for a in unbiased),
            np.log(rms(g) / size),
            float(g.ndim == 2),
            *np.tanh(t / SPANS.astype(float) - 1),
        ]
        (layer,) = weights["layers"]
        gates = apply(layer, jnp.asarray(np.concatenate([features, h[:, 0]]))[:, None])
        write, forget, read, fresh = jnp.split(gates, 4)
        c = sigmoid(forget + 1) * c + sigmoid(write) * jnp.tanh(fresh)
        h = np.asarray(sigmoid(read) * jnp.tanh(c))
        sizes = optimizer.rate * np.exp(np.asarray(apply(weights["output"], jnp.asarray(h))))
        steps.append(-sum(s * d for s, d in zip(sizes[:, 0], directions, strict=True)))
    return steps


def test_each_array_steps_as_by_hand(x64, key, optimizer):
    weights, grads = weights_of(optimizer, key), gradients(key)
    found = steps_of(optimizer, weights, grads)
    for name in ("a", "b"):
        alone = by_hand(optimizer, weights, [np.asarray(g[name]) for g in grads])
        for t in range(STEPS):
            np.testing.assert_allclose(found[t][name], alone[t], rtol=1e-6)


@pytest.mark.parametrize("shape", [(6, 3), (3, 6), (2, 2, 3)])
def test_singular_values_are_nearly_equal(key, shape):
    optimizer = SpectralLSTM(rate=1.0, decays=(0.0,))
    weights = jax.tree.map(jnp.zeros_like, optimizer.weights(key))
    (step,) = steps_of(optimizer, weights, [jax.random.normal(key, shape)])
    matrix = np.asarray(step).reshape(-1, shape[-1])
    values = np.linalg.svd(matrix, compute_uv=False)
    values /= max(1, matrix.shape[1] / matrix.shape[0]) ** 0.5
    assert 0.6 < values.min() <= values.max() < 1.3


def test_gradients_of_any_size_are_alike(x64, key, optimizer):
    weights, grads = weights_of(optimizer, key), gradients(key)
    small = steps_of(optimizer, weights, jax.tree.map(lambda g: 1e-6 * g, grads))
    large = steps_of(optimizer, weights, grads)
    for s, g in zip(jax.tree.leaves(small), jax.tree.leaves(large), strict=True):
        np.testing.assert_allclose(s, g, rtol=1e-4)


def test_the_derivative_is_finite_where_gradients_are_zero(key, optimizer):
    """At the minimum, when the gradient stays the same, and with nothing in an array."""
    for size in (0.0, 1.0):
        grads = {"a": size * jnp.eye(3), "b": size * jnp.ones(2), "c": jnp.zeros((0, 2))}
        check_slopes(optimizer, weights_of(optimizer, key), [grads] * STEPS)


def test_no_parameters(key, optimizer):
    transformation = optimizer.as_optax(optimizer.weights(key))
    assert transformation.update({}, transformation.init({}))[0] == {}

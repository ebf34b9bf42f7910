"""The networks and what they see, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
from hindgrad.learned import CoordinateLSTM, LogSign
from hindgrad.learned.networks import LSTM, MLP


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_by_hand(weights, features, state):
    """One coordinate, unit by unit as in the textbook; the forget gate has a bias of 1 more."""
    x, after = features, []
    for layer, (output, cell) in zip(weights["layers"], state, strict=True):
        gates = layer["matrix"] @ np.concatenate([x, output]) + layer["bias"]
        write, forget, read, fresh = gates.reshape(4, -1)
        cell = sigmoid(forget + 1) * cell + sigmoid(write) * np.tanh(fresh)
        x = sigmoid(read) * np.tanh(cell)
        after.append((x, cell))
    return weights["output"]["matrix"] @ x + weights["output"]["bias"], after


def test_lstm(x64, key):
    """Two layers, two steps, with a state for each of three coordinates."""
    network = LSTM((4, 3))
    weights = jax.tree.map(lambda w: w + 0.1, network.weights(key, 2, 1))
    features = jax.random.normal(key, (2, 2, 3))
    state, step = network.begin(3), jax.jit(network)
    by_hand = [[(np.zeros(4), np.zeros(4)), (np.zeros(3), np.zeros(3))] for _ in range(3)]
    arrays = jax.tree.map(np.asarray, weights)
    for x in features:
        outputs, state = step(weights, x, state)
        for i in range(3):
            output, by_hand[i] = lstm_by_hand(arrays, np.asarray(x[:, i]), by_hand[i])
            np.testing.assert_allclose(outputs[:, i], output, rtol=1e-12)


def test_mlp(x64, key):
    network = MLP((4,))
    weights = jax.tree.map(lambda w: w + 0.1, network.weights(key, 2, 3))
    features = jax.random.normal(key, (2, 5))
    outputs, state = jax.jit(network)(weights, features, None)
    first, last = jax.tree.map(np.asarray, weights["layers"])
    hidden = np.maximum(first["matrix"] @ features + first["bias"][:, None], 0)
    by_hand = last["matrix"] @ hidden + last["bias"][:, None]
    np.testing.assert_allclose(outputs, by_hand, rtol=1e-12)
    assert state is None


def test_log_sign():
    """Appendix A of the paper, where both cases meet, and at 0."""
    p = 5.0
    g = np.float32([2.0, -0.5, np.exp(-p), 1e-4, -1e-6, 0.0, 1e30])
    features, _, _ = LogSign(p).see(jnp.asarray(g), None)
    is_large = np.abs(g) >= np.exp(-p) * (1 - 1e-6)
    safe = np.where(is_large, np.abs(g), 1)
    by_hand = np.where(
        is_large, [np.log(safe) / p, np.sign(g)], [np.full(g.shape, -1), np.exp(p) * g]
    )
    np.testing.assert_allclose(features, by_hand, rtol=1e-5)
    slope = jax.jit(jax.grad(lambda g: jnp.sum(LogSign(p).see(g, None)[0])))(jnp.zeros(2))
    assert np.all(np.isfinite(slope))


@pytest.mark.parametrize("preprocess", [None, LogSign(2.0)])
def test_coordinate_lstm(x64, key, preprocess):
    """θ ← θ + scale · m(∇): one network for all coordinates, whatever array they are in."""
    optimizer = CoordinateLSTM((3,), preprocess=preprocess, scale=0.25)
    weights = optimizer.weights(key)
    assert weights["layers"][0]["matrix"].shape == (12, 3 + (1 if preprocess is None else 2))
    grads = {"a": jnp.array([[0.3, -2.0]]), "b": jnp.array(0.01)}
    transformation = optimizer.as_optax(weights)
    updates, _ = jax.jit(transformation.update)(grads, transformation.init(grads))
    for g, update in [(0.3, updates["a"][0, 0]), (-2.0, updates["a"][0, 1]), (0.01, updates["b"])]:
        size = np.maximum(np.log(abs(g)) / 2, -1)
        seen = [g] if preprocess is None else [size, np.clip(np.exp(2) * g, -1, 1)]
        begin = [(np.zeros(3), np.zeros(3))]
        output, _ = lstm_by_hand(jax.tree.map(np.asarray, weights), np.array(seen), begin)
        np.testing.assert_allclose(update, 0.25 * output[0], rtol=1e-12)


def test_defaults_are_the_papers():
    optimizer = hg.learned.CoordinateLSTM()
    assert (optimizer.hidden, optimizer.scale) == ((20, 20), 0.1)
    assert optimizer.preprocess.p == 10
    assert not optimizer.second_derivatives

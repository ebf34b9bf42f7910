"""Curves of held-out problems: the same problems for every optimizer, those of a key."""

import jax
import numpy as np
import optax

from hindgrad.learned import CoordinateLSTM, Quadratics, curves, learned_curves, optax_curves

STEPS = 4
LSTM = CoordinateLSTM((2,))


def noisy(key):
    params, loss = Quadratics(3)(key)
    return params, lambda p, key: loss(p, key) + 0.1 * jax.random.normal(key)


def by_hand(transformation, key, number):
    """One problem's losses, step by step."""
    own = jax.random.fold_in(key, number)
    params, loss = noisy(jax.random.fold_in(own, 0))
    at = jax.jit(
        jax.value_and_grad(lambda p, t: loss(p, jax.random.fold_in(jax.random.fold_in(own, 1), t)))
    )
    state, losses = transformation.init(params), []
    for t in range(STEPS + 1):
        value, grads = at(params, t)
        losses.append(value)
        updates, state = transformation.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return losses


def test_against_loops_by_hand(key):
    """Both functions meet the same problems and the same noise."""
    weights = LSTM.weights(jax.random.key(5))
    learned = learned_curves(LSTM, weights, noisy, key, count=2, steps=STEPS)
    adam = optax_curves(optax.adam(0.1), noisy, key, count=2, steps=STEPS)
    assert learned.shape == adam.shape == (2, STEPS + 1)
    np.testing.assert_allclose(learned[1], by_hand(LSTM.as_optax(weights), key, 1), rtol=1e-4)
    np.testing.assert_allclose(adam[1], by_hand(optax.adam(0.1), key, 1), rtol=1e-4)
    np.testing.assert_array_equal(learned[:, 0], adam[:, 0])


def test_in_turns(key, monkeypatch):
    """If there are many coordinates, problems are taken in turns, and the curves are the same."""
    together = optax_curves(optax.sgd(0.01), noisy, key, count=5, steps=STEPS)
    monkeypatch.setattr(curves, "COORDINATES", 6)
    in_turns = optax_curves(optax.sgd(0.01), lambda key: noisy(key), key, count=5, steps=STEPS)
    np.testing.assert_allclose(in_turns, together, rtol=1e-5)


def test_other_weights_and_keys_do_not_compile_again(key):
    traces = []

    def family(key):
        traces.append(None)
        return Quadratics(2)(key)

    for seed in (1, 2):
        weights = LSTM.weights(jax.random.key(seed))
        learned_curves(LSTM, weights, family, jax.random.fold_in(key, seed), count=2, steps=1)
        traces.append(seed)
    assert traces[-2:] == [1, 2]


def test_divergence_is_seen(key):
    far = optax_curves(optax.sgd(1e20), Quadratics(2), key, count=1, steps=STEPS)
    assert not np.all(np.isfinite(far))
    assert np.isfinite(far[0, 0])

"""The method behind `hindgrad clean`: weights of rows, and opinions from outside."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hindgrad.apps.clean.suspicion import Learner, cleaning, learn, opinion

KEY = jax.random.key(0)


def blobs(rows=120, wrong=24, seed=0):
    """Three groups of points in the plane, and labels of which the first are wrong."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, rows).astype(np.int32)
    x = rng.normal(size=(rows, 2)) * 0.5 + np.array([[0, 2], [2, -1], [-2, -1]])[y]
    noisy = y.copy()
    noisy[:wrong] = (y[:wrong] + rng.integers(1, 3, wrong)) % 3
    return x.astype(np.float32), noisy, y


def problem(trusted=0, hidden=(), steps=30):
    x, noisy, y = blobs()
    known = np.arange(len(y)) >= len(y) - trusted
    return cleaning(x, noisy, known, Learner((2, *hidden, 3), steps))


def test_half_of_the_rows_train_and_half_validate_and_each_key_draws_anew():
    p = problem()
    train, valid = map(np.asarray, p.split(KEY))
    assert sorted([*train, *valid]) == list(range(120))
    assert len(train) == len(valid) == 60
    _, other = p.split(jax.random.key(1))
    assert set(valid) != set(np.asarray(other))


def test_trusted_rows_together_say_as_much_as_the_others():
    p = problem(trusted=20)
    say = np.asarray(p.say)
    assert say[:100].sum() == pytest.approx(say[100:].sum())
    params = [{"w": jax.random.normal(KEY, (2, 3)), "b": jnp.zeros(3)}]
    rows = np.asarray(p.split(KEY)[1])
    logits = np.asarray(p.x)[rows] @ np.asarray(params[0]["w"])
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.average(1 - shares[np.arange(60), np.asarray(p.y)[rows]], weights=say[rows])
    score = p.score(params, {"weights": jnp.ones(120)}, KEY)
    assert float(score) == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_the_weighted_mean_and_ignores_its_scale():
    p = problem()
    params = [{"w": jax.random.normal(KEY, (2, 3)), "b": jnp.zeros(3)}]
    weights = np.random.default_rng(0).random(120)
    batch = p.training(KEY).batches(jnp.int32(0))
    rows = np.asarray(batch.data)
    logits = np.asarray(p.x)[rows] @ np.asarray(params[0]["w"])
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    fits = -logs[np.arange(len(rows)), np.asarray(p.y)[rows]]
    expected = np.average(fits, weights=weights[rows])
    for scale in (1.0, 0.1):
        loss = p.loss(params, {"weights": jnp.asarray(scale * weights, jnp.float32)}, batch)
        assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_uniformly_wrong_labels_change_the_score_by_a_factor_and_a_constant():
    """Ghosh, Kumar & Sastry 2017, theorem 1: over all labels the score sums to classes − 1."""
    p = problem()
    params = [{"w": jax.random.normal(KEY, (2, 3)), "b": jnp.zeros(3)}]
    total = 0.0
    for shift in range(3):
        shifted = cleaning(
            np.asarray(p.x), (np.asarray(p.y) + shift) % 3, np.zeros(120, bool), p.learner
        )
        total += float(shifted.score(params, {"weights": jnp.ones(120)}, KEY))
    assert total == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize(("trusted", "hidden"), [(0, ()), (0, (8,)), (30, ())])
def test_wrong_labels_get_low_weights(trusted, hidden):
    p = problem(trusted, hidden)
    weights = learn(p, budget=100.0, steps=12, key=KEY)
    assert weights.shape == (120,)
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert weights.sum() <= 100.0 * (1 + 1e-5)
    assert np.all(weights[120 - trusted :] == 1) or trusted == 0
    wrong = np.arange(120) < 24
    assert roc_auc_score(wrong, -weights) > 0.9


def test_an_opinion_comes_from_outside():
    """With a feature for each row, a network that trained on a row would know its label."""
    labels = np.random.default_rng(1).integers(0, 2, 60).astype(np.int32)
    learner = Learner((60, 2), steps=30)
    p = cleaning(np.eye(60), labels, np.zeros(60, bool), learner)
    probabilities = opinion(p, np.ones(60), KEY, 2)
    assert probabilities.shape == (60, 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert probabilities[np.arange(60), labels].mean() < 0.6


def test_an_opinion_goes_by_the_weights():
    x, noisy, y = blobs(wrong=60)
    p = cleaning(x, noisy, np.zeros(120, bool), Learner((2, 3), steps=40))
    right = opinion(p, (noisy == y).astype(float), KEY, 1)
    assert np.mean(right.argmax(axis=1) == y) > 0.95
    wrong = opinion(p, (noisy != y).astype(float), KEY, 1)
    assert np.mean(wrong.argmax(axis=1) == y) < 0.5


def test_batches_grow_with_the_rows():
    learner = Learner((2, 3), 10)
    assert [learner.batch(n) for n in (50, 1000, 30_000)] == [50, 256, 1500]

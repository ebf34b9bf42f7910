"""1,200 digits, a network of two hidden layers, plain gradient descent: how far scores foretell
retraining without a hundredth, a twentieth and half of the rows."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import hindgrad as hg

ROWS, QUERIES, RUNS = 1200, 8, 60


def attribution(width, rate, steps, batch=None):
    x, y = load_digits(return_X_y=True)
    x, y = jnp.asarray(x / 16, jnp.float32), jnp.asarray(y)
    sizes = list(itertools.pairwise((64, width, width, 10)))
    keys = jax.random.split(jax.random.key(0), 4)
    params = [
        {"w": jax.random.normal(key, size) / np.sqrt(size[0]), "b": jnp.zeros(size[1])}
        for key, size in zip(keys, sizes, strict=False)
    ]

    def losses(params, x, y):
        for layer in params[:-1]:
            x = jnp.tanh(x @ layer["w"] + layer["b"][None])
        logits = x @ params[-1]["w"] + params[-1]["b"][None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y)

    rows = x[:ROWS], y[:ROWS]
    training = hg.Training(
        lambda params, hyper, batch: jnp.mean(
            hyper["weight"][batch.index] * losses(params, *batch.data)
        ),
        optimizer=hg.Momentum(rate, decay=0.0),
        batches=hg.minibatches(rows, size=batch, key=0) if batch else hg.full_batch(rows),
        steps=steps,
    )
    new = slice(ROWS, ROWS + QUERIES)
    queries = lambda params, hyper, key: losses(params, x[new], y[new])
    objective = hg.Objective(training, init=params, score=queries)
    return hg.attribute(objective, {"weight": jnp.ones(ROWS)}, queries)


def certificates(found, *drops):
    return [found.certify(runs=RUNS, drop=drop, bar=0.9, progress=False) for drop in drops]


@pytest.mark.slow
def test_a_smooth_training():
    """Before anything is memorised: .98 up to a twentieth, and less where half is gone."""
    few, some, half = certificates(attribution(24, 0.5, 120), 0.01, 0.05, 0.5)
    assert few.ok
    assert some.ok
    assert few.mean > 0.97
    assert some.mean > 0.97
    assert 0.6 < half.mean < 0.9
    assert half.verdict == "not to be trusted"
    assert few.metasmoothness > 0.9
    assert few.precision.digits > 4
    assert all(removal.beats_random for removal in few.top.values())


@pytest.mark.slow
def test_a_training_that_memorises():
    """The more is removed, the less the slope says."""
    few, some, half = certificates(attribution(64, 0.5, 400, batch=100), 0.01, 0.05, 0.5)
    assert few.mean > 0.87
    assert 0.7 < some.mean < 0.9
    assert half.mean < some.mean
    assert half.verdict == "not to be trusted"


@pytest.mark.slow
def test_a_chaotic_training():
    (few,) = certificates(attribution(24, 1.5, 120), 0.01)
    assert few.mean < 0.3
    assert few.verdict == "not to be trusted"
    assert "chaotic" in few.message
    with pytest.raises(RuntimeError, match="not finite: training is chaotic"):
        attribution(24, 2.0, 120)

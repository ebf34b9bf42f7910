"""Families of classifiers: what a problem is, and that the rows are there once."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad.apps import datasets
from hindgrad.apps.images import examples
from hindgrad.learned import MLPs, classifiers, problems


@pytest.fixture(scope="module")
def digits():
    return examples("digits")


def test_rows_are_between_zero_and_one(digits):
    assert digits.x.shape == (1797, 64)
    assert digits.classes == 10
    assert float(digits.x.min()) == 0
    assert float(digits.x.max()) == 1
    with pytest.raises(datasets.DataError, match="letters"):
        examples("letters")


@pytest.mark.parametrize(
    ("hidden", "activation", "by_hand"),
    [
        ((20,), jax.nn.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
        ((5, 7), jax.nn.relu, lambda x: np.maximum(x, 0)),
        ((), jnp.tanh, np.tanh),
    ],
    ids=["sigmoid", "two layers of ReLU", "linear"],
)
def test_the_loss_is_the_cross_entropy_of_the_keys_rows(digits, hidden, activation, by_hand):
    family = MLPs(digits, hidden=hidden, activation=activation, batch=9)
    params, loss = family(jax.random.key(3))
    sizes = (64, *hidden, 10)
    assert [layer["w"].shape for layer in params] == list(itertools.pairwise(sizes))
    key = jax.random.key(4)
    rows = np.asarray(jax.random.randint(key, (9,), 0, 1797))
    x, y = np.asarray(digits.x, np.float64)[rows], np.asarray(digits.y)[rows]
    for i, layer in enumerate(params):
        x = (by_hand(x) if i else x) @ np.asarray(layer["w"], np.float64) + np.asarray(layer["b"])
    expected = np.mean(np.log(np.exp(x).sum(axis=1)) - x[np.arange(9), y])
    np.testing.assert_allclose(loss(params, key), expected, rtol=1e-5)
    assert loss(params, key) != loss(params, jax.random.key(5))


def test_weights_begin_as_said():
    drawn = classifiers.inverse_root(jax.random.key(0), (400, 50)) * 20
    assert float(jnp.abs(drawn).max()) <= 2
    # The standard deviation of a normal cut at two of its own.
    assert float(drawn.std()) == pytest.approx(0.8796, rel=0.02)


def test_other_weights_to_begin_with(digits):
    family = MLPs(digits, initial=lambda key, shape: jnp.full(shape, 0.5))
    assert all((layer["w"] == 0.5).all() for layer in family(jax.random.key(0))[0])


def test_problems_share_the_rows_and_nothing_else(digits):
    drawn = problems.draw(MLPs(digits, hidden=(3,)), jax.random.key(0), 4)
    shapes = [leaf.shape for leaf in jax.tree.leaves(eqx.filter(drawn.loss, eqx.is_array))]
    assert digits.x.shape in shapes
    assert (4, *digits.x.shape) not in shapes
    first = drawn.params[0]["w"]
    assert first.shape == (4, 64, 3)
    assert len(np.unique(first[:, 0, 0])) == 4
    same = jax.tree.map(lambda p: jnp.repeat(p[:1], 4, 0), drawn.params)
    losses = drawn.losses(same, jnp.int32(0))
    assert len(np.unique(losses)) == 4

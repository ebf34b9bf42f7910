"""Convolutional networks as problems: against the same network in JAX's own operations, and finite
differences."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hindgrad.apps.images import images
from hindgrad.learned import optax_curves, problems
from hindgrad.learned.convnets import ConvNets, Images, convolve, normalize, pool


@pytest.fixture(scope="module")
def digits():
    return images("digits")


def small(images, **others):
    return ConvNets(images, **{"channels": (3, 2), "kernel": 3, "dense": 4, "batch": 5} | others)


def by_hand(params, x):
    """The network on [rows, colors, height, width], in JAX's own operations."""
    for layer in params["convolutions"]:
        x = jax.lax.conv_general_dilated(x, layer["kernel"], (1, 1), "SAME")
        x = standard(x, (0, 2, 3), layer)
        x = jax.lax.reduce_window(
            jnp.maximum(x, 0), -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"
        )
    x = x.reshape(len(x), -1) @ params["dense"]["weights"].T
    x = jnp.maximum(standard(x, (0,), params["dense"]), 0)
    return x @ params["output"]["weights"].T + params["output"]["bias"][None]


def standard(x, axes, layer):
    x = jax.nn.standardize(x, axes, epsilon=1e-5)
    along = lambda v: v.reshape(1, -1, *(1,) * (x.ndim - 2))
    return x * along(layer["scale"]) + along(layer["bias"])


def moved(params, seed):
    """Away from the start, where scales are 1 and biases 0."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape).astype(p.dtype), params)


def test_the_loss_and_its_gradient(digits, key):
    train, _ = digits
    family = small(train)
    params, loss = family(key)
    params = moved(params, 0)
    batch = train.draw(key, family.batch)

    def expected(params):
        logits = by_hand(params, batch.x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.y).mean()

    value, grads = jax.jit(jax.value_and_grad(loss))(params, key)
    expected_value, expected_grads = jax.jit(jax.value_and_grad(expected))(params)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    for found, wanted in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_the_gradient_by_finite_differences(x64, digits, key):
    train, _ = digits
    family = small(Images(train.x.astype(jnp.float64), train.y, train.classes), channels=(2,))
    params = moved(jax.tree.map(lambda p: p.astype(jnp.float64), family.start(key)), 1)
    along = moved(jax.tree.map(jnp.zeros_like, params), 2)
    loss = jax.jit(lambda e: family.loss(jax.tree.map(lambda p, d: p + e * d, params, along), key))
    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    assert abs(slope) > 1e-2
    np.testing.assert_allclose(jax.grad(loss)(0.0), slope, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_convolutions_of_many_kernels(size):
    rng = np.random.default_rng(size)
    x = jnp.asarray(rng.normal(size=(2, 3, 4, 6, 5)), jnp.float32)
    kernels = jnp.asarray(rng.normal(size=(2, 2, 3, size, size)), jnp.float32)
    found = jax.jit(jax.vmap(convolve))(x, kernels)
    for one, kernel, expected in zip(x, kernels, found, strict=True):
        rows = jax.lax.conv_general_dilated(one.transpose(3, 0, 1, 2), kernel, (1, 1), "SAME")
        np.testing.assert_allclose(rows.transpose(1, 2, 3, 0), expected, rtol=1e-4, atol=1e-5)


def test_pooling_takes_the_largest():
    x = np.arange(16.0, dtype=np.float32).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(pool(jnp.asarray(x))[0, ..., 0], [[5, 7], [13, 15]])


def test_normalisation_over_rows_and_pixels():
    x = jnp.asarray(np.random.default_rng(0).normal(3, 2, (2, 4, 4, 50)), jnp.float32)
    layer = {"scale": jnp.array([1.0, 5.0]), "bias": jnp.array([0.0, -1.0])}
    found = np.asarray(normalize(x, layer))
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), [0, -1], atol=1e-4)
    np.testing.assert_allclose(found.std(axis=(1, 2, 3)), [1, 5], rtol=1e-3)


def test_the_start_is_random_and_of_the_right_sizes(digits):
    train, _ = digits
    family = ConvNets(train, channels=(16, 16), kernel=5)
    params = family.start(jax.random.key(0))
    shapes = [layer["kernel"].shape for layer in params["convolutions"]]
    assert shapes == [(16, 1, 5, 5), (16, 16, 5, 5)]
    assert params["dense"]["weights"].shape == (32, 16 * 2 * 2)
    assert params["output"]["weights"].shape == (10, 32)
    second = params["convolutions"][1]["kernel"]
    np.testing.assert_allclose(second.std(), np.sqrt(2 / (16 * 25)), rtol=0.1)
    other = family.start(jax.random.key(1))["convolutions"][1]["kernel"]
    assert abs(np.corrcoef(second.ravel(), other.ravel())[0, 1]) < 0.1


def test_the_images_are_there_once_for_all_problems(digits, key):
    train, _ = digits
    drawn = problems.draw(small(train, channels=()), key, 3)
    held = sum(leaf.size for leaf in jax.tree.leaves(drawn.loss) if hasattr(leaf, "size"))
    assert train.x.size <= held < 1.2 * train.x.size


def test_minibatches_come_by_the_key(digits):
    train, _ = digits
    first, again, other = (train.draw(jax.random.key(k), 40) for k in (0, 0, 1))
    np.testing.assert_array_equal(first.x, again.x)
    assert (first.y != other.y).any()
    rows = {bytes(x): y for x, y in zip(np.asarray(train.x), np.asarray(train.y), strict=True)}
    assert all(rows[bytes(x)] == y for x, y in zip(np.asarray(first.x), first.y, strict=True))


def test_training_lowers_the_loss(digits, key):
    family = small(digits[0], channels=(3,), dense=16, batch=32)
    curves = optax_curves(optax.sgd(0.1, momentum=0.9), family, key, count=2, steps=40)
    assert curves.shape == (2, 41)
    assert (curves[:, -5:].mean(axis=1) < 0.6 * curves[:, 0]).all()


def test_networks_that_do_not_fit_the_images_are_refused(digits):
    with pytest.raises(ValueError, match="halves the images 4 times, and they have 8 pixels"):
        ConvNets(digits[0], channels=(2,) * 4)
    with pytest.raises(ValueError, match=r"kernel=4\): an odd number is needed"):
        ConvNets(digits[0], channels=(2,), kernel=4)

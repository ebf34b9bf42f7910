"""Built-in data sets as problems to learn an optimizer on."""

import dataclasses

import numpy as np
import pytest

from hindgrad.apps import datasets
from hindgrad.apps.images import images


@pytest.fixture(scope="module")
def digits():
    return images("digits")


def test_loaded_images(digits):
    train, test = digits
    data = datasets.load("digits")
    assert len(train.y) + len(test.y) == len(data.y)
    assert len(test.y) == -(-len(data.y) // 5)
    assert train.x.shape[1:] == (1, 8, 8)
    np.testing.assert_allclose([train.x.mean(), train.x.std()], [0, 1], atol=1e-5)
    raw = np.asarray(data.x[1].reshape(8, 8), np.float32)
    np.testing.assert_allclose(np.corrcoef(raw.ravel(), train.x[0].ravel())[0, 1], 1, rtol=1e-6)
    assert (train.y[0], test.y[0]) == (data.y[1], data.y[0])


def test_sizes_are_averages():
    full, small = (images("digits", size=size)[0].x[3, 0] for size in (None, 4))
    assert small.shape == (4, 4)
    means = np.asarray(full).reshape(4, 2, 4, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(np.corrcoef(means.ravel(), small.ravel())[0, 1], 1, rtol=1e-5)


def test_colors_and_the_official_split(monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (6, 4, 4, 3)) + np.array([0, 100, 200])
    y, train = np.array([0, 1, 0, 1, 0, 1]), np.array([1, 1, 0, 1, 1, 0], bool)
    data = datasets.Dataset("colors", x.reshape(6, -1), y, ("a", "b"), (4, 4, 3), train)
    monkeypatch.setattr(datasets, "load", lambda name: data)
    first, second = images("colors")
    assert (len(first.y), len(second.y)) == (4, 2)
    np.testing.assert_allclose(first.x.mean(axis=(0, 2, 3)), np.zeros(3), atol=1e-5)
    expected = x[0, ..., 1] - x[train][..., 1].mean()
    np.testing.assert_allclose(first.x[0, 1], expected / x[train][..., 1].std(), rtol=1e-4)
    with pytest.raises(ValueError, match="have 4 × 4 pixels; give a size that divides them"):
        images("colors", size=3)
    no_images = dataclasses.replace(data, image=None)
    monkeypatch.setattr(datasets, "load", lambda name: no_images)
    with pytest.raises(ValueError, match="no images"):
        images("colors")

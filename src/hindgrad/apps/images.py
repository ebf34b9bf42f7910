"""The built-in data sets as problems to learn an optimizer on."""

import jax.numpy as jnp
import numpy as np

from hindgrad.apps import datasets
from hindgrad.learned.classifiers import Examples
from hindgrad.learned.convnets import Images


def examples(name: str) -> Examples:
    """The official training rows of a built-in data set ("digits", "mnist", …), divided by the
    largest number in them.

    Raises `hindgrad.apps.datasets.DataError` if it is not to be had.
    """
    data = datasets.load(name)
    x, y = data.x[data.train], data.y[data.train]
    x = jnp.asarray(x / np.float32(data.x.max()), jnp.float32)
    return Examples(x, jnp.asarray(y, jnp.int32), len(data.classes))


def images(name: str, *, size: int | None = None) -> tuple[Images, Images]:
    """Training and test images of a built-in data set ("cifar10", "mnist", "digits", …) in its
    official split; of one without a split, every fifth image is for testing. Each color has
    mean 0 and variance 1 over the training images.

    **Arguments:**

    - `name`: of the data.
    - `size`: to so many pixels a side, by averaging; as they are unless given.

    Raises `ValueError` if the data are no images, or `size` does not divide theirs;
    `hindgrad.apps.datasets.DataError` if they are not to be had.
    """
    data = datasets.load(name)
    if data.image is None:
        raise ValueError(f"images({name!r}): these are no images. Name other data.")
    train = np.arange(len(data.y)) % 5 > 0 if data.train.all() else data.train
    x = _averaged(data.x.reshape(len(data.y), *data.image), size or data.image[0], name)
    mean, spread = (f(x[train], (0, 2, 3), keepdims=True) for f in (np.mean, np.std))
    x, y = jnp.asarray((x - mean) / spread), jnp.asarray(data.y, jnp.int32)
    first, second = (Images(x[rows], y[rows], len(data.classes)) for rows in (train, ~train))
    return first, second


def _averaged(x, size, name):
    """The images, colors in front, as means over squares of pixels."""
    x = np.asarray(x[..., None] if x.ndim == 3 else x, np.float32).transpose(0, 3, 1, 2)
    rows, colors, height, width = x.shape
    if height != width or height % size:
        raise ValueError(
            f"images({name!r}, size={size}): the images have {height} × {width} pixels; give "
            "a size that divides them."
        )
    side = height // size
    return x.reshape(rows, colors, size, side, size, side).mean(axis=(3, 5))

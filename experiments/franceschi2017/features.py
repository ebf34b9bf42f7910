"""Image features that need no label: filters learned from patches of other images.

Coates and Ng 2012, *Learning feature representations with k-means*: small patches are made
comparable in brightness and contrast and decorrelated (ZCA); filters are the centroids of many; an
image is described by how much closer than average each filter is, added up over four quadrants.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from sklearn.cluster import MiniBatchKMeans

CONTRAST = 10.0
"""Added to the variance of a patch of grey values 0 … 255, so that flat patches stay flat."""
WHITENING = 0.1
"""Added to the variances of the patches before they are made equal."""
BATCH = 50
"""Images whose responses are in memory at a time."""


@dataclass(frozen=True)
class Filters:
    """What was learned from unlabelled images."""

    size: int
    """The side of a patch in pixels."""
    mean: Float[np.ndarray, " pixels"]
    whiten: Float[np.ndarray, "pixels pixels"]
    centroids: Float[np.ndarray, "filters pixels"]

    def describe(
        self, images: UInt8[np.ndarray, "images height width channels"]
    ) -> Float[np.ndarray, "images features"]:
        """The features of images: each filter's response summed over each of four quadrants."""
        batches = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
        return np.concatenate([self._describe(batch) for batch in batches])

    def _describe(self, images):
        rows = images.shape[1] - self.size + 1
        columns = images.shape[2] - self.size + 1
        patches = _comparable(_patches(images, self.size).reshape(-1, len(self.mean)))
        patches = (patches - self.mean[None]) @ self.whiten
        squares = np.sum(patches**2, axis=1)[:, None] + np.sum(self.centroids**2, axis=1)[None]
        distance = np.sqrt(np.maximum(squares - 2 * patches @ self.centroids.T, 0))
        closer = np.maximum(distance.mean(axis=1, keepdims=True) - distance, 0)
        response = closer.reshape(len(images), rows, columns, -1)
        top, left = rows // 2, columns // 2
        quadrants = [
            response[:, down, across].sum(axis=(1, 2))
            for down in (slice(top), slice(top, None))
            for across in (slice(left), slice(left, None))
        ]
        return np.concatenate(quadrants, axis=1)


@dataclass(frozen=True)
class Whitening:
    """Square roots of responses, standardised, and made partly white: long axes are shortened."""

    mean: Float[np.ndarray, " features"]
    axes: Float[np.ndarray, "features kept"]

    @staticmethod
    def by(
        responses: Float[np.ndarray, "images features"], *, kept: int, spread: float
    ) -> "Whitening":
        """From unlabelled images, whose mean squared length becomes 1.

        The `kept` axes of largest variance stay. Each is divided by the root of its variance plus
        `spread` times their mean: the smaller, the whiter.
        """
        roots = np.sqrt(responses)
        mean, deviation = roots.mean(axis=0), roots.std(axis=0)
        scale = np.where(deviation > 0, deviation, 1)
        standard = (roots - mean[None]) / scale[None]
        _, lengths, axes = np.linalg.svd(standard, full_matrices=False)
        variances = lengths[:kept] ** 2 / len(roots)
        divisors = np.sqrt(variances + spread * variances.mean())
        length = np.sqrt(np.sum(variances / divisors**2))
        axes = axes[:kept].T / (divisors * length)[None]
        return Whitening(mean, axes / scale[:, None])

    def __call__(
        self, responses: Float[np.ndarray, "images features"]
    ) -> Float[np.ndarray, "images kept"]:
        return (np.sqrt(responses) - self.mean[None]) @ self.axes


def learn_filters(
    images: UInt8[np.ndarray, "images height width channels"],
    *,
    filters: int,
    size: int,
    patches: int,
    seed: int,
) -> Filters:
    """Filters from `patches` random patches of unlabelled images."""
    random = np.random.default_rng(seed)
    which = random.integers(len(images), size=patches)
    top = random.integers(images.shape[1] - size + 1, size=patches)
    left = random.integers(images.shape[2] - size + 1, size=patches)
    offset = np.arange(size)
    taken = images[
        which[:, None, None],
        (top[:, None] + offset[None])[:, :, None],
        (left[:, None] + offset[None])[:, None, :],
    ]
    sample = _comparable(taken.reshape(patches, -1).astype(np.float32))
    mean = sample.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov((sample - mean[None]).T))
    whiten = (axes / np.sqrt(variances + WHITENING)[None]) @ axes.T
    whiten = whiten.astype(np.float32)
    means = MiniBatchKMeans(filters, batch_size=4096, n_init="auto", random_state=seed)
    means.fit((sample - mean[None]) @ whiten)
    return Filters(size, mean, whiten, np.asarray(means.cluster_centers_, np.float32))


def _patches(images, size):
    """All patches of each image [images, rows, columns, size, size, channels]."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (size, size), axis=(1, 2))
    return np.moveaxis(windows, 3, -1).astype(np.float32)


def _comparable(patches):
    """Each patch with mean 0 and variance 1, nearly."""
    centred = patches - patches.mean(axis=1, keepdims=True)
    return centred / np.sqrt(centred.var(axis=1, keepdims=True) + CONTRAST)

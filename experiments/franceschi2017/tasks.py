"""The classes of three data sets as tasks, each example described by features without labels.

Filters, centring and whitening come from images that are not among the tasks' examples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from experiments.franceschi2017.features import Whitening, learn_filters
from hindgrad.apps import datasets

LATIN = "abcdefghijklmnopqrstuvwxyz"
GREEK = "αβγδεζηθικλμνξοπρστυφχψω"
"""In the order of the data set, which has one form of the sigma."""

VEHICLES = ("airplane", "automobile", "ship", "truck")

PATCHES = 100_000
"""How many the filters come from."""
KEPT, SPREAD = 256, 10.0
"""Axes of the features, and how white they are."""


@dataclass(frozen=True)
class Tasks:
    """Classes to be told apart."""

    x: Float[np.ndarray, "rows features"]
    """Features, with mean squared length 1."""
    y: Int[np.ndarray, " rows"]
    names: tuple[str, ...]
    groups: tuple[str, ...]
    """Which kind each class is of."""

    def shown(self) -> dict[str, Any]:
        """What a report needs to know."""
        return {"names": self.names, "groups": self.groups, "examples": len(self.y)}


def cifar10(filters: int) -> Tasks:
    """Ten kinds of things. The first 8,000 training and 1,000 test images are taken; 2,000 of
    them are for the features."""
    data = datasets.load("cifar10")
    rows = np.concatenate([np.flatnonzero(data.train)[:8000], np.flatnonzero(~data.train)[:1000]])
    images, y = _images(data)[rows], data.y[rows]
    groups = tuple("vehicles" if name in VEHICLES else "animals" for name in data.classes)
    x = _described(images[2000:], images[:2000], filters, size=6)
    return Tasks(x, y[2000:].astype(np.int32), data.classes, groups)


def omniglot(filters: int) -> Tasks:
    """The Greek and the Latin letters; 3,000 drawings of other alphabets are for the features."""
    data = datasets.load("omniglot")
    alphabet, images = data.groups["alphabet"], _images(data)
    taken = np.concatenate([np.flatnonzero(alphabet == name) for name in ("Greek", "Latin")])
    others = np.random.default_rng(0).permutation(np.setdiff1d(np.arange(len(data.y)), taken))
    first, y = np.unique(data.y[taken], return_inverse=True)
    names = {f"Greek {i:02}": c for i, c in enumerate(GREEK)}
    names |= {f"Latin {i:02}": c for i, c in enumerate(LATIN)}
    classes = [data.classes[i] for i in first]
    x = _described(images[taken], images[np.sort(others[:3000])], filters, size=7)
    groups = tuple(name.split()[0] for name in classes)
    return Tasks(x, y.astype(np.int32), tuple(names[name] for name in classes), groups)


def digits(filters: int) -> Tasks:
    """The small digits, for tests."""
    data = datasets.load("digits")
    images = (_images(data) * 15).astype(np.uint8)
    x = _described(images[300:], images[:300], filters, size=3)
    return Tasks(x, data.y[300:].astype(np.int32), data.classes, ("digits",) * 10)


TASKS: dict[str, Callable[[int], Tasks]] = {
    "cifar10": cifar10,
    "omniglot": omniglot,
    "digits": digits,
}


def _images(data: datasets.Dataset) -> np.ndarray:
    """[rows, height, width, channels]"""
    assert data.image is not None
    return data.x.reshape(-1, *data.image, *([1] if len(data.image) == 2 else []))


def _described(
    images: UInt8[np.ndarray, "rows height width channels"],
    unlabelled: UInt8[np.ndarray, "others height width channels"],
    filters: int,
    size: int,
) -> Float[np.ndarray, "rows features"]:
    learned = learn_filters(unlabelled, filters=filters, size=size, patches=PATCHES, seed=0)
    whiten = Whitening.by(learned.describe(unlabelled), kept=KEPT, spread=SPREAD)
    return whiten(learned.describe(images))

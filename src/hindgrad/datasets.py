"""Data sets by name: one that is installed with scikit-learn, and public ones fetched once."""

import gzip
import os
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = "HINDGRAD_DATA"
"""The environment variable naming a folder in which NAME.npz is looked for first."""

MNIST_MIRROR = "https://storage.googleapis.com/cvdf-datasets/mnist/"
MNIST_FILES = {
    "x_train": (
        "train-images-idx3-ubyte.gz",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    "y_train": (
        "train-labels-idx1-ubyte.gz",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    "x_test": (
        "t10k-images-idx3-ubyte.gz",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    "y_test": (
        "t10k-labels-idx1-ubyte.gz",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
}


class DataError(Exception):
    """The data cannot be used; the message is one line that says why and what to do."""


@dataclass(frozen=True)
class Dataset:
    """A named data set in its official order."""

    name: str
    x: np.ndarray
    """One row for each example, of numbers in their original type and units."""
    y: np.ndarray
    """Class indices."""
    classes: tuple[str, ...]
    image: tuple[int, ...] | None
    """The shape of a row as an image, if it is one."""
    train: np.ndarray
    """Which rows are in the official training set."""


def load(name: str) -> Dataset:
    """Loads a data set by name: one of `NAMES`.

    Raises `DataError` if it is neither in the folder named by HINDGRAD_DATA nor can be fetched.
    """
    if name not in _LOADERS:
        raise DataError(f"there is no built-in data set '{name}'; there are {', '.join(NAMES)}.")
    return _LOADERS[name]()


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    x, y = map(np.asarray, load_digits(return_X_y=True))
    classes = tuple(str(digit) for digit in range(10))
    return Dataset("digits", x, y, classes, (8, 8), np.ones(len(y), bool))


def _mnist() -> Dataset:
    arrays = _from_folder("mnist", tuple(MNIST_FILES)) or _download_mnist()
    x = np.concatenate([arrays["x_train"], arrays["x_test"]]).reshape(-1, 28 * 28)
    y = np.concatenate([arrays["y_train"], arrays["y_test"]])
    classes = tuple(str(digit) for digit in range(10))
    train = np.arange(len(y)) < len(arrays["y_train"])
    return Dataset("mnist", x, y, classes, (28, 28), train)


def _phoneme() -> Dataset:
    arrays = _from_folder("phoneme", ("x", "y", "classes", "speaker"))
    if arrays is None:
        raise DataError(
            f"'phoneme' may not be redistributed and is not downloaded; put phoneme.npz (arrays x, "
            f"y, classes, speaker) into a folder and name that folder in {FOLDER}."
        )
    train = np.array([speaker.startswith("train") for speaker in arrays["speaker"]])
    classes = tuple(str(c) for c in arrays["classes"])
    return Dataset("phoneme", arrays["x"], arrays["y"], classes, None, train)


def _from_folder(name: str, wanted: tuple[str, ...]) -> dict[str, np.ndarray] | None:
    """The arrays of NAME.npz in the user's data folder; None if there is no such file."""
    folder = os.environ.get(FOLDER)
    path = Path(folder or "") / f"{name}.npz"
    if not folder or not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in wanted}
    except Exception as error:
        raise DataError(
            f"{path} (found through {FOLDER}) is not a readable npz file with the arrays "
            f"{', '.join(wanted)}: {_first_line(error)}"
        ) from error


def _download_mnist() -> dict[str, np.ndarray]:
    """The four archives from a public mirror, checked, and kept in the user's cache."""
    import pooch

    cache = pooch.os_cache("hindgrad") / "mnist"
    try:
        paths = {
            key: pooch.retrieve(
                MNIST_MIRROR + file, known_hash=f"sha256:{checksum}", fname=file, path=cache
            )
            for key, (file, checksum) in MNIST_FILES.items()
        }
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise DataError(
            f"'mnist' could not be downloaded ({_first_line(error)}); put mnist.npz (arrays "
            f"{', '.join(MNIST_FILES)}) into a folder and name that folder in {FOLDER}."
        ) from error
    return {key: read_idx(path) for key, path in paths.items()}


def read_idx(path: str | Path) -> np.ndarray:
    """Reads a gzipped IDX file of bytes."""
    with gzip.open(path) as file:
        content = file.read()
    if content[:3] != b"\x00\x00\x08":
        raise DataError(f"{path} is not an IDX file of unsigned bytes.")
    rank = content[3]
    shape = tuple(np.frombuffer(content, ">u4", rank, offset=4).tolist())
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _first_line(error: BaseException) -> str:
    """What an error says, in at most one short line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:120]


_LOADERS: dict[str, Callable[[], Dataset]] = {
    "digits": _digits,
    "mnist": _mnist,
    "phoneme": _phoneme,
}
NAMES = tuple(_LOADERS)
"""The names that `load` knows."""

"""Data sets by name: one that is installed with scikit-learn, and public ones fetched once."""

import gzip
import os
import tarfile
import urllib.error
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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

CIFAR10_ARCHIVE = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_CHECKSUM = "md5:c32a1d4ab5d03f1284b67883e8d87530"
CIFAR10_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


class DataError(Exception):
    """The data cannot be used; the message is one line that says why and what to do."""

    def __init__(self, message: str):
        super().__init__(one_line(message))


def one_line(message: str) -> str:
    """The same in one line: the names of columns and files may have line breaks."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)


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
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What else is known of each row, by name, such as who spoke or drew it."""


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


def _cifar10() -> Dataset:
    arrays = _from_folder("cifar10", CIFAR10_ARRAYS) or _download_cifar10()
    x = np.concatenate([arrays["x_train"], arrays["x_test"]]).reshape(-1, 32 * 32 * 3)
    y = np.concatenate([arrays["y_train"], arrays["y_test"]])
    train = np.arange(len(y)) < len(arrays["y_train"])
    return Dataset("cifar10", x, y, CIFAR10_CLASSES, (32, 32, 3), train)


def _omniglot() -> Dataset:
    wanted = ("x28", "char_id", "alphabet", "alphabet_names", "drawer", "is_evaluation")
    arrays = _from_folder("omniglot", (*wanted, "character"))
    if arrays is None:
        raise DataError(
            "'omniglot' is not downloaded, as no archive of it has a published checksum; put "
            f"omniglot.npz (arrays {', '.join(wanted)}, character) into a folder and name that "
            f"folder in {FOLDER}."
        )
    alphabet = arrays["alphabet_names"][arrays["alphabet"]]
    _, first, y = np.unique(arrays["char_id"], return_index=True, return_inverse=True)
    classes = tuple(f"{alphabet[i]} {arrays['character'][i]:02}" for i in first)
    groups = {"alphabet": alphabet, "drawer": arrays["drawer"]}
    x = arrays["x28"].reshape(-1, 28 * 28)
    return Dataset("omniglot", x, y, classes, (28, 28), ~arrays["is_evaluation"], groups)


def _phoneme() -> Dataset:
    arrays = _from_folder("phoneme", ("x", "y", "classes", "speaker"))
    if arrays is None:
        raise DataError(
            f"'phoneme' may not be redistributed and is not downloaded; put phoneme.npz (arrays x, "
            f"y, classes, speaker) into a folder and name that folder in {FOLDER}."
        )
    train = np.array([speaker.startswith("train") for speaker in arrays["speaker"]])
    classes = tuple(str(c) for c in arrays["classes"])
    groups = {"speaker": arrays["speaker"]}
    return Dataset("phoneme", arrays["x"], arrays["y"], classes, None, train, groups)


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
    """The four archives from a public mirror."""
    return {
        key: read_idx(
            _fetch("mnist", MNIST_MIRROR + file, f"sha256:{checksum}", tuple(MNIST_FILES))
        )
        for key, (file, checksum) in MNIST_FILES.items()
    }


def _download_cifar10() -> dict[str, np.ndarray]:
    """The authors' binary archive: rows of a label and the red, green and blue pixels."""
    path = _fetch("cifar10", CIFAR10_ARCHIVE, CIFAR10_CHECKSUM, CIFAR10_ARRAYS)
    files = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
    arrays = {}
    with tarfile.open(path) as archive:
        for part, names in files.items():
            members = (archive.extractfile(f"cifar-10-batches-bin/{name}") for name in names)
            content = b"".join(member.read() for member in members if member is not None)
            rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
            arrays[f"x_{part}"] = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            arrays[f"y_{part}"] = rows[:, 0]
    return arrays


def _fetch(name: str, url: str, checksum: str, arrays: tuple[str, ...]) -> str:
    """The path of a file that is downloaded once, checked, and kept in the user's cache."""
    import pooch

    cache = pooch.os_cache("hindgrad") / name
    try:
        file = url.rsplit("/", 1)[-1]
        return pooch.retrieve(url, known_hash=checksum, fname=file, path=cache)
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise DataError(
            f"'{name}' could not be downloaded ({_first_line(error)}); put {name}.npz (arrays "
            f"{', '.join(arrays)}) into a folder and name that folder in {FOLDER}."
        ) from error


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
    "cifar10": _cifar10,
    "omniglot": _omniglot,
    "phoneme": _phoneme,
}
NAMES = tuple(_LOADERS)
"""The names that `load` knows."""

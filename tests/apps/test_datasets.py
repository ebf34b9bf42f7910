"""Data sets by name."""

import gzip
import io
import struct
import tarfile

import numpy as np
import pytest

from hindgrad.apps import datasets
from hindgrad.apps.datasets import DataError, load


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(datasets.FOLDER, str(tmp_path))
    return tmp_path


def fake_mnist(train=6, test=4):
    draw = np.random.default_rng(0).integers
    return {
        "x_train": draw(0, 256, (train, 28, 28), dtype=np.uint8),
        "y_train": draw(0, 10, train, dtype=np.uint8),
        "x_test": draw(0, 256, (test, 28, 28), dtype=np.uint8),
        "y_test": draw(0, 10, test, dtype=np.uint8),
    }


def as_idx(array):
    header = b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.tobytes())


def test_digits_need_no_folder(monkeypatch):
    monkeypatch.delenv(datasets.FOLDER, raising=False)
    data = load("digits")
    assert data.x.shape == (1797, 64)
    assert data.image == (8, 8)
    assert np.bincount(data.y).min() > 170


def test_mnist_comes_in_official_order_from_the_folder(folder):
    arrays = fake_mnist()
    np.savez(folder / "mnist.npz", **arrays)
    data = load("mnist")
    assert data.x.shape == (10, 784)
    assert data.train.tolist() == [True] * 6 + [False] * 4
    np.testing.assert_array_equal(data.x[6:], arrays["x_test"].reshape(4, 784))
    np.testing.assert_array_equal(data.y[:6], arrays["y_train"])


def test_phoneme_knows_its_split_by_speaker(folder):
    np.savez(
        folder / "phoneme.npz",
        x=np.zeros((3, 256), np.float32),
        y=np.array([0, 1, 0], np.uint8),
        classes=np.array(["aa", "ao"]),
        speaker=np.array(["train.dr1.a", "test.dr1.b", "train.dr2.c"]),
    )
    data = load("phoneme")
    assert data.classes == ("aa", "ao")
    assert data.train.tolist() == [True, False, True]


def fake_omniglot():
    """Three characters of two alphabets, drawn by two people each."""
    return {
        "x28": np.arange(6 * 28 * 28, dtype=np.uint32).reshape(6, 28, 28).astype(np.uint8),
        "char_id": np.array([7, 7, 8, 8, 9, 9], np.uint16),
        "alphabet": np.array([1, 1, 1, 1, 0, 0], np.uint8),
        "alphabet_names": np.array(["Latin", "Greek"]),
        "character": np.array([0, 0, 1, 1, 0, 0], np.uint8),
        "drawer": np.array([0, 1, 0, 1, 0, 1], np.uint8),
        "is_evaluation": np.array([False] * 4 + [True] * 2),
    }


def test_omniglot_names_its_characters_by_alphabet(folder):
    np.savez(folder / "omniglot.npz", **fake_omniglot())
    data = load("omniglot")
    assert data.classes == ("Greek 00", "Greek 01", "Latin 00")
    assert data.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.groups["alphabet"].tolist() == ["Greek"] * 4 + ["Latin"] * 2
    assert data.groups["drawer"].tolist() == [0, 1] * 3
    assert data.train.tolist() == [True] * 4 + [False] * 2
    assert data.x.shape == (6, 784)


def test_omniglot_is_not_downloaded(folder):
    with pytest.raises(DataError, match=r"omniglot.npz .* name that folder in HINDGRAD_DATA"):
        load("omniglot")


def fake_cifar10():
    draw = np.random.default_rng(0).integers
    return {
        "x_train": draw(0, 256, (10, 32, 32, 3), dtype=np.uint8),
        "y_train": draw(0, 10, 10, dtype=np.uint8),
        "x_test": draw(0, 256, (3, 32, 32, 3), dtype=np.uint8),
        "y_test": draw(0, 10, 3, dtype=np.uint8),
    }


def test_cifar10_comes_in_official_order_from_the_folder(folder):
    arrays = fake_cifar10()
    np.savez(folder / "cifar10.npz", **arrays)
    data = load("cifar10")
    assert data.image == (32, 32, 3)
    assert data.train.tolist() == [True] * 10 + [False] * 3
    np.testing.assert_array_equal(data.x[10:], arrays["x_test"].reshape(3, -1))
    assert len(data.classes) == 10


def test_cifar10_is_downloaded_with_a_checksum(folder, monkeypatch):
    """The archive has a byte for the label, and then all red, all green and all blue pixels."""
    import pooch

    arrays, asked = fake_cifar10(), []

    def retrieve(url, known_hash, fname, path):
        asked.append((url, known_hash))
        with tarfile.open(folder / fname, "w:gz") as archive:
            for i in range(6):
                part, rows = ("train", slice(2 * i, 2 * i + 2)) if i < 5 else ("test", slice(None))
                x = arrays[f"x_{part}"][rows].transpose(0, 3, 1, 2).reshape(-1, 3072)
                content = np.concatenate([arrays[f"y_{part}"][rows][:, None], x], axis=1).tobytes()
                name = f"data_batch_{i + 1}.bin" if i < 5 else "test_batch.bin"
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return str(folder / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    data = load("cifar10")
    np.testing.assert_array_equal(data.x[:10], arrays["x_train"].reshape(10, -1))
    np.testing.assert_array_equal(data.y[10:], arrays["y_test"])
    [(url, known)] = asked
    assert url.startswith("https://")
    assert known.startswith("md5:")
    assert len(known) == 4 + 32


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(DataError, match="no built-in data set 'mnits'; there are digits, mnist"):
        load("mnits")


def test_a_data_set_that_cannot_be_fetched_names_the_folder_variable(folder):
    with pytest.raises(DataError, match=r"phoneme.npz .* name that folder in HINDGRAD_DATA"):
        load("phoneme")


def test_a_failed_download_names_the_folder_variable(folder, monkeypatch):
    import pooch

    def fail(*arguments, **options):
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(pooch, "retrieve", fail)
    with pytest.raises(DataError, match=r"\(no route to host\); .* HINDGRAD_DATA") as caught:
        load("mnist")
    assert "\n" not in str(caught.value)


def test_mnist_is_downloaded_with_checksums(folder, monkeypatch):
    import pooch

    arrays, asked = fake_mnist(), []

    def retrieve(url, known_hash, fname, path):
        asked.append((url, known_hash))
        name = next(key for key, (file, _) in datasets.MNIST_FILES.items() if file == fname)
        target = folder / fname
        target.write_bytes(as_idx(arrays[name]))
        return str(target)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    data = load("mnist")
    np.testing.assert_array_equal(data.x[:6], arrays["x_train"].reshape(6, 784))
    assert all(len(known) == len("sha256:") + 64 for _, known in asked)
    assert len({url for url, _ in asked}) == 4


@pytest.mark.parametrize("content", [b"", b"not an archive"])
def test_a_damaged_file_is_named(folder, content):
    (folder / "mnist.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"mnist.npz .* not a readable npz file") as caught:
        load("mnist")
    assert "\n" not in str(caught.value)


def test_a_file_without_the_arrays_is_named(folder):
    np.savez(folder / "mnist.npz", x=np.zeros(3))
    with pytest.raises(DataError, match="x_train, y_train, x_test, y_test"):
        load("mnist")


def test_idx_of_another_type_is_refused(tmp_path):
    path = tmp_path / "floats.gz"
    path.write_bytes(gzip.compress(b"\x00\x00\x0d\x01" + struct.pack(">I", 1) + b"\x00" * 4))
    with pytest.raises(DataError, match="not an IDX file of unsigned bytes"):
        datasets.read_idx(path)

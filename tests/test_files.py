"""Files: whole or not at all, right whatever the layout in memory, equal for equal content."""

import json
import os
import subprocess
import sys
from collections import namedtuple

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from hindgrad.files import as_json, read_arrays, read_json, write_arrays, write_json, write_whole

GRID = np.arange(6.0).reshape(2, 3)

LAYOUTS = {
    "transposed": GRID.T,
    "sliced": GRID[:, ::2],
    "backwards": GRID[::-1],
    "Fortran": np.asfortranarray(GRID),
    "broadcast": np.broadcast_to(GRID[0], (2, 3)),
    "big-endian": GRID.astype(">f4"),
    "little-endian": GRID.T.astype("<i2"),
    "field": np.array([(1, 2.0), (3, 4.0)], [("a", "i4"), ("b", "f8")])["b"],
    "number": np.array(3.5),
    "empty": np.zeros((0, 2)),
    "bool": (GRID > 2).T,
    "half": GRID.T.astype(np.float16),
    "jax": jnp.asarray(GRID.T, jnp.float32),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_arrays_of_any_layout_are_saved_with_their_values(tmp_path, name):
    write_arrays(tmp_path / "file", {name: LAYOUTS[name]})
    found = read_arrays(tmp_path / "file")[0][name]
    assert found.dtype == np.asarray(LAYOUTS[name]).dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, LAYOUTS[name], strict=False)
    assert found.shape == LAYOUTS[name].shape


@pytest.mark.parametrize(
    "array",
    [
        np.array(["text"]),
        GRID.astype(complex),
        GRID.astype(np.longdouble),
        GRID.astype(ml_dtypes.bfloat16),
        np.array([None]),
        np.array([1], "M8[s]"),
    ],
    ids=lambda array: array.dtype.name,
)
def test_arrays_that_the_format_does_not_have_are_refused(tmp_path, array):
    with pytest.raises(ValueError, match=r"'mine' is .* cannot hold; convert it to float32") as e:
        write_arrays(tmp_path / "file", {"mine": array})
    assert "\n" not in str(e.value)
    assert not list(tmp_path.iterdir())


NOTES = {"b": "2", "a": "1 ±", "c": '"\n'}

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from hindgrad.files import write_arrays
x = np.arange(6.0).reshape(2, 3).T
write_arrays(Path(sys.argv[1]), {"x": x}, {"c": "3", "a": "1", "b": "2"})
"""


def test_equal_content_gives_equal_bytes(tmp_path):
    """In another process too, whose hashes are seeded otherwise."""
    notes = {"a": "1", "b": "2", "c": "3"}
    write_arrays(tmp_path / "file", {"x": np.array(GRID.T, order="C")}, notes)
    call = [sys.executable, "-c", PROGRAM, str(tmp_path / "other")]
    subprocess.run(call, check=True, env={**os.environ, "PYTHONHASHSEED": "1"})
    assert (tmp_path / "other").read_bytes() == (tmp_path / "file").read_bytes()


def test_notes_are_read_by_the_library_itself(tmp_path):
    write_arrays(tmp_path / "file", {"y": GRID, "x": GRID.T}, NOTES)
    with safe_open(tmp_path / "file", "numpy") as file:
        assert file.metadata() == NOTES
        np.testing.assert_array_equal(file.get_tensor("x"), GRID.T)
    assert read_arrays(tmp_path / "file")[1] == NOTES


def test_a_damaged_file_of_arrays_is_one_clear_error(tmp_path):
    write_arrays(tmp_path / "file", {"x": GRID}, NOTES)
    content = (tmp_path / "file").read_bytes()
    for damaged in (b"", b"no", content[:40], content[:-1], content + b"1"):
        (tmp_path / "file").write_bytes(damaged)
        with pytest.raises(ValueError, match="not readable as safetensors, perhaps damaged"):
            read_arrays(tmp_path / "file")


Pair = namedtuple("Pair", "a b")


def test_what_json_does_not_have_survives(tmp_path):
    inf = float("inf")
    value = {
        "numbers": [0.1, 1e-45, 3.4e38, inf, -inf],
        "nested": ((1, 2), Pair((3,), [4.0])),
        "arrays": [np.float32(0.1), np.arange(3), jnp.ones(2), np.bool_(True), np.array(-inf)],
        "lie": {"float": "text"},
        5: None,
    }
    write_json(tmp_path / "file", value)
    found = read_json(tmp_path / "file")
    assert found == as_json(value)
    assert found == {
        "numbers": value["numbers"],
        "nested": [[1, 2], [[3], [4.0]]],
        "arrays": [float(np.float32(0.1)), [0, 1, 2], [1.0, 1.0], True, -inf],
        "lie": {"float": "text"},
        "5": None,
    }
    write_json(tmp_path / "file", [float("nan"), np.float32("nan")])
    assert all(np.isnan(read_json(tmp_path / "file")))
    strict = json.loads((tmp_path / "file").read_text(), parse_constant=pytest.fail)
    assert strict == [{"float": "nan"}] * 2


def test_a_file_is_whole_or_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole(path, b"before")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_bytes() == b"before"

"""Tables from files, and every way in which a file can be unusable."""

import zipfile

import numpy as np
import pandas as pd
import pytest

from hindgrad.apps.model import Network, draw_problem
from hindgrad.apps.table import DataError, read, strata


def flowers(rows=60, seed=0):
    """Three kinds told apart by two lengths."""
    rng = np.random.default_rng(seed)
    kind = np.arange(rows) % 3
    frame = pd.DataFrame(rng.normal(size=(rows, 2)) + kind[:, None], columns=["long", "wide"])
    frame["label"] = np.array(["iris", "rose", "tulip"])[kind]
    return frame


@pytest.fixture
def csv(tmp_path):
    def write(frame):
        path = tmp_path / "flowers.csv"
        frame.to_csv(path, index=False)
        return str(path)

    return write


def test_csv_and_parquet_and_npz_give_the_same_table(csv, tmp_path):
    frame = flowers()
    frame.to_parquet(tmp_path / "flowers.parquet")
    np.savez(tmp_path / "flowers.npz", x=frame[["long", "wide"]], y=frame["label"].to_numpy(str))
    tables = [read(csv(frame))]
    tables += [read(str(tmp_path / f"flowers.{kind}")) for kind in ("parquet", "npz")]
    for table in tables:
        assert table.kind == "classification"
        assert table.classes == ("iris", "rose", "tulip")
        np.testing.assert_array_equal(table.x, frame[["long", "wide"]])
        np.testing.assert_array_equal(table.y, np.arange(60) % 3)
    assert tables[0].features == ("long", "wide")
    assert tables[0].fingerprint() == read(csv(frame)).fingerprint()
    assert tables[0].fingerprint() != read(csv(flowers(seed=1))).fingerprint()


@pytest.mark.parametrize(
    ("label", "kind", "classes"),
    [
        (np.arange(60) % 4, "classification", ("0", "1", "2", "3")),
        (np.arange(60) % 2 == 0, "classification", ("False", "True")),
        (np.arange(60) % 2 + 0.0, "classification", ("0", "1")),
        (np.arange(60), "regression", ()),
        (np.linspace(0, 1, 60), "regression", ()),
        (np.arange(60) % 2 + 0.5, "regression", ()),
    ],
)
def test_the_task_follows_from_the_label(csv, label, kind, classes):
    table = read(csv(flowers().assign(label=label)))
    assert (table.kind, table.classes) == (kind, classes)


def test_the_task_can_be_named(csv):
    path = csv(flowers().assign(label=np.arange(60) % 4))
    np.testing.assert_array_equal(read(path, task="regression").y, np.arange(60) % 4)
    path = csv(flowers().assign(label=(np.arange(60) % 2) + 0.5))
    assert read(path, task="classification").classes == ("0.5", "1.5")


def test_the_label_is_found_by_name_or_named(csv):
    frame = flowers().rename(columns={"label": "Species"})
    assert read(csv(frame.rename(columns={"Species": "Target"}))).label == "Target"
    assert read(csv(frame), label="Species").features == ("long", "wide")


def test_columns_can_be_dropped(csv):
    frame = flowers().assign(name="text")
    assert read(csv(frame), drop=["name", "wide"]).features == ("long",)


def test_images_in_an_npz_keep_their_shape(tmp_path):
    path = tmp_path / "images.npz"
    np.savez(path, x=np.random.default_rng(0).integers(0, 9, (40, 3, 5)), kind=np.arange(40) % 2)
    table = read(str(path), label="kind")
    assert table.image == (3, 5)
    assert table.x.shape == (40, 15)


def test_rows_are_drawn_by_the_seed():
    first, second = read("digits", rows=500, seed=1), read("digits", rows=500, seed=1)
    assert len(first.y) == 500
    assert first.fingerprint() == second.fingerprint()
    assert first.fingerprint() != read("digits", rows=500, seed=2).fingerprint()


def test_strata_of_a_regression_are_quantiles(csv):
    table = read(csv(flowers(200).assign(label=np.random.default_rng(0).exponential(size=200))))
    assert np.bincount(strata(table)).tolist() == [20] * 10


UNUSABLE = [
    (flowers().assign(target=1), {}, "more than one label column, 'label', 'target'"),
    (
        flowers()[["label"]].assign(year=range(60)),
        {"label": "year", "drop": ["label"]},
        "no column",
    ),
    (flowers(), {"label": "kind"}, r"no column 'kind' \(--label\); found 'long', 'wide', 'label'"),
    (flowers(), {"drop": ["long"], "keep": ["long"]}, "--keep and --drop both name 'long'"),
    (flowers(), {"drop": ["colour"]}, "--drop names 'colour', which the data does not have"),
    (flowers(), {"drop": ["label"], "label": "label"}, "--drop names the label 'label'"),
    (flowers(), {"drop": ["label", "long", "wide"]}, "every column is dropped"),
    (flowers(), {"drop": ["long", "wide"]}, "no column but the label 'label'"),
    (flowers(), {"task": "regression"}, "--task regression, but the label 'label' is no number"),
    (flowers(), {"rows": 100}, "--rows 100 is more than the 60 rows"),
    (flowers().assign(label="rose"), {}, "one class only, 'rose'"),
    (flowers().assign(label=2.5), {}, "the same value, 2.5, in every row"),
    (flowers().iloc[:-19], {"rows": 19}, "19 rows are too few"),
    (flowers().iloc[:0], {}, "columns, but no rows"),
    (flowers().assign(label=[f"r{i // 2}" for i in range(60)]), {}, "has 30 classes in 60 rows"),
    (flowers().assign(wide=np.inf), {}, r"infinite or too large values in wide \(60\)"),
    (flowers().assign(long=1e39), {}, r"infinite or too large values in long \(60\)"),
    (flowers().assign(label=[np.inf] + [0.5] * 59), {}, "infinite .* in the label 'label'"),
]


@pytest.mark.parametrize(("frame", "options", "message"), UNUSABLE)
def test_unusable_tables_are_refused_in_one_line(csv, frame, options, message):
    with pytest.raises(DataError, match=message) as caught:
        read(csv(frame), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "npz"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "the file is empty"), (b"\x80\x81\xff\x00 nonsense\x00,\n", "not readable as")],
)
def test_unreadable_files_are_refused_in_one_line(tmp_path, suffix, content, message):
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(str(path))
    assert "\n" not in str(caught.value)


def test_rows_longer_than_the_header_are_refused(tmp_path):
    path = tmp_path / "ragged.csv"
    path.write_text("a,label\n" + "1,2,0\n" * 30)
    with pytest.raises(DataError, match="not readable as CSV"):
        read(str(path))
    path.write_text("# note\na,label\n" + "1,2\n" * 9 + "# more\n" + "1,2,3\n" + "1,2\n" * 9)
    with pytest.raises(DataError, match="line 13 has 3 fields, and there are 2 columns"):
        read(str(path))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.zeros(30)}, "must be an array named x; found 'y'"),
        ({"x": np.zeros((30, 2))}, "no label column"),
        ({"x": np.zeros((30, 2)), "y": np.zeros(20)}, r"x has shape \(30, 2\) and y \(20,\)"),
        ({"x": np.zeros(30), "y": np.zeros(30)}, r"x has shape \(30,\)"),
        ({"x": np.zeros((30, 2)), "y": np.array([{}] * 30)}, "not readable as NPZ"),
        (
            {"x": np.zeros((30, 2)), "y": np.zeros(30, "M8[s]")},
            r"y is datetime64\[s\]; give an array",
        ),
        ({"x": np.zeros((30, 2), complex), "y": np.zeros(30)}, "x is complex128; give an array"),
        ({"x": np.full((30, 2), "a"), "y": np.zeros(30)}, "x is <U1; give an array of numbers"),
        (
            {"x": np.zeros((30, 2)), "y": np.array([b"\xff"] * 30)},
            "y holds bytes that are no UTF-8",
        ),
    ],
)
def test_unusable_arrays_are_refused_in_one_line(tmp_path, arrays, message):
    path = tmp_path / "arrays.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=message) as caught:
        read(str(path))
    assert "\n" not in str(caught.value)


def test_values_that_float32_would_merge_stay_apart(csv):
    """Times in milliseconds; as features and as targets."""
    times = 1600000000000 + np.random.default_rng(0).permutation(60) * 37
    table = read(csv(flowers().assign(time=times)))
    np.testing.assert_array_equal(table.x[:, 2], times)
    network = Network((3, 2), "classification", 10, 1)
    problem, _ = draw_problem(table, network, test=0.2, valid=0.2, seed=0)
    shown = np.concatenate([problem.pool.x, problem.test.x])[:, 2]
    assert len(set(shown)) == 60
    assert 0.8 < shown.std() < 1.2
    table = read(csv(flowers().drop(columns="label").assign(target=times)))
    problem, _ = draw_problem(table, network, test=0.2, valid=0.2, seed=0)
    assert len(set(np.concatenate([problem.pool.y, problem.test.y]).tolist())) == 60


@pytest.mark.parametrize(("x", "y"), [(">f8", ">i4"), (">i2", ">U5"), (">f4", "S5"), ("f2", "?")])
def test_arrays_of_any_byte_order_have_their_values(tmp_path, x, y):
    rng = np.random.default_rng(0)
    features, labels = rng.integers(0, 9, (30, 2)), np.arange(30) % 2
    np.savez(tmp_path / "file.npz", x=np.asfortranarray(features.astype(x)), y=labels.astype(y))
    table = read(str(tmp_path / "file.npz"))
    np.testing.assert_array_equal(table.x, features)
    np.testing.assert_array_equal(table.y, labels)
    assert table.classes == (("False", "True") if y == "?" else ("0", "1"))


def test_a_label_does_not_replace_a_feature(tmp_path):
    np.savez(tmp_path / "file.npz", x=np.ones((30, 2)), x0=np.arange(30) % 2)
    with pytest.raises(DataError, match="the label is named 'x0', as one of the features"):
        read(str(tmp_path / "file.npz"), label="x0")


def test_what_is_no_array_in_an_npz_is_no_label(tmp_path):
    np.savez(tmp_path / "file.npz", x=np.ones((30, 2)))
    with zipfile.ZipFile(tmp_path / "file.npz", "a") as file:
        file.writestr("y", "text")
    with pytest.raises(DataError, match="y is no array; give an array"):
        read(str(tmp_path / "file.npz"))


@pytest.mark.parametrize(
    ("label", "what"),
    [([[1, 2]] * 30, "ndarrays"), ([{"a": 1}] * 30, "dicts")],
)
def test_labels_that_are_no_values_are_refused(tmp_path, label, what):
    path = tmp_path / "file.parquet"
    pd.DataFrame({"a": np.arange(30.0), "label": label}).to_parquet(path)
    with pytest.raises(DataError, match=f"the label 'label' holds {what}; give it as"):
        read(str(path))


def test_names_with_line_breaks_are_told_in_one_line(csv, tmp_path):
    path = tmp_path / "file.csv"
    path.write_text('"a\nb","c\rd","\x1b"\n' + "1,2,3\n" * 30)
    with pytest.raises(DataError, match=r"no column looks .* one of 'a\\nb', 'c\\rd', '\\x1b'"):
        read(str(path))
    frame = flowers().rename(columns={"long": "a\nb"})
    assert read(csv(frame)).features == ("a\nb", "wide")


def test_of_two_columns_of_a_name_none_is_the_label(tmp_path):
    path = tmp_path / "file.csv"
    path.write_text("a,a,label,label\n" + "1,2,3,4\n" * 30)
    with pytest.raises(DataError, match="2 columns are named 'label'; rename them"):
        read(str(path))
    path.write_text("a,a,label\n" + "1,2,3\n" * 30)
    with pytest.raises(DataError, match="2 columns are named 'a'; rename them"):
        read(str(path), drop=["a"])


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file, and no built-in data set of that name"):
        read("flowrs.csv")
    (tmp_path / "table.xlsx").write_text("x")
    with pytest.raises(DataError, match="not readable as Excel"):
        read(str(tmp_path / "table.xlsx"))
    (tmp_path / "table.doc").write_text("x")
    with pytest.raises(DataError, match=r"not a file whose name ends with one of \.csv, \.tsv"):
        read(str(tmp_path / "table.doc"))


@pytest.mark.parametrize("option", [{"label": "x1"}, {"drop": ["x1"]}, {"task": "regression"}])
def test_options_for_files_do_not_fit_a_builtin(option):
    with pytest.raises(DataError, match="the built-in 'digits'"):
        read("digits", **option)

"""Columns as numbers, fitted on some rows."""

import json

import numpy as np
import pandas as pd
import pytest

from hindgrad.apps.tables.columns import Coded, code, code_like
from hindgrad.apps.tables.encoder import Encoder, Fitted

ROWS = 200
POOL = np.arange(150)


def frame(seed=0):
    rng = np.random.default_rng(seed)
    words = np.array(["sun", "rain", "wind", "snow", "storm"])
    return pd.DataFrame(
        {
            "size": np.where(rng.random(ROWS) < 0.1, np.nan, rng.normal(size=ROWS)),
            "color": rng.choice(["red", "blue", None], size=ROWS),
            "town": [f"t{i}" for i in rng.integers(0, 45, ROWS)],
            "day": pd.date_range("2020-01-01", periods=ROWS, freq="D").strftime("%d.%m.%Y"),
            "said": [f"it was {' '.join(rng.choice(words, 3))} {i}" for i in range(ROWS)],
        }
    )


@pytest.fixture
def table():
    return code(frame())


def fitted(table, y, classes=2):
    encoder = Encoder.of(table.columns, table.x, classes)
    return encoder.fit(table.x[POOL], y[POOL])


LABELS = (np.arange(ROWS) * 7 % 3 == 0).astype(np.int32)


def test_the_numbers_are_finite_and_named(table):
    found, own = fitted(table, LABELS)
    numbers = found.transform(table)
    assert numbers.shape == (ROWS, found.encoder.width) == (ROWS, len(found.encoder.names))
    assert own.shape == (len(POOL), found.encoder.width)
    assert np.isfinite(numbers).all()
    assert [column.kind for column in table.columns] == [
        "number",
        "category",
        "category",
        "date",
        "text",
    ]


def test_missing_values_have_the_median_and_say_so(table):
    found, _ = fitted(table, LABELS)
    numbers = found.transform(table)
    missing = np.isnan(table.x[:, 0])
    np.testing.assert_array_equal(numbers[:, 1], missing)
    np.testing.assert_array_equal(numbers[missing, 0], np.nanmedian(table.x[POOL, 0]))
    names = found.encoder.names
    red, blue, none = (names.index(f"color{n}") for n in ("=red", "=blue", " missing"))
    np.testing.assert_array_equal(numbers[:, [red, blue, none]].sum(axis=1), 1)


def test_nothing_comes_from_other_rows_than_the_pool(table):
    found, own = fitted(table, LABELS)
    other = frame()
    other.loc[150:, ["size", "said"]] = other.loc[:49, ["size", "said"]].to_numpy()
    other.loc[150:, ["color", "town"]] = ["blue", "t1"]
    again, same = Encoder.of(table.columns, table.x, 2).fit(
        recoded(other, table)[POOL], np.where(np.arange(ROWS) < 150, LABELS, 1)[POOL]
    )
    np.testing.assert_array_equal(own, same)
    np.testing.assert_array_equal(found.transform(table), again.transform(table))


def recoded(other, table):
    """Its values with the levels of the table."""
    found = code_like(other, table.columns)
    x = found.x.copy()
    for i, (now, then) in enumerate(zip(found.columns, table.columns, strict=True)):
        if now.levels:
            places = np.array([then.levels.index(level) for level in now.levels], float)
            known = ~np.isnan(x[:, i])
            x[known, i] = places[x[known, i].astype(int)]
    return x


def test_values_that_are_not_known_have_the_mean_of_all(table):
    found, _ = fitted(table, LABELS)
    row = frame().iloc[:1].assign(town="elsewhere", color="green")
    numbers = found.transform(code_like(row, table.columns))[0]
    names = found.encoder.names
    assert numbers[[names.index("color=red"), names.index("color=blue")]].tolist() == [0, 0]
    assert numbers[names.index("town mean 1")] == pytest.approx(LABELS[POOL].mean())
    assert numbers[[names.index(f"town frequent {i + 1}") for i in range(30)]].sum() == 0


def test_a_row_is_not_told_its_own_label():
    """Towns of one row each: the means of other rows say nothing of it."""
    town = code(pd.DataFrame({"town": [f"t{i}" for i in range(ROWS)]}))
    encoder = Encoder.of(town.columns, town.x, 2)
    found, own = encoder.fit(town.x, LABELS)
    told = own[:, encoder.names.index("town mean 1")]
    assert abs(np.corrcoef(told, LABELS)[0, 1]) < 0.5
    assert np.corrcoef(found.transform(town)[:, -1], LABELS)[0, 1] > 0.9


@pytest.mark.parametrize("classes", [0, 2, 3, 25])
def test_means_for_quantities_and_classes(table, classes):
    y = np.arange(ROWS) % classes if classes else np.linspace(0, 1, ROWS)
    found, own = fitted(table, y.astype(np.int32) if classes else y, classes)
    means = [name for name in found.encoder.names if name.startswith("town mean")]
    assert len(means) == {0: 1, 2: 1, 3: 3, 25: 0}[classes]
    assert np.isfinite(own).all()


def test_order_of_columns_and_levels_of_other_files_do_not_matter(table):
    found, _ = fitted(table, LABELS)
    shuffled = frame().iloc[::-1, ::-1].iloc[:50].reset_index(drop=True)
    numbers = found.transform(code_like(shuffled, table.columns))
    np.testing.assert_allclose(numbers, found.transform(table)[::-1][:50])


def test_saved_and_loaded_it_is_the_same(table):
    found, _ = fitted(table, LABELS)
    about, arrays = found.dump()
    again = Fitted.load(json.loads(json.dumps(about)), arrays)
    np.testing.assert_array_equal(again.transform(table), found.transform(table))
    assert again.encoder.names == found.encoder.names


def test_plain_numbers_are_passed_on_as_they_are():
    x = np.random.default_rng(0).normal(size=(ROWS, 3))
    table = code(pd.DataFrame(x, columns=["a", "b", "c"]))
    found, _ = fitted(table, LABELS)
    assert found.encoder.plain
    assert found.transform(table) is table.x
    holes = Coded(table.columns, np.where(x > 2, np.nan, x))
    assert np.isfinite(found.transform(holes)).all()

"""Choosing rows: which are kept, and what is judged."""

import numpy as np
import pytest

from experiments.attribution import attribution_choose as experiment
from experiments.attribution import attribution_choose_report as report
from experiments.attribution import rows as parts

SMALL = experiment.SMALL


def test_everything_is_written_and_nothing_else(written):
    assert written == {"attribution-choose.png", "table.csv"}


def test_every_way_is_judged(results):
    assert [one["way"] for one in results["found"]] == list(report.WAYS)
    for one in results["found"]:
        assert np.isfinite(one["loss"])
        assert 0 <= one["error"] <= 1
        assert one["flipped"] <= 12
    assert results["found"][0]["flipped"] == 12  # all rows


def test_rows_that_are_worth_most():
    worth, y = np.array([5.0, 4, 3, 2, 1, 0]), np.array([0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(experiment.largest(worth, 3), [0, 1, 2])
    np.testing.assert_array_equal(experiment.by_class(worth, y, 3), [0, 1, 4])


def test_no_other_row_is_read():
    """Networks trained on the chosen rows do not change with the labels of the others."""
    rows, kept = parts.draw(SMALL, 0.0, 0), np.arange(30)
    found = experiment.trained_on(SMALL, rows, kept, 0)
    turned = parts.draw(SMALL, 0.5, 0)
    y = np.where(np.arange(60) < 30, rows.train.y, turned.train.y)
    assert np.any(y != rows.train.y)
    other = parts.Draw(
        parts.Examples(rows.train.x, y), rows.valid, rows.test, rows.wrong, rows.pixels, 10
    )
    assert experiment.trained_on(SMALL, other, kept, 0) == pytest.approx(found, rel=1e-5)


def test_rounds_keep_as_many():
    rows = parts.draw(SMALL, 0.0, 0)
    kept = experiment.in_rounds(SMALL, rows, [parts.jax.random.key(0)])
    assert len(set(kept.tolist())) == len(kept) == SMALL.count

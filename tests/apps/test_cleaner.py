"""Training sets without the rows whose labels look wrong."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.utils.estimator_checks import check_estimator

import hindgrad as hg

ROWS = 240
CLEANER = hg.apps.HindgradCleaner((24,), steps=100, steps_outer=16, repeats=2)


@pytest.fixture(scope="module")
def planted():
    """Digits, of which a tenth has another class."""
    x, y = load_digits(return_X_y=True)
    x, y = x[:ROWS], y[:ROWS].copy()
    wrong = np.random.default_rng(0).permutation(ROWS)[: ROWS // 10]
    y[wrong] = (y[wrong] + 3) % 10
    return x, y, wrong


@pytest.fixture(scope="module")
def fitted(planted):
    x, y, _ = planted
    return clone(CLEANER).fit(x, y)


def test_wrong_labels_are_found(planted, fitted):
    _, y, wrong = planted
    lowest = np.argsort(fitted.weights_)[: len(wrong)]
    assert np.isin(lowest, wrong).mean() > 0.75
    right = (fitted.likelier_[wrong] + 3) % 10 == y[wrong]
    assert right.mean() > 0.8
    np.testing.assert_array_equal(fitted.suspicious_, fitted.weights_ < 0.5)
    assert fitted.weights_.min() >= 0
    assert fitted.weights_.max() <= 1


def test_what_stays(planted, fitted):
    """Frames stay frames; the same rows, again and of text."""
    x, y, _ = planted
    frame = pd.DataFrame(x, columns=[f"pixel {i}" for i in range(64)]).set_axis(
        [f"row {i}" for i in range(ROWS)]
    )
    names = pd.Series([f"class {c}" for c in y])
    cleaner = clone(CLEANER)
    rows, labels = cleaner.fit_resample(frame, names)
    np.testing.assert_allclose(cleaner.weights_, fitted.weights_, atol=1e-5)
    np.testing.assert_array_equal(cleaner.sample_indices_, np.flatnonzero(~fitted.suspicious_))
    pd.testing.assert_frame_equal(rows, frame.iloc[cleaner.sample_indices_])
    pd.testing.assert_series_equal(labels, names.iloc[cleaner.sample_indices_])


def test_trusted_rows_stay_and_a_share_is_left_out(planted):
    x, y, wrong = planted
    trusted = np.zeros(ROWS, bool)
    trusted[wrong[:5]] = True
    cleaner = clone(CLEANER).set_params(remove=0.05)
    rows, labels = cleaner.fit_resample(x, y, trusted)
    assert len(rows) == len(labels) == ROWS - 12
    assert set(wrong[:5]) <= set(cleaner.sample_indices_)
    np.testing.assert_array_equal(cleaner.weights_[trusted], 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 64}, r"hidden is 64; give the widths"),
        ({"hidden": (4, 0)}, r"hidden is \(4, 0\)"),
        ({"steps": 0}, "steps is 0; give a whole number from 1"),
        ({"steps_outer": 1}, "steps_outer is 1; give a whole number from 2"),
        ({"remove": 1.0}, "remove is 1.0; give a share"),
        ({"remove": "some"}, "remove is 'some'; give a share"),
    ],
)
def test_messages(planted, options, message):
    x, y, _ = planted
    with pytest.raises(ValueError, match=f"HindgradCleaner: {message}"):
        clone(CLEANER).set_params(**options).fit(x, y)


def test_rows_that_cannot_be_weighed(planted):
    x, y, _ = planted
    with pytest.raises(ValueError, match="9 rows of 9 classes; it takes 10 rows"):
        clone(CLEANER).fit(x[:9], np.arange(9))
    with pytest.raises(ValueError, match="240 rows of 1 classes"):
        clone(CLEANER).fit(x, np.zeros(ROWS, int))
    with pytest.raises(ValueError, match=r"trusted is int64\[240\]; give a mask"):
        clone(CLEANER).fit(x, y, np.zeros(ROWS, int))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_all_checks_of_scikit_learn_pass():
    cleaner = clone(CLEANER).set_params(steps=20, steps_outer=2, repeats=1)
    results = check_estimator(cleaner, on_skip=None, on_fail=None)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    assert sum(r["status"] == "passed" for r in results) >= 35

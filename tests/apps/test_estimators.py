"""Networks as scikit-learn's estimators."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_wine
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import hindgrad as hg

SMALL = {"hidden": (8,), "steps": 60, "steps_outer": 0}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["HindgradClassifier", "HindgradRegressor"])
@pytest.mark.parametrize("steps_outer", [0, 2])
def test_all_checks_of_scikit_learn_pass(kind, steps_outer):
    estimator = getattr(hg.apps, kind)(hidden=(16,), steps=100, steps_outer=steps_outer)
    results = check_estimator(estimator, on_skip=None, on_fail=None)
    assert [r["check_name"] for r in results if r["status"] == "failed"] == []
    assert sum(r["status"] == "passed" for r in results) >= 45


def test_a_classifier_learns_and_is_the_same_again():
    x, y = load_wine(return_X_y=True)
    names = np.array(["barolo", "grignolino", "barbera"])[y]
    train, test, y_train, y_test = train_test_split(x, names, random_state=0, stratify=y)
    model = hg.apps.HindgradClassifier(**SMALL).fit(train, y_train)
    assert model.score(test, y_test) > 0.9
    assert model.classes_.tolist() == ["barbera", "barolo", "grignolino"]
    chances = model.predict_proba(test)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    np.testing.assert_array_equal(model.classes_[chances.argmax(axis=1)], model.predict(test))
    again = clone(model).fit(train, y_train)
    np.testing.assert_array_equal(again.predict_proba(test), chances)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(test), chances)


def test_tuning_lowers_the_error_of_a_bad_length():
    """Ten steps at the default rate are too few; a higher rate is found."""
    x, y = load_diabetes(return_X_y=True)
    scores = [
        hg.apps.HindgradRegressor((8,), steps=10, steps_outer=n).fit(x, y).score(x, y)
        for n in (0, 12)
    ]
    assert scores[0] + 0.05 < scores[1] < 1


def test_frames_with_text_dates_and_missing_values():
    rng = np.random.default_rng(0)
    kind = np.arange(90) % 3
    frame = pd.DataFrame(
        {
            "a": np.where(rng.random(90) < 0.1, np.nan, rng.normal(size=90)),
            "color": np.array(["red", "blue", "green"])[kind],
            "day": pd.date_range("2020-01-01", periods=90),
        }
    )
    model = hg.apps.HindgradRegressor(**SMALL).fit(frame, 10.0 * kind)
    assert model.score(frame, 10.0 * kind) > 0.9
    assert model.feature_names_in_.tolist() == ["a", "color", "day"]
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[["color", "a", "day"]])


def test_pipelines_and_searches():
    x, y = load_wine(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), hg.apps.HindgradClassifier(**SMALL))
    grid = {"hindgradclassifier__hidden": [(4,), (8,)]}
    found = GridSearchCV(pipeline, grid, cv=2).fit(x, y)
    assert found.best_score_ > 0.85


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="there is one class only"):
        hg.apps.HindgradClassifier(**SMALL).fit(np.zeros((20, 2)), np.zeros(20))


FRAME = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 3)), columns=["a", "b", "c"])
QUANTITY = FRAME["a"].to_numpy() * 2
KIND = QUANTITY > 0
NAN, INF, GREAT = (np.where(FRAME.index == 3, odd, QUANTITY) for odd in (np.nan, np.inf, 1e300))
NAMES = np.where(KIND, "yes", None)


@pytest.mark.parametrize("form", [lambda frame: frame, lambda frame: frame.to_numpy()])
@pytest.mark.parametrize(
    ("kind", "x", "y", "message"),
    [
        ("Regressor", FRAME, NAN, "y contains NaN"),
        ("Regressor", FRAME, INF, "y contains inf"),
        ("Regressor", FRAME, GREAT, "y contains infinity or a value too large"),
        ("Regressor", FRAME, ["low"] * 30, "could not convert string to float|dtype='numeric'"),
        ("Regressor", FRAME, None, "requires y to be passed"),
        ("Classifier", FRAME, None, "requires y to be passed"),
        ("Classifier", FRAME, NAMES, "y contains NaN or None"),
        ("Classifier", FRAME, NAN, "contains NaN"),
        ("Classifier", FRAME, np.array([1, "a"] * 15, object), "Unknown label type"),
        ("Classifier", FRAME.assign(a=INF), KIND, "infinite or too large values in a|infinity"),
        ("Classifier", FRAME.assign(a=GREAT), KIND, "infinite or too large values in (a|x0)"),
        ("Classifier", FRAME[:0], KIND[:0], r"0 sample\(s\)"),
        ("Classifier", FRAME[[]], KIND, r"0 feature\(s\)"),
    ],
)
def test_rows_and_labels_are_checked(kind, x, y, message, form):
    model = getattr(hg.apps, f"Hindgrad{kind}")(**SMALL)
    with pytest.raises(ValueError, match=message):
        model.fit(form(x), y)


def test_rows_to_predict_are_checked():
    model = hg.apps.HindgradClassifier(**SMALL).fit(FRAME, KIND)
    with pytest.raises(ValueError, match=r"infinite or too large values in a \(1\)"):
        model.predict(FRAME.assign(a=INF))
    with pytest.raises(ValueError, match="'a' holds lists or the like"):
        model.predict(FRAME.assign(a=[[1]] * 30))


def test_columns_of_one_name_are_refused():
    for names in (["a", "b", "a"], [0, 1, 0]):
        with pytest.raises(
            ValueError, match=r"unique column names|more than one column named '[a0]'"
        ):
            hg.apps.HindgradClassifier(**SMALL).fit(FRAME.set_axis(names, axis=1), KIND)


@pytest.mark.parametrize(
    "arguments",
    [
        {"hidden": 8},
        {"hidden": ("8",)},
        {"hidden": (0,)},
        {"steps": 0},
        {"steps": 2.5},
        {"batch": 0},
        {"steps_outer": -1},
        {"steps_outer": None},
        {"valid": 2.0},
        {"valid": "half"},
    ],
)
def test_arguments_that_cannot_be_used_are_named(arguments):
    with pytest.raises(ValueError, match=f"HindgradRegressor: {next(iter(arguments))} is "):
        hg.apps.HindgradRegressor(**(SMALL | arguments)).fit(FRAME, QUANTITY)

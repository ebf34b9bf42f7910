"""Networks tuned by hypergradient, as scikit-learn's estimators."""

from typing import Any, final

import jax
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from hindgrad.apps.model import Form, Network, problem_of
from hindgrad.apps.saved import Model, softmax
from hindgrad.apps.splits import Whole, split_of
from hindgrad.apps.table import Kind, Table
from hindgrad.apps.tables.columns import Coded, Column, code
from hindgrad.apps.tune.keep import model_of, refit
from hindgrad.apps.tune.tuning import tuned_hyper

BATCH = 64
LEAST = 10
"""Fewer rows are not divided to tune on; the defaults are taken."""


@final
class HindgradClassifier(ClassifierMixin, BaseEstimator):
    """A network for classes, whose training is tuned by hypergradient; then it is trained on all
    rows.

    Frames may have text, dates and missing values, arrays missing values. Goes into pipelines and
    searches of scikit-learn as any classifier does.

    **Arguments:**

    - `hidden`: widths of the hidden layers.
    - `steps`: training steps.
    - `batch`: examples in a training step: 64, or all if these are fewer, unless given.
    - `steps_outer`: tuning steps; 0 takes the defaults.
    - `valid`: the share of the rows by which the tuning judges.
    - `random_state`: an integer, a `numpy.random.RandomState`, or None for another at each fit.
    """

    def __init__(
        self,
        hidden=(128, 128),
        *,
        steps=300,
        batch=None,
        steps_outer=30,
        valid=0.25,
        random_state=0,
    ):
        self.hidden = hidden
        self.steps = steps
        self.batch = batch
        self.steps_outer = steps_outer
        self.valid = valid
        self.random_state = random_state

    def fit(self, X, y):
        """Fits to rows [rows, features] and their classes [rows].

        Raises `ValueError` if there is one class only.
        """
        coded, y = _validated(self, X, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"HindgradClassifier: there is one class only, {self.classes_[0]!r}; give rows of "
                "two classes at least."
            )
        names = tuple(str(name) for name in self.classes_)
        self.model_ = _fitted(self, coded, codes.astype(np.int32), "classification", names)
        return self

    def predict(self, X):
        """The likeliest class of each row, [rows]."""
        outputs = _outputs(self, X)
        return self.classes_[outputs.argmax(axis=1)]

    def predict_proba(self, X):
        """The probability of each class [rows, classes], in the order of `classes_`."""
        return softmax(_outputs(self, X))

    def __sklearn_tags__(self):
        tags = ClassifierMixin.__sklearn_tags__(self)  # type: ignore[attr-defined]
        return _tagged(tags)


@final
class HindgradRegressor(RegressorMixin, BaseEstimator):
    """A network for a quantity, whose training is tuned by hypergradient; then it is trained on
    all rows. Its arguments are those of `HindgradClassifier`."""

    def __init__(
        self,
        hidden=(128, 128),
        *,
        steps=300,
        batch=None,
        steps_outer=30,
        valid=0.25,
        random_state=0,
    ):
        self.hidden = hidden
        self.steps = steps
        self.batch = batch
        self.steps_outer = steps_outer
        self.valid = valid
        self.random_state = random_state

    def fit(self, X, y):
        """Fits to rows [rows, features] and their values [rows]."""
        coded, y = _validated(self, X, y, numeric=True)
        self.model_ = _fitted(self, coded, np.asarray(y, np.float64), "regression", ())
        return self

    def predict(self, X):
        """The value of each row, [rows]."""
        outputs = _outputs(self, X)
        return self.model_.target_mean + self.model_.target_std * outputs[:, 0]

    def __sklearn_tags__(self):
        tags = RegressorMixin.__sklearn_tags__(self)  # type: ignore[attr-defined]
        return _tagged(tags)


def _tagged(tags):
    tags.input_tags.allow_nan = True
    tags.input_tags.string = True
    tags.input_tags.categorical = True
    return tags


def _validated(
    estimator: Any, X: Any, y: Any, *, numeric: bool = False
) -> tuple[Coded, np.ndarray]:
    """Rows and labels, checked as scikit-learn's estimators do."""
    if isinstance(X, pd.DataFrame):
        if y is None:
            raise ValueError("requires y to be passed, but the target y is None")
        validate_data(estimator, X, skip_check_array=True)  # type: ignore[arg-type]
        y = column_or_1d(y, warn=True)
        if len(y) != len(X):
            raise ValueError(f"X has {len(X)} rows and y {len(y)}; give a label for each row.")
        return code(_named(X)), y
    options: dict[str, Any] = {"ensure_all_finite": "allow-nan", "y_numeric": numeric}
    X, y = validate_data(estimator, X, y, dtype=None, **options)
    return _coded_array(X), y


def _coded_array(X: np.ndarray) -> Coded:
    names = [f"x{i}" for i in range(X.shape[1])]
    if X.dtype.kind in "biuf":
        return Coded(tuple(Column(name) for name in names), X.astype(np.float64))
    return code(pd.DataFrame(X, columns=names))


def _named(X: pd.DataFrame) -> pd.DataFrame:
    frame = X.set_axis([str(name) for name in X.columns], axis=1)
    return frame.reset_index(drop=True)


def _outputs(estimator: Any, X: Any) -> np.ndarray:
    """What the fitted network gives for rows, [rows, outputs]."""
    check_is_fitted(estimator)
    model: Model = estimator.model_
    if isinstance(X, pd.DataFrame):
        validate_data(estimator, X, skip_check_array=True, reset=False)  # type: ignore[arg-type]
        return model.outputs(model.code(_named(X).set_axis(model.features, axis=1)))
    X = validate_data(estimator, X, dtype=None, ensure_all_finite="allow-nan", reset=False)
    return model.outputs(model.code(X))


def _fitted(
    estimator: Any, coded: Coded, y: np.ndarray, kind: Kind, classes: tuple[str, ...]
) -> Model:
    """Tunes on parts of the rows, and trains on all."""
    rows = len(y)
    seed = int(check_random_state(estimator.random_state).randint(2**31 - 1))
    features = tuple(column.name for column in coded.columns)
    table = Table("data", coded.x, y, kind, classes, features, "y", columns=coded.columns)
    sizes = (table.encoder.width, *estimator.hidden, max(1, len(classes)))
    batch = min(estimator.batch or BATCH, rows)
    network = Network(sizes, kind, estimator.steps, batch, Form())
    pool, some = np.arange(rows), np.arange(min(rows, 1))
    hyper, key = network.defaults(), jax.random.key(seed)
    division = split_of(table, pool, estimator.valid) if rows >= LEAST else None
    if estimator.steps_outer and division is not None:
        smaller = min(batch, len(division.train_slots))
        tuned = Network(sizes, kind, estimator.steps, smaller, Form())
        problem, _ = problem_of(table, tuned, pool, some, division)
        hyper = tuned_hyper(problem, hyper, estimator.steps_outer, key)
    problem, standard = problem_of(table, network, pool, some, Whole.of(rows))
    return model_of(table, standard, refit(problem, hyper, key), {})

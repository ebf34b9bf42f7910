"""Networks tuned by hypergradient, as scikit-learn's estimators."""

import abc
from dataclasses import replace
from typing import Any, final

import jax
import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from hindgrad.apps.model import Form, Network, problem_of
from hindgrad.apps.saved import Model, softmax
from hindgrad.apps.splits import Whole, split_of
from hindgrad.apps.table import DataError, Kind, Table
from hindgrad.apps.tables.columns import Coded
from hindgrad.apps.tune.inputs import suited
from hindgrad.apps.tune.keep import model_of, refits
from hindgrad.apps.tune.tuning import DRAWS, tuned_hyper
from hindgrad.apps.validated import checked, is_count, tagged, validated

BATCH = 64
LEAST = 10
"""Fewer rows are not divided to tune on; the defaults are taken."""


class _Network(BaseEstimator, abc.ABC):
    """What both networks take."""

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

    @abc.abstractmethod
    def fit(self, X, y) -> Any:
        """Fits to rows [rows, features] and their labels [rows]."""


@final
class HindgradClassifier(ClassifierMixin, _Network):
    """Networks for classes, whose training is tuned by hypergradient; then four are trained on all
    rows, whose mean probabilities count.

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

    def fit(self, X, y):
        """Fits to rows [rows, features] and their classes [rows].

        Raises `ValueError` if there is one class only, or rows, classes or arguments cannot be
        used.
        """
        _check_arguments(self)
        coded, y = validated(self, X, y)
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
        return tagged(tags)


@final
class HindgradRegressor(RegressorMixin, _Network):
    """Networks for a quantity, whose training is tuned by hypergradient; then four are trained on
    all rows, whose mean counts. Its arguments are those of `HindgradClassifier`."""

    def fit(self, X, y):
        """Fits to rows [rows, features] and their values [rows].

        Raises `ValueError` if rows, values or arguments cannot be used.
        """
        _check_arguments(self)
        coded, y = validated(self, X, y, numeric=True)
        self.model_ = _fitted(self, coded, np.asarray(y, np.float64), "regression", ())
        return self

    def predict(self, X):
        """The value of each row, [rows]."""
        outputs = _outputs(self, X)
        return self.model_.target_mean + self.model_.target_std * outputs[:, 0]

    def __sklearn_tags__(self):
        tags = RegressorMixin.__sklearn_tags__(self)  # type: ignore[attr-defined]
        return tagged(tags)


def _check_arguments(estimator: Any) -> None:
    """Raises `ValueError` naming the argument that cannot be used."""
    name = type(estimator).__name__
    hidden = estimator.hidden
    if not isinstance(hidden, (tuple, list, np.ndarray)) or not all(
        is_count(width, 1) for width in hidden
    ):
        raise ValueError(
            f"{name}: hidden is {hidden!r}; give the widths of the hidden layers, as (128, 128)."
        )
    for option, least in (("steps", 1), ("steps_outer", 0), ("batch", 1)):
        value = getattr(estimator, option)
        if not is_count(value, least) and not (option == "batch" and value is None):
            raise ValueError(f"{name}: {option} is {value!r}; give a whole number from {least}.")
    valid = estimator.valid
    if not isinstance(valid, (int, float, np.floating)) or not 0 < valid < 1:
        raise ValueError(f"{name}: valid is {valid!r}; give a share between 0 and 1.")


def _outputs(estimator: Any, X: Any) -> np.ndarray:
    """What the fitted network gives for rows, [rows, outputs]."""
    check_is_fitted(estimator)
    model: Model = estimator.model_
    if isinstance(X, pd.DataFrame):
        validate_data(estimator, X, skip_check_array=True, reset=False)  # type: ignore[arg-type]
        rows = X.reset_index(drop=True).set_axis(model.features, axis=1)
    else:
        rows = validate_data(estimator, X, dtype=None, ensure_all_finite="allow-nan", reset=False)
    try:
        coded = model.code(rows)
    except DataError as error:
        raise ValueError(str(error)) from error
    return model.outputs(checked(coded))


def _fitted(
    estimator: Any, coded: Coded, y: np.ndarray, kind: Kind, classes: tuple[str, ...]
) -> Model:
    """Tunes on parts of the rows, and trains on all."""
    rows = len(y)
    seed = int(check_random_state(estimator.random_state).randint(2**31 - 1))
    features = tuple(column.name for column in coded.columns)
    table = Table("data", coded.x, y, kind, classes, features, "y", columns=coded.columns)
    hidden = [int(width) for width in estimator.hidden]
    sizes = (table.encoder.width, *hidden, max(1, len(classes)))
    batch = min(estimator.batch or BATCH, rows)
    network = Network(sizes, kind, estimator.steps, batch, Form())
    pool, some = np.arange(rows), np.arange(min(rows, 1))
    hyper, key = network.defaults(), jax.random.key(seed)
    division = split_of(table, pool, estimator.valid) if rows >= LEAST else None
    if estimator.steps_outer and division is not None:
        smaller = min(batch, len(division.train_slots))
        make = lambda network: problem_of(table, network, pool, some, division)[0]
        draws = list(jax.random.split(jax.random.fold_in(key, 1), DRAWS))
        tuned = suited(replace(network, batch=smaller), table, hyper, draws, make)
        hyper = tuned_hyper(make(tuned), hyper, estimator.steps_outer, key)
        network = replace(tuned, batch=batch)
    problem, standard = problem_of(table, network, pool, some, Whole.of(rows))
    return model_of(table, standard, refits(problem, hyper, key), {})

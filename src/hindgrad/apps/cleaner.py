"""Training sets without the rows whose labels look wrong, as scikit-learn's samplers give them."""

import numbers
from typing import Any, final

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets

from hindgrad.apps.clean.suspicion import Learner
from hindgrad.apps.clean.weighing import Rows, suspicion, trust
from hindgrad.apps.model import center_and_scale
from hindgrad.apps.settings import hidden_layers
from hindgrad.apps.table import Table
from hindgrad.apps.validated import is_count, tagged, validated

FEWEST = 10
"""Rows, below which folds and halves of them say nothing."""


@final
class HindgradCleaner(BaseEstimator):
    """Weighs the rows of a training set by hypergradient, as `hindgrad clean` does, and leaves out
    those whose labels look wrong.

        x, y = hg.apps.HindgradCleaner().fit_resample(x, y)

    Frames may have text, dates and missing values, arrays missing values. `fit_resample` is what
    imbalanced-learn's pipelines call: they clean what is trained on, and never what is predicted.

    **Arguments:**

    - `hidden`: widths of the hidden layers; `(0,)` for softmax regression.
    - `steps`: training steps.
    - `steps_outer`: tuning steps of each repetition.
    - `repeats`: how many times the weights are learned; the answer is their mean.
    - `remove`: the share of the rows that is left out; found unless given.
    - `random_state`: an integer, a `numpy.random.RandomState`, or None for another at each fit.

    After `fit`, `weights_` [rows] says how far each label can be trusted, from 0 to 1;
    `suspicious_` [rows] is True below 1/2; `likelier_` [rows] is the class that others would give.
    After `fit_resample`, `sample_indices_` are the rows that stay.
    """

    def __init__(
        self,
        hidden=(64,),
        *,
        steps=200,
        steps_outer=40,
        repeats=4,
        remove=None,
        random_state=0,
    ):
        self.hidden = hidden
        self.steps = steps
        self.steps_outer = steps_outer
        self.repeats = repeats
        self.remove = remove
        self.random_state = random_state

    def fit(self, X, y, trusted=None):
        """Weighs rows [rows, features] with their classes [rows]; `trusted` is a mask [rows] of
        labels known to be right, if there are any.

        Raises `ValueError` if there are fewer than 10 rows or two classes, or rows, classes or
        arguments cannot be used.
        """
        _check_arguments(self)
        coded, y = validated(self, X, y)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2 or len(y) < FEWEST:
            raise ValueError(
                f"HindgradCleaner: there are {len(y)} rows of {len(self.classes_)} classes; it "
                f"takes {FEWEST} rows and two classes at least to doubt a label."
            )
        names = tuple(map(str, self.classes_))
        features = tuple(column.name for column in coded.columns)
        codes = codes.astype(np.int32)
        table = Table(
            "data", coded.x, codes, "classification", names, features, "y", columns=coded.columns
        )
        numbers, standard = center_and_scale(table, np.arange(len(y)))
        known = np.zeros(len(y), bool) if trusted is None else np.asarray(trusted)
        if known.shape != (len(y),) or known.dtype != bool:
            raise ValueError(
                f"HindgradCleaner: trusted is {known.dtype}{list(known.shape)}; give a mask, True "
                f"where a label is known to be right, of the {len(y)} rows."
            )
        rows = Rows(standard.features(numbers), codes, known)
        layers = hidden_layers(tuple(int(width) for width in self.hidden))
        learner = Learner((table.encoder.width, *layers, len(names)), self.steps)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        found = suspicion(
            rows, learner, steps_outer=self.steps_outer, repeats=self.repeats, seed=seed
        )
        self.weights_ = trust(rows, found)
        self.suspicious_ = self.weights_ < 0.5
        self.likelier_ = self.classes_[np.asarray(found["likelier"])]
        return self

    def fit_resample(self, X, y, trusted=None):
        """The rows and classes that stay, in their order."""
        self.fit(X, y, trusted)
        count = self.suspicious_.sum() if self.remove is None else round(self.remove * len(y))
        out = np.argsort(self.weights_, kind="stable")[: int(count)]
        self.sample_indices_ = np.setdiff1d(np.arange(len(y)), out)
        return _taken(X, self.sample_indices_), _taken(y, self.sample_indices_)

    def __sklearn_tags__(self):
        return tagged(super().__sklearn_tags__())


def _taken(x: Any, rows: np.ndarray) -> Any:
    return x.iloc[rows] if hasattr(x, "iloc") else np.asarray(x)[rows]


def _check_arguments(cleaner: HindgradCleaner) -> None:
    """Raises `ValueError` naming the argument that cannot be used."""
    hidden, remove = cleaner.hidden, cleaner.remove
    is_row = isinstance(hidden, (tuple, list, np.ndarray))
    if not is_row or (tuple(hidden) != (0,) and not all(is_count(w, 1) for w in hidden)):
        raise ValueError(
            f"HindgradCleaner: hidden is {hidden!r}; give the widths of the hidden layers, as "
            "(64,), or (0,)."
        )
    for option, least in (("steps", 1), ("steps_outer", 2), ("repeats", 1)):
        value = getattr(cleaner, option)
        if not is_count(value, least):
            raise ValueError(
                f"HindgradCleaner: {option} is {value!r}; give a whole number from {least}."
            )
    is_share = isinstance(remove, numbers.Real) and 0 <= float(remove) < 1
    if remove is not None and not is_share:
        raise ValueError(
            f"HindgradCleaner: remove is {remove!r}; give a share from 0 to below 1, or None."
        )

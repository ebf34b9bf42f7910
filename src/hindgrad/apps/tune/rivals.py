"""What a person would use instead of a tuned network: scikit-learn's models at their defaults."""

import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from threadpoolctl import threadpool_limits

from hindgrad.apps.model import Metrics, Problem
from hindgrad.apps.settings import ArgumentError
from hindgrad.cores import cores

MAJORITY = "always the same"
"""The baseline: the shares of the classes, or the mean."""

Make = Callable[[int], Any]
"""Makes an estimator from a seed."""

CLASSIFIERS: dict[str, Make] = {
    MAJORITY: lambda _: DummyClassifier(strategy="prior"),
    "logistic regression": lambda _: LogisticRegression(),
    "random forest": lambda seed: RandomForestClassifier(random_state=seed, n_jobs=cores()),
    "gradient boosting": lambda seed: HistGradientBoostingClassifier(random_state=seed),
    "scikit-learn's MLP": lambda seed: MLPClassifier(random_state=seed),
}

REGRESSORS: dict[str, Make] = {
    MAJORITY: lambda _: DummyRegressor(),
    "ridge regression": lambda _: Ridge(),
    "random forest": lambda seed: RandomForestRegressor(random_state=seed, n_jobs=cores()),
    "gradient boosting": lambda seed: HistGradientBoostingRegressor(random_state=seed),
    "scikit-learn's MLP": lambda seed: MLPRegressor(random_state=seed),
}

QUIET = {"catboost": {"verbose": 0, "allow_writing_files": False}, "tabpfn": {}}
"""Libraries that may be asked for, where they are installed, and how they are kept quiet."""

CLASSES = {
    ("catboost", "classification"): "CatBoostClassifier",
    ("catboost", "regression"): "CatBoostRegressor",
    ("tabpfn", "classification"): "TabPFNClassifier",
    ("tabpfn", "regression"): "TabPFNRegressor",
}

ONE_THREAD = 20_000
"""Below so many rows, OpenMP's threads gain little, and lose minutes where other work shares the
cores: they wait for each other, busily, at every node of every tree."""

LEAST = 1e-15
"""A probability of zero counts as this, as in scikit-learn's `log_loss`."""


def rivals(kind: str, also: Sequence[str] = ()) -> dict[str, Make]:
    """The rivals by name. `ArgumentError` if one that is asked for is not installed."""
    found = dict(CLASSIFIERS if kind == "classification" else REGRESSORS)
    return found | {name: _installed(name, kind) for name in also}


def _installed(name: str, kind: str) -> Make:
    try:
        estimator = getattr(importlib.import_module(name), CLASSES[name, kind])
    except ImportError as error:
        raise ArgumentError(
            f"--also {name}: {name} is not installed; install it (pip install {name}), or leave "
            "it out."
        ) from error
    return lambda seed: estimator(random_state=seed, **QUIET[name])


def judged(
    problem: Problem, estimator: Any, key: PRNGKeyArray
) -> tuple[Metrics, Float[np.ndarray, " classes"] | None]:
    """How a rival does on this key's draw, on the network's numbers as they are, and its recall of
    each class if there are classes. `ValueError` if it cannot be trained on these rows."""
    plain = problem.network.plain
    parts = (*problem.split(key), problem.test)
    train, valid, test = ((np.asarray(part.x)[:, :plain], np.asarray(part.y)) for part in parts)
    with threadpool_limits(1 if len(train[0]) < ONE_THREAD else None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a default has not converged is part of it
            estimator.fit(*train)
        return _as_judged(problem, estimator, valid, test)


def _as_judged(problem, estimator, valid, test):
    if problem.network.kind == "regression":
        scale = float(problem.target_scale)
        squares = [np.mean((estimator.predict(x) - y) ** 2) for x, y in (valid, test)]
        pairs = [(square, scale * np.sqrt(square)) for square in squares]
        return Metrics(*pairs[0], *pairs[1]), None
    classes = problem.network.sizes[-1]
    of_valid, of_test = (_probabilities(estimator, x, classes) for x, _ in (valid, test))
    pairs = _losses(of_valid, valid[1]), _losses(of_test, test[1])
    return Metrics(*pairs[0], *pairs[1]), recall(of_test.argmax(axis=1), test[1], classes)


def mean_recall(recalls: Sequence[Any]) -> list[float | None] | None:
    """The mean over draws of each class's recall; None for a class that is not tested, or for all
    if there are no classes."""
    if recalls[0] is None:
        return None
    means = np.mean(np.asarray(recalls), axis=0)
    return [float(mean) if np.isfinite(mean) else None for mean in means]


def recall(
    predicted: Int[np.ndarray, " rows"], right: Int[np.ndarray, " rows"], classes: int
) -> Float[np.ndarray, " classes"]:
    """The share of each class's rows that are predicted as it; NaN for a class without rows."""
    counts = np.bincount(right, minlength=classes)
    hits = np.bincount(right[predicted == right], minlength=classes)
    return np.divide(hits, counts, out=np.full(classes, np.nan), where=counts > 0)


def _probabilities(estimator, x, classes):
    """[rows, classes]: a class that was not among the rows to train on has none."""
    found = np.zeros((len(x), classes))
    found[:, estimator.classes_] = estimator.predict_proba(x)
    return found


def _losses(probabilities, y):
    of_right = probabilities[np.arange(len(y)), y]
    loss = -np.log(np.maximum(of_right, LEAST)).mean()
    return loss, (probabilities.argmax(axis=1) != y).mean()

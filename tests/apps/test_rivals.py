"""What stands beside the tuned network: scikit-learn's models, judged as it is."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_wine
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss, recall_score
from threadpoolctl import threadpool_info, threadpool_limits

from hindgrad.apps.model import Network, draw_problem
from hindgrad.apps.table import Table
from hindgrad.apps.tune import recall as shown
from hindgrad.apps.tune import rivals


def problem_of(load, kind):
    data = load()
    y = data.target.astype(np.int64 if kind == "classification" else np.float64)
    classes = tuple(map(str, getattr(data, "target_names", ()))) if y.dtype.kind == "i" else ()
    table = Table("data", data.data, y, kind, classes, tuple(data.feature_names), "y")
    network = Network((data.data.shape[1], 4, len(classes) or 1), kind, 10, 16)
    return draw_problem(table, network, test=0.2, valid=0.2, seed=0)[0]


def test_a_classifier_is_judged_as_scikit_learn_judges(key):
    problem = problem_of(load_wine, "classification")
    found, recalls = rivals.judged(problem, LogisticRegression(), key)
    train, valid = problem.split(key)
    model = LogisticRegression().fit(*map(np.asarray, train))
    for rows, loss, error in ((valid, *found[:2]), (problem.test, *found[2:])):
        x, y = map(np.asarray, rows)
        assert loss == pytest.approx(log_loss(y, model.predict_proba(x)), rel=1e-6)
        assert error == pytest.approx(1 - model.score(x, y))
    x, y = map(np.asarray, problem.test)
    np.testing.assert_allclose(recalls, recall_score(y, model.predict(x), average=None))


def test_a_regression_has_its_error_in_units_of_the_target(key):
    problem = problem_of(load_diabetes, "regression")
    found, recalls = rivals.judged(problem, Ridge(), key)
    assert recalls is None
    spread = load_diabetes().target.std()
    assert 0.5 * spread < found.test_error < spread
    assert found.test_loss < 1


def test_a_class_that_is_not_trained_on_is_improbable_not_impossible(key):
    """Its probability is 0 by the estimator; the loss stays finite."""
    problem = problem_of(load_wine, "classification")
    few = DummyClassifier(strategy="prior")
    fit = few.fit
    few.fit = lambda x, y: fit(x[y < 2], y[y < 2])
    found, recalls = rivals.judged(problem, few, key)
    assert np.log(-np.log(rivals.LEAST)) > np.log(found.test_loss) > 0
    np.testing.assert_array_equal(recalls, [0.0, 1.0, 0.0])


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_every_rival_is_better_than_saying_the_same(kind, key):
    load = load_wine if kind == "classification" else load_diabetes
    problem = problem_of(load, kind)
    found = {
        name: rivals.judged(problem, make(0), key)[0].test_error
        for name, make in rivals.rivals(kind).items()
    }
    assert max(found, key=found.get) == rivals.MAJORITY


def test_few_rows_take_one_thread(key, monkeypatch):
    """On cores that others use too, threads that wait for each other take minutes."""
    seen = []

    class Counting(DummyClassifier):
        def fit(self, x, y):
            seen.append({pool["num_threads"] for pool in threadpool_info()})
            return super().fit(x, y)

    problem = problem_of(load_wine, "classification")
    with threadpool_limits(2):
        rivals.judged(problem, Counting(), key)
        monkeypatch.setattr(rivals, "ONE_THREAD", 10)
        rivals.judged(problem, Counting(), key)
    assert seen == [{1}, {2}]


def test_recall_of_a_class_without_rows_is_not_a_number():
    found = rivals.recall(np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1]), 3)
    np.testing.assert_array_equal(found, [0.5, 0.5, np.nan])
    assert rivals.mean_recall([found, found]) == [0.5, 0.5, None]


def results(counts):
    one = lambda recall: {"recall": recall}
    runs = [
        {"arms": {"tuned": one([0.5, 1.0, None])}, "rivals": {"forest": one([0.0, 1.0, 1.0])}},
        {"arms": {"tuned": one([1.0, 1.0, None])}, "rivals": {"forest": one([0.5, 1.0, None])}},
    ]
    return {"runs": runs, "data": {"counts": counts, "classes": ["rare", "common", "other"]}}


def test_recalls_are_shown_where_a_class_is_rare():
    assert shown.of(results([50, 60, 70]), ["tuned"]) is None
    assert shown.of(results([]), ["tuned"]) is None
    recalls, classes = shown.of(results([5, 60, 50]), ["tuned"])
    assert classes == ["rare", "other", "common"]
    np.testing.assert_array_equal(recalls["tuned"], [0.75, np.nan, 1.0])
    np.testing.assert_array_equal(recalls["forest"], [0.25, 1.0, 1.0])

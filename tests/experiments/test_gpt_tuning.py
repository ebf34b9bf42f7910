"""A GPT tuned: equal costs, documents, unseen keys, and what the report says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.text import gpt_tuning as experiment
from experiments.text import gpt_tuning_report as report
from hindgrad.apps.datasets import DataError
from hindgrad.progress import Bar

SMALL = experiment.SMALL


def test_everything_is_written_and_nothing_else(written):
    assert written == {"gpt-tuning.png", "table.csv"}


def test_every_way_is_judged(results):
    assert [one["way"] for one in results["found"]] == list(report.WAYS)
    for one in results["found"]:
        assert 1 < one["loss"] < 10
        assert len(one["rates"]) == SMALL.steps
        np.testing.assert_allclose(np.mean(one["weights"]), 1, rtol=1e-5)
    *others, whole = results["found"]
    assert all(set(one["weights"]) == {1.0} for one in others)
    assert np.ptp(whole["weights"]) > 0


def test_documents_are_parts_of_the_text():
    text = experiment.load(SMALL, 0, 0)
    spoiled = experiment.load(SMALL, 2, 0)
    differs = np.any(np.asarray(text.train != spoiled.train), axis=1)
    which = np.unique(np.asarray(text.document)[differs])
    assert which.tolist() == experiment.spoiled(SMALL, 2, 0)
    for rows in (text.train, spoiled.train):
        counts = np.bincount(np.asarray(rows).reshape(-1), minlength=text.vocabulary)
        np.testing.assert_array_equal(
            counts, np.bincount(np.asarray(text.train).reshape(-1), minlength=text.vocabulary)
        )
    np.testing.assert_array_equal(text.test, spoiled.test)
    rows = sum(len(part) for part in (text.train, text.valid, text.test))
    assert rows == len(experiment.read("manual")) // (SMALL.context + 1)


def test_optuna_may_spend_what_hypergradients_cost():
    calls = []

    def value(hyper, key):
        calls.append(jax.random.key_data(key))
        return hyper["log_decay"] ** 2

    found = experiment.by_search(SMALL, value, 0, Bar(100))
    assert len(calls) == SMALL.trainings + experiment.FINALISTS * experiment.FURTHER
    assert len(calls) == SMALL.steps_outer * SMALL.cost + experiment.CHOOSING
    assert abs(float(found["log_decay"])) <= 3.0


def test_a_point_is_the_schedule_that_it_names():
    point = {"log_peak": np.log(0.1), "warmup": 0.4, "log_end": np.log(0.5), "log_decay": 0.0}
    rates = experiment.answer(SMALL, experiment.hyper_of(SMALL, point))["rates"]
    np.testing.assert_allclose([max(rates), rates[2], rates[-1]], [0.1, 0.1, 0.05], rtol=1e-5)


def test_weights_count_and_stay_of_mean_one():
    text = experiment.load(SMALL, 0, 0)
    objective = experiment.objective_of(SMALL, text)
    start = experiment.hyper_of(SMALL, experiment.START)
    zeros = jnp.zeros(SMALL.documents)
    plain = objective(start)
    np.testing.assert_allclose(objective(start | {"log_weight": zeros + 3}), plain, rtol=1e-5)
    one = objective(start | {"log_weight": zeros.at[0].set(5.0)})
    assert abs(float(one - plain)) > 1e-4


def test_a_text_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("HINDGRAD_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"lost\.txt is not there: name the folder"):
        experiment.read("lost")

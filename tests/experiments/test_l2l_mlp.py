"""Learned optimizers on small networks: what is written, tuned and said."""

import json

import numpy as np

from experiments.andrychowicz2016 import l2l_mlp as experiment
from experiments.andrychowicz2016 import l2l_mlp_report as report
from hindgrad import learned

SMALL = experiment.SMALL


def test_everything_is_written_and_nothing_else(written):
    assert written == {"curves.png", "other_networks.png", "table.csv"}


def test_every_optimizer_runs_every_task(results):
    assert list(results["tasks"]) == list(SMALL.tasks)
    for task in (task for task in experiment.TASKS if task.name in SMALL.tasks):
        found, steps = results["tasks"][task.name], 4 if task.long else 2
        at = [str(t) for t in SMALL.at if t <= steps]
        assert set(found["learned"]) == set(SMALL.learners)
        curves = [*found["learned"].values(), *found["baselines"]["base"].values()]
        for tuned in found["baselines"]["own"].values():
            assert list(tuned) == at
            curves += tuned.values()
        for saved in curves:
            assert all(len(saved[kind]) == steps + 1 for kind in ("mean", "median", "low", "high"))
        # All begin at the same problems.
        starts = [saved["mean"][0] for saved in curves]
        np.testing.assert_allclose(starts, starts[0], rtol=1e-5)


def test_baselines_are_tuned_anew_near_what_was_best(results):
    first = results["tasks"][experiment.BASE]["baselines"]
    found = results["tasks"]["ReLU"]["baselines"]
    for name, base in first["base"].items():
        assert found["base"][name]["rate"] == base["rate"]
        tried = np.array(found["own"][name]["2"]["trials"]["hyper"])[:, 0]
        assert base["rate"] / 10.2 < tried.min() <= tried.max() < 10.2 * base["rate"]


def known(ours, others, *, edge=False):
    """Results with given losses at both steps of a short run."""
    curve = lambda value: {kind: [2.0, value, value] for kind in report.Summary._fields}
    tuned = lambda value: curve(value) | {"rate": 0.1, "decay": None, "at_edge": edge}
    own = {name: {"1": tuned(v), "2": tuned(v)} for name, v in others.items()}
    base = {name: tuned(v) for name, v in others.items()}
    baselines = {"own": own, "base": base, "minutes": {"tuning": 1.0, "running": 0.5}}
    learned = {name: curve(v) | {"minutes": 0.25} for name, v in ours.items()}
    found = {"baselines": baselines, "learned": learned}
    return {
        "call": {"at": [1, 2], "steps": 2, "validation": 3, "problems": 3, "data": "digits"},
        "learning": {name: {"0": {"minutes": 4.0}} for name in ours},
        "tasks": {"as learned": found, "ReLU": found},
    }


def test_the_words_say_who_is_lower():
    words = " ".join(report.summary(known({"LSTM": 0.3}, {"SGD": 0.6, "Adam": 0.4})))
    assert "step 1: LSTM 0.3, below Adam's 0.4" in words
    assert "is 0.750 of the best baseline's" in words
    assert "LSTM 0.75." in words
    assert "No baseline's best rate" in words
    assert "learning LSTM 4.0; tuning and running the baselines 3.0" in words


def test_the_words_say_when_it_fails():
    words = " ".join(report.summary(known({"LSTM": 0.9, "MLP": None}, {"Adam": 0.4}, edge=True)))
    assert "step 2: LSTM 0.9, above Adam's 0.4" in words
    assert "LSTM 2.25 (fails), MLP inf (fails)" in words
    assert "Adam on networks ReLU at step 2" in words


def test_digits_are_as_bright_as_the_data():
    data = experiment.Data(SMALL)
    data.rows = learned.Examples(3 * data.rows.x, data.rows.y, data.rows.classes)
    cheap = data.cheap()
    np.testing.assert_allclose(cheap.rows.x.sum(axis=1).mean(), data.rows.x.sum(axis=1).mean())
    assert cheap.hidden == (SMALL.units,)


def test_what_was_tuned_survives_json():
    family = experiment.Data(SMALL).task(experiment.TASKS[0])
    (tuned, *_) = experiment.tune(SMALL, family, {}, 4)
    again = experiment.restored(json.loads(json.dumps(experiment.described(tuned))))
    assert (again.name, again.rate, again.value) == (tuned.name, tuned.rate, tuned.value)
    assert again.at(2).rate == tuned.at(2).rate


def test_the_settings_name_every_learner_once():
    for settings in (experiment.DEFAULT, experiment.FULL, SMALL):
        assert len(settings.cheap) == len(settings.whole) == len(settings.learners)
        assert set(settings.learners) <= set(experiment.LEARNERS)
        assert settings.steps % settings.unroll == 0
        assert settings.middle in settings.at

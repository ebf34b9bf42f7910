"""Hyper-cleaning on the digits: that the wrong labels are found, and a run can go on."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from experiments.franceschi2017 import hyper_cleaning as experiment
from hindgrad.checkpoint import Checkpoint
from hindgrad.progress import Bar as Line

SMALL = experiment.SMALL


@pytest.fixture(scope="module")
def runs(finished):
    return json.loads((finished / "results.json").read_text())["runs"]


@pytest.fixture(scope="module")
def drawn():
    return experiment.draw(experiment.SMALL, seed=0)


def test_everything_is_written_and_nothing_else(written):
    assert written == {"accuracy.png", "weights.png", "tuning.png", "suspects.png", "table.csv"}


def test_the_wrong_labels_are_found(runs):
    """Half of the labels are wrong, so chance is an AUC of .5 and an F1 of at most .67."""
    for run in runs:
        assert run["auc"] > 0.9
        for radius in ("60", "100"):
            assert run["detection"][radius]["f1"] > 0.85
            assert run["detection"][radius]["precision"] > 0.85


def test_all_models_are_tested(runs):
    names = ["oracle", "baseline", "validation only", "100", "60"]
    for run in runs:
        assert list(run["accuracy"]) == names
        assert all(75 < accuracy < 100 for accuracy in run["accuracy"].values())


def test_each_outer_step_is_seen(runs):
    for run in runs:
        valid, f1 = np.array(run["seen"]["valid"]), np.array(run["seen"]["f1"])
        assert valid.shape == f1.shape == (experiment.SMALL.steps_outer, 2)
        assert (valid[-1] < 0.8 * valid[0]).all()
        assert (f1[0] == 0).all()  # all weights are still equal
        found = [run["detection"][radius]["f1"] for radius in ("100", "60")]
        assert found in f1.tolist()


def test_the_table_has_means_and_spreads(results, tmp_path):
    other = json.loads(json.dumps(results["runs"][0]))
    other["accuracy"] = dict.fromkeys(other["accuracy"], 50.0)
    results["runs"].append(other)
    experiment.report.write(results, tmp_path)
    text = (tmp_path / "table.md").read_text()
    for expected in ("oracle", "baseline", "validation only", "R = 60", "R = 100"):
        assert expected in text
    values = [results["runs"][0]["accuracy"]["oracle"], 50.0]
    assert f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}" in text
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 1 + 2 * 5


def test_the_words_say_whichever_way_it_went(finished, results):
    assert "200 training examples, 100 of them" in (finished / "summary.md").read_text()
    accuracy = results["runs"][0]["accuracy"]
    for cleaned, cases in ((99.0, 2), (1.0, 0)):
        accuracy |= {"60": cleaned, "100": cleaned}
        words = " ".join(experiment.report.summary(results))
        assert f"from {cleaned:.2f} to {cleaned:.2f} %" in words
        assert f"lower than cleaned in {cases} of 2 cases" in words
        assert ("Not for every radius did cleaning pay" in words) == (cases == 0)


def test_the_suspects_are_wrong_labels_mostly(runs):
    target = load_digits().target
    for run in runs:
        worst = np.array(run["suspects"]["worst"])
        assert np.mean(target[worst[:, 0]] != worst[:, 1]) > 0.8
        assert all(target[i] == given for i, given in run["suspects"]["odd"])


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_results(
    finished, reproduced, tmp_path, monkeypatch
):
    def interrupt(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "accuracies", interrupt)
        with pytest.raises(KeyboardInterrupt):
            reproduced(tmp_path / "out")
    monkeypatch.setattr(experiment, "tune", interrupt)  # it is done
    resumed = reproduced(tmp_path / "out", resume=True)
    assert resumed == json.loads((finished / "results.json").read_text())


def test_a_tuning_that_goes_on_has_seen_the_steps_before(drawn, tmp_path, monkeypatch):
    """The checkpoints are written every step here, and the tuning ends after half of them."""
    settings = dataclasses.replace(experiment.SMALL, radii=experiment.SMALL.radii[::-1])

    def watch(name):
        (tmp_path / name).mkdir(exist_ok=True)
        return experiment.Watch(
            settings, tmp_path / name, drawn.flipped, Line(settings.steps_outer)
        )

    whole = experiment.tune(settings, drawn, watch("whole"))
    monkeypatch.setattr("hindgrad.checkpoint.SECONDS_BETWEEN_SAVES", 0.0)
    save, saves = Checkpoint.save, [0]

    def save_and_stop(store, *state, now):
        save(store, *state, now=now)
        saves[0] += 1
        if saves[0] == 7:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            experiment.tune(settings, drawn, watch("halves"))
    with (tmp_path / "halves" / "seen.jsonl").open("a") as file:
        file.write('\n{"step": 3, "val')  # as a kill may leave it
    rest = watch("halves")
    assert experiment.tune(settings, drawn, rest) == whole
    assert rest.count == settings.steps_outer - 7


def test_half_of_the_labels_are_wrong(drawn):
    target = load_digits().target
    wrong = np.asarray(drawn.train.y) != target[drawn.indices]
    np.testing.assert_array_equal(wrong, drawn.flipped)
    assert wrong.sum() == 100
    assert len(drawn.valid.y) == 200
    assert len(drawn.test.y) == 1797 - 400


def test_rows_are_in_one_part_only(drawn):
    parts = [drawn.train.x, drawn.valid.x, drawn.test.x]
    x = np.concatenate([np.asarray(part) for part in parts])
    everything = np.asarray(load_digits().data / 16, np.float32)
    np.testing.assert_array_equal(np.sort(x, axis=0), np.sort(everything, axis=0))


@pytest.mark.slow
def test_the_models_of_several_radii_share_nothing(drawn):
    """The gradient of one radius' weights is that of a tuning of that radius alone."""
    settings = experiment.SMALL
    weights = jax.random.uniform(jax.random.key(0), (2, 200))

    def valid_losses(weights, totals):
        train = experiment.training(drawn.train, jnp.asarray(totals), settings.rate, 5)
        start = experiment.zeros(len(totals), 10, 64)
        return experiment.losses(train(start, weights).params, drawn.valid).mean(axis=1)

    both = jax.grad(lambda w: valid_losses(w, [60.0, 100.0]).sum())(weights)
    alone = jax.grad(lambda w: valid_losses(w, [100.0]).sum())(weights[1:])
    np.testing.assert_allclose(both[1:], alone, rtol=1e-4, atol=1e-9)


def test_the_full_settings_are_the_papers():
    full = experiment.FULL
    assert (full.steps, full.rate, full.steps_outer, full.rate_outer) == (2000, 0.1, 500, 0.005)
    assert full.radii == experiment.DEFAULT.radii == (1000, 1500, 2000, 2500)
    assert experiment.total(dataclasses.replace(full, seeds=2)) == 1000

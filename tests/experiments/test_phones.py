"""Tuning in real time on the digits, twenty rows in a row taken for a speaker."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.fft import idct
from sklearn.datasets import load_digits

import hindgrad as hg
from experiments.franceschi2017 import phones as experiment
from experiments.franceschi2017.phones_report import ARMS, FIXED, START, STILL, ZEROS
from hindgrad.apps import datasets

SMALL = experiment.SMALL


def curves(results, *names):
    return [run["arms"][name]["curve"] for run in results["runs"] for name in names]


def test_everything_is_written_and_nothing_else(written, finished):
    assert written == {"trajectories.png", "outcome.png", "table.csv"}
    assert len((finished / "table.csv").read_text().splitlines()) == 1 + SMALL.seeds * len(ARMS)


def test_real_time_lowers_the_validation_loss(results):
    for run in results["runs"]:
        loss = {name: arm["valid_loss"] for name, arm in run["arms"].items()}
        assert loss[START] < 0.9 * loss[STILL]
        values = run["arms"][ZEROS]["curve"]["valid"]
        assert values[-1] < values[0] - 0.1


def test_hyperparameters_stay_in_their_range(results):
    for curve in curves(results, START, ZEROS):
        hyper = {name: np.array(values) for name, values in curve["hyper"].items()}
        assert all(len(values) == SMALL.steps // SMALL.every for values in hyper.values())
        assert ((hyper["rate"] >= 0) & (hyper["rate"] <= experiment.LARGEST_RATE)).all()
        assert ((hyper["decay"] >= 0) & (hyper["decay"] < 1)).all()
        assert (hyper["rho"] >= 0).all()


def test_a_rate_of_zero_rises_by_itself(results):
    for curve in curves(results, ZEROS):
        assert (np.diff(curve["hyper"]["rate"]) > 0).all()
        assert curve["hyper"]["rate"][0] == pytest.approx(SMALL.rate_outer, rel=1e-3)


def test_what_is_kept_is_kept(results):
    rho = {FIXED: 0.0, STILL: SMALL.rho}
    for name in rho:
        for curve in curves(results, name):
            assert curve["hyper"] == {"rate": [0.1], "decay": [0.9], "rho": [rho[name]]}


def test_the_search_answers_with_the_trial_that_validates_best(monkeypatch):
    """With a clock of one second a training, ten seconds are ten trials."""
    arms = experiment.Arms(SMALL, 0, lambda name, run: (run(), 1.0))
    seen = []
    train = arms.train

    def watched(hyper):
        result = train(hyper)
        seen.append((float(result[0][1][-1]), hyper))
        return result

    monkeypatch.setattr(arms, "train", watched)
    found = arms.search(10.0)
    assert found["trials"] == len(seen) == 10
    lowest, hyper = min(seen, key=lambda trial: trial[0])
    assert found["curve"]["valid"][-1] == pytest.approx(lowest)
    assert found["curve"]["hyper"] == {name: [value] for name, value in hyper.items()}
    assert found["valid_loss"] == pytest.approx(lowest, rel=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_speaker_is_in_two_parts(seed):
    data = datasets.load("digits")
    parts = experiment.parts(data, SMALL.valid, seed)
    speakers = [set(rows // experiment.ROWS_OF_A_SPEAKER) for rows in parts]
    assert not speakers[0] & speakers[1] | speakers[0] & speakers[2] | speakers[1] & speakers[2]
    total = sum(map(len, parts))
    assert len(data.y) - 2 * experiment.ROWS_OF_A_SPEAKER <= total <= len(data.y)
    other = experiment.parts(data, SMALL.valid, seed + 5)
    assert [len(rows) for rows in parts] == [len(rows) for rows in other]
    assert set(parts[2]) == set(other[2])
    assert set(parts[1]) != set(other[1])


def test_official_test_speakers_are_the_test(monkeypatch):
    digits = datasets.load("digits")
    official = np.arange(len(digits.y)) < 1200
    data = dataclasses.replace(digits, train=official, groups={"speaker": np.arange(1797) // 12})
    train, valid, test = experiment.parts(data, 0.25, 0)
    np.testing.assert_array_equal(test, np.flatnonzero(~official))
    assert len(valid) == 300
    assert official[np.concatenate([train, valid])].all()


def test_the_second_target_is_the_smoothed_row():
    """With all coefficients and no standardisation it would be the row itself."""
    settings = dataclasses.replace(SMALL, coefficients=64)
    drawn = experiment.draw(settings, 0)
    x, z = np.asarray(drawn.train.x, float), np.asarray(drawn.train.z, float)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-4)
    few = np.asarray(experiment.draw(SMALL, 0).train.z, float)
    np.testing.assert_allclose(few, z[:, : SMALL.coefficients], atol=1e-5)
    coefficients, *_ = np.linalg.lstsq(z, x - x.mean(axis=0)[None], rcond=None)
    np.testing.assert_allclose(z @ coefficients, x, atol=1e-3)  # nothing is lost
    first = idct(np.eye(64)[0] * 8, norm="ortho")  # constant: the mean of the row
    correlation = np.corrcoef(few[:, 0], x @ first)[0, 1]
    assert correlation == pytest.approx(1, abs=1e-4)


def test_plain_training_is_the_trainings_own():
    arms = experiment.Arms(SMALL, 0, experiment.Clock())
    hyper = {"rate": jnp.float32(0.2), "decay": jnp.float32(0.5), "rho": jnp.float32(0.3)}
    params, values = experiment.plain(arms.training, arms.params, hyper, arms.valid, SMALL.every)
    expected = arms.training(arms.params, hyper, adjoint=hg.Stored()).params
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), params, expected)
    np.testing.assert_allclose(values[-1], arms.valid(expected, None, None), rtol=1e-3)


def test_compilation_is_not_timed():
    calls = []
    clock = experiment.Clock()
    for _ in range(3):
        clock("a run", lambda: calls.append(1))
    assert len(calls) == 4


def test_the_table_has_means_and_spreads(finished, results):
    text = (finished / "table.md").read_text()
    values = [run["arms"][START]["test"] for run in results["runs"]]
    assert f"| {np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} |" in text


def test_the_words_say_whichever_way_it_went(results):
    assert results["rows"] == [
        len(rows) for rows in experiment.parts(datasets.load("digits"), 0.25, 0)
    ]
    for tuned, word in ((90.0, "+10.00"), (70.0, "-10.00")):
        for run in results["runs"]:
            for name in ARMS:
                run["arms"][name]["test"] = tuned if name == START else 80.0
        words = " ".join(experiment.report.summary(results))
        assert f"minus the others, in points: vanilla {word}" in words
        place = [words.index(f"{START} <"), 0] if tuned < 80 else [words.index(f"< {START};"), 0]
        assert place[0] > 0


def test_the_full_settings_are_longer():
    full, default = experiment.FULL, experiment.DEFAULT
    assert (full.every, full.rate_outer) == (200, 0.005)
    assert full.steps // full.every > default.steps // default.every
    assert len(load_digits().target) == 1797

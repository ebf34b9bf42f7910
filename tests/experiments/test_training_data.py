"""Learned training images: the hypergradient, what they are compared with, and the words."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
from experiments.maclaurin2015 import training_data as experiment
from experiments.maclaurin2015 import training_data_report as report
from experiments.models import Examples, split

SMALL = experiment.SMALL


@pytest.fixture(scope="module")
def drawn():
    return split("digits", 100, 50, 50, seed=0)


def by_hand(settings, drawn, layers, images, log_l2):
    """The validation loss in float64 numpy, with gradients written by hand."""
    wide = lambda a: np.asarray(a, np.float64)
    w, b = wide(layers[0]["w"]), wide(layers[0]["b"])
    vw, vb, l2 = 0 * w, 0 * b, np.exp(log_l2)
    softmax = lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    for _ in range(settings.steps):
        wrong = (softmax(images @ w + b) - np.eye(10)) / 10
        keep, give = settings.decay, 1 - settings.decay
        vw = keep * vw - give * (images.T @ wrong + 2 * l2 * w)
        vb = keep * vb - give * (wrong.sum(axis=0) + 2 * l2 * b)
        w, b = w + settings.rate * vw, b + settings.rate * vb
    p = softmax(wide(drawn.valid.x) @ w + b)
    return -np.log(p[np.arange(len(p)), np.asarray(drawn.valid.y)]).mean()


@pytest.mark.slow
def test_the_hypergradient_is_that_of_a_training_by_hand(drawn):
    settings = replace(SMALL, steps=4)
    hyper = experiment.start(settings, drawn, 3)
    hyper["images"] = hyper["images"] + drawn.train.x[:10]
    layers = experiment.initial(settings, drawn, jax.random.key(3))
    run = experiment.objective(settings, drawn, layers)
    value, grads = jax.value_and_grad(lambda h: run(h, adjoint=hg.Reversible()))(hyper)
    images, log_l2 = np.asarray(hyper["images"], np.float64), float(hyper["log_l2"])
    np.testing.assert_allclose(value, by_hand(settings, drawn, layers, images, log_l2), rtol=1e-5)
    toward = np.random.default_rng(0).normal(size=images.shape)
    line = lambda h, k: by_hand(settings, drawn, layers, images + h * toward, log_l2 + k)
    slope = (line(1e-4, 0) - line(-1e-4, 0)) / 2e-4
    np.testing.assert_allclose(np.vdot(toward, grads["images"]), slope, rtol=1e-4)
    slope = (line(0, 1e-3) - line(0, -1e-3)) / 2e-3
    np.testing.assert_allclose(grads["log_l2"], slope, rtol=1e-3)


def test_everything_is_written_and_nothing_else(written):
    assert written == {"training-data-images.png", "training-data-outcome.png", "table.csv"}


def test_learned_images_beat_real_ones(results):
    (run,) = results["runs"]
    arms = run["arms"]
    assert len(run["valid"][report.LEARNED]) == SMALL.steps_outer
    # The start is as bad as guessing; what is reported is the best iterate, trained once more.
    assert run["valid"][report.LEARNED][0] == pytest.approx(np.log(10), abs=0.02)
    best = min(run["valid"][report.LEARNED])
    assert arms[report.LEARNED]["valid_loss"] == pytest.approx(best, abs=1e-3)
    assert arms[report.LEARNED]["test_error"] < arms[report.RANDOM]["test_error"] - 0.05
    assert arms[report.LONGER]["valid_loss"] < arms[report.MEANS]["valid_loss"] - 0.1


def test_real_images_are_one_of_each_class(drawn):
    sets = experiment.real(SMALL, drawn, 5)
    assert len(sets) == SMALL.draws
    x, y = np.asarray(drawn.train.x), np.asarray(drawn.train.y)
    for images in sets:
        for image, label in zip(np.asarray(images.x), images.y, strict=True):
            same = np.flatnonzero((x == image).all(axis=1))
            assert (y[same] == label).any()
    assert not np.array_equal(sets[0].x, sets[1].x)
    means = experiment.means(drawn)
    np.testing.assert_allclose(means.x[4], x[y == 4].mean(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_chosen_training_has_the_lowest_validation_loss(drawn):
    settings = replace(SMALL, rates=(0.1, 1.0), l2s=(1e-3,), lengths=(4, 8))
    sets = [Examples(drawn.train.x[:40], drawn.train.y[:40])]
    ways = [experiment.Way(rate, 1e-3, steps) for rate in (0.1, 1.0) for steps in (4, 8)]
    losses = [experiment.trained(settings, drawn, sets, way, [7])["valid_loss"] for way in ways]
    way = experiment.chosen(settings, drawn, sets, [7])
    best = ways[int(np.argmin(losses))]
    assert way.steps == best.steps
    assert way.rate == pytest.approx(best.rate)


def test_the_words_say_which_is_better(results):
    assert "40 outer steps took the validation loss from 2.3" in report.summary(results)[0]
    arms = results["runs"][0]["arms"]
    fresh = arms[f"{report.LEARNED}, {report.FRESH}"]
    for error, words in ((0.0, "That is better than"), (0.9, "That is not better than both")):
        fresh["test_error"] = error
        assert words in " ".join(experiment.report.summary(results))


def test_the_papers_figures_stand_beside_those_of_mnist_only(results):
    assert "authors" not in " ".join(cell for row in report.rows(results) for cell in row)
    results["call"]["data"] = "mnist"
    assert "0.4193" in " ".join(cell for row in report.rows(results) for cell in row)
    assert "0.4193" in report.summary(results)[0]


def test_the_default_settings_are_the_papers():
    settings = experiment.DEFAULT
    assert (settings.steps, settings.steps_outer, settings.valid) == (20, 40, 10_000)
    assert experiment.total(SMALL) == 40 + 40 + 3 * experiment.CHOICE


def test_images_begin_as_noise(drawn):
    hyper = experiment.start(SMALL, drawn, 1)
    assert hyper["images"].shape == (10, 64)
    assert float(jnp.std(hyper["images"])) == pytest.approx(SMALL.scale, rel=0.1)
    assert float(jnp.exp(hyper["log_l2"])) == pytest.approx(SMALL.l2)

"""Learned optimizers on convolutional networks: what is compared with what, and what is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.andrychowicz2016 import l2l_conv as experiment
from experiments.andrychowicz2016 import l2l_conv_report as report
from hindgrad.learned.curves import drawn_problems

SMALL = experiment.SMALL


@pytest.fixture(scope="module")
def data():
    return experiment.datasets(SMALL)


def test_everything_is_written_and_nothing_else(written):
    assert written == {"test.png", "train.png", "table.csv"}


def test_all_are_compared_on_the_same_networks(results):
    """They start from the same loss, and end elsewhere."""
    (seed,) = results["seeds"]
    names = [*SMALL.learned, *SMALL.baselines]
    assert sorted(seed["optimizers"]) == sorted(names)
    for where in report.places(SMALL.subsets):
        for part in report.PARTS:
            curves = [seed["optimizers"][n]["curves"][where][part]["mean"] for n in names]
            assert all(len(curve) == SMALL.steps + 1 for curve in curves)
            np.testing.assert_allclose([c[0] for c in curves], curves[0][0], rtol=1e-5)
            # LSTM by kind and LSTM-sub begin with the same weights, and learn on other classes.
            assert len({c[-1] for c in curves}) == len(curves)


def test_each_data_set_has_its_classes_only(data):
    expected = {
        report.ALL: set(range(10)),
        report.OTHERS: {5, 6, 7, 8, 9},
        "2 classes": {0, 1},
    }
    for name, classes in expected.items():
        for part in (data[name].train, data[name].test):
            assert set(np.asarray(part.images.y).tolist()) == classes
            _, repeats = np.unique(np.asarray(part.images.x), axis=0, return_counts=True)
            assert repeats.max() - repeats.min() <= 1
    # Of one shape: what is compiled for one serves for all.
    assert len({part.train.images.x.shape for part in data.values()}) == 1
    rows = [set(map(bytes, np.asarray(data[report.ALL].train.images.x)))]
    rows += [set(map(bytes, np.asarray(data[report.ALL].test.images.x)))]
    assert not rows[0] & rows[1]


@pytest.mark.slow
def test_held_out_images_are_looked_at_and_not_learned_from(data):
    """The losses are those of a training by hand on the training minibatches."""
    (sgd,) = SMALL.rivals()
    on_train, on_test = (
        drawn_problems(family, experiment.held_out(0), jnp.int32(0), count=SMALL.compared)
        for family in (data[report.ALL].train, data[report.ALL].test)
    )
    train, test = experiment.curves(sgd.make, [jnp.float32(0.1)], on_train, on_test, SMALL.steps)
    looks = jax.jit(lambda p, t: (*on_train.gradients(p, t), on_test.losses(p, t)))
    params = on_train.params
    for t in range(SMALL.steps + 1):
        losses, grads, outside = looks(params, jnp.int32(t))
        np.testing.assert_allclose(train[:, t], losses, rtol=1e-4)
        np.testing.assert_allclose(test[:, t], outside, rtol=1e-4)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    assert jnp.abs(train - test).max() > 1e-3


def test_the_words_go_with_the_figures(results):
    (seed,) = results["seeds"]

    def told(loss):
        curves = seed["optimizers"][report.PAPERS]["curves"][report.ALL]["test"]
        curves["mean"] = [loss] * (SMALL.steps + 1)
        words = experiment.report.summary(results)
        return next(w for w in words if w.startswith(f"{report.PAPERS}, {report.ALL}"))

    assert "beside the best baseline's: lower, 0.001 against" in told(0.001)
    assert "beside the best baseline's: not lower, 9.000 against" in told(9.0)
    assert "not lower, diverges against" in told(None)


def test_the_default_says_how_it_differs_from_the_paper(results):
    results["call"] |= {"channels": [8, 8, 8], "kernel": 3, "minibatch": 64}
    words = report.summary(results)[0]
    for difference in (
        "channels 8, 8, 8 (paper: 16, 16, 16)",
        "kernels of 3 × 3 (paper: 5 × 5)",
        "minibatches of 64 (paper: 128)",
    ):
        assert difference in words


def test_the_subsets_have_nothing_in_common_with_what_sub_is_learned_on():
    for settings in (experiment.DEFAULT, experiment.FULL):
        for labels in settings.subsets:
            assert not set(labels) & set(settings.others)
    full = experiment.FULL
    assert (full.size, full.channels, full.kernel, full.dense, full.minibatch) == (
        report.PIXELS,
        report.CHANNELS,
        report.KERNEL,
        report.DENSE,
        report.MINIBATCH,
    )

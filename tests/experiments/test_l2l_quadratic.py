"""Learned optimizers on quadratics: what is measured, and what the words say of it."""

import numpy as np
import optax
import pytest

from experiments.andrychowicz2016 import l2l_quadratic as experiment
from experiments.andrychowicz2016 import l2l_quadratic_report as report
from hindgrad.apps.optimizers import recipes
from hindgrad.learned import Quadratics, optax_curves
from tests.learned.rate import Rate

SMALL = experiment.SMALL

ADAM = optax.adam(1e-3)

QUICK = recipes.Recipe(
    Rate(),
    Quadratics,
    iterations=4,
    outer=lambda iterations: ADAM,
    settings={"steps": 100, "batch": 4, "evaluations": 16},
)
"""An optimizer of one weight in place of both: the networks' own tests are elsewhere, and most of
the time is compiling them."""


@pytest.fixture(scope="module", autouse=True)
def quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "RECIPES", dict.fromkeys(experiment.RECIPES, QUICK))
        yield


def test_everything_is_written_and_nothing_else(written):
    assert written == {"mean.png", "median.png", "table.csv"}


def test_numbers_are_those_of_the_curves(results):
    (seed,) = results["seeds"]
    for found in seed["optimizers"].values():
        at_reported = np.array(found["curves"]["mean"], float)[list(SMALL.at)]
        np.testing.assert_allclose(np.array(found[str(SMALL.many)]["mean"], float), at_reported)
        median = found[str(SMALL.few)]["quantiles"][experiment.QUANTILES.index(0.5)]
        assert found[str(SMALL.few)]["median"] == median


def test_baselines_are_compared_at_their_tuned_rates(results):
    """The same by hand, for plain gradient descent."""
    (seed,) = results["seeds"]
    rate, decay = results["tuned"]["SGD"]["hyper"]
    assert rate in SMALL.rates
    assert decay is None
    drawn = {"key": experiment.held_out(0), "count": SMALL.many, "steps": 100}
    curves = {r: optax_curves(optax.sgd(r), Quadratics(), **drawn) for r in SMALL.rates}
    means = {r: np.mean(c[: SMALL.few, list(SMALL.at)], 0) for r, c in curves.items()}
    few = str(SMALL.few)
    found = seed["optimizers"]["SGD"]
    np.testing.assert_allclose(found[few]["mean"], means[rate], rtol=1e-4)
    least = np.minimum(*means.values())
    np.testing.assert_allclose(found["best"][few]["mean"], least, rtol=1e-4)


def replaced(results, name, what, values):
    for seed in results["seeds"]:
        seed["optimizers"][name][str(SMALL.many)][what] = values
    return " ".join(report.summary(results))


def test_the_words_say_which_way_it_went(results):
    steps = len(SMALL.at)
    best = [min(report._best(results, b, "mean", SMALL.many)[i] for b in results["tuned"])
            for i in range(steps)]  # fmt: skip
    words = replaced(results, report.RELATIVE, "mean", [b / 2 for b in best])
    assert f"{report.RELATIVE}: in the mean, lower than every baseline at every step" in words
    words = replaced(results, report.RELATIVE, "mean", [best[0] / 2, best[1] * 2, best[2] / 2])
    assert f"{report.RELATIVE}: in the mean, a baseline at its best in hindsight is lower" in words
    assert "lower at step 10 (" in words


def test_the_words_say_what_was_reached(results):
    words = replaced(results, report.RELATIVE, "mean", [1.0, 1.2, 0.1])
    start = f"{report.RELATIVE}, mean loss on 16 held-out problems at steps 10/100: 1.2/0.1; "
    assert start + "aimed at 1.23/0.118: all reached." in words
    words = replaced(results, report.RELATIVE, "mean", [1.0, 1.3, None])
    assert "1.3/inf; aimed at 1.23/0.118: not reached at 10, 100." in words


def test_the_full_settings_are_the_larger():
    assert min(experiment.FULL.iterations) > max(experiment.DEFAULT.iterations)
    assert experiment.DEFAULT.few == 128
    assert len(experiment.DEFAULT.rates) >= 41
    assert experiment.total(SMALL) == 4 + 4 + 5 * report.TUNING

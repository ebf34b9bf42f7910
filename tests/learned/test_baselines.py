"""Baselines at the rates that serve them best."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad.learned import BASELINES, optax_curves, tune_rate
from hindgrad.learned import baselines as module

SGD, MOMENTUM, NESTEROV, RMSPROP, ADAM = BASELINES


class Bowls(eqx.Module):
    """h θ²/2 from θ = 1, where h is `steep` for a tenth of the problems, on average, and else 1:
    a step of gradient descent multiplies θ by 1 − rate · h."""

    steep: float = 1.0

    def __call__(self, key):
        h = jnp.where(jax.random.uniform(key) < 0.1, self.steep, 1.0)
        return jnp.ones(()), lambda params, _: h * params**2 / 2


class Slopes(eqx.Module):
    """2 θ, of which every step sees the same gradient."""

    def __call__(self, key):
        del key
        return jnp.zeros(()), lambda params, _: 2 * params


@pytest.mark.parametrize(
    ("baseline", "hyper", "moved"),
    [
        (SGD, (0.5,), [1, 2, 3]),
        (MOMENTUM, (0.5, 0.5), [1, 2.5, 4.25]),
        (NESTEROV, (0.5, 0.5), [1.5, 3.25, 5.125]),
        (RMSPROP, (0.5,), [0.5 / np.sqrt(1 - 0.9**n) for n in (1, 2, 3)]),
        (ADAM, (0.5,), [0.5, 1, 1.5]),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_the_updates_are_those_of_the_books(key, baseline, hyper, moved):
    """Along a constant gradient of 2: with θ −= rate · v, v ← decay · v + g and so on."""
    curve = optax_curves(baseline.make(*hyper), Slopes(), key, count=1, steps=3)[0]
    expected = np.cumsum(moved) if baseline is RMSPROP else np.array(moved)
    np.testing.assert_allclose(curve[1:], -2 * expected, rtol=1e-4)


def test_the_choice_is_that_of_an_exhaustive_search(key):
    """Against loops in NumPy for each pair, at two steps."""
    rates, decays, family = (0.03, 0.1, 0.3, 9.0), (0.5, 0.9), Bowls(4.0)
    tuned = tune_rate(
        NESTEROV, family, key, steps=60, problems=30, rates=rates, decays=decays, at=(10,)
    )
    h = 2 * np.asarray(optax_curves(SGD.make(0.1), family, key, count=30, steps=0))[:, 0]
    assert set(h) == {1.0, 4.0}
    for step in (10, 60):
        means = {}
        for rate, decay in ((rate, decay) for rate in rates for decay in decays):
            x, v = np.ones(30), np.zeros(30)
            for _ in range(step):
                v = decay * v + h * x
                x = x - rate * (h * x + decay * v)
            means[rate, decay] = np.mean(h * x**2 / 2)
        best, found = min(means, key=lambda pair: means[pair]), tuned.at(step)
        assert (found.rate, found.decay, found.step) == (*best, step)
        assert found.value == pytest.approx(means[best], rel=1e-3)
    assert np.isinf(tuned.trials.values[-1, -1])
    assert set(tuned.trials.seen) == {30}


def test_curves_of_several_are_those_of_each(key, monkeypatch):
    """In one block, and in several of which the last is not full."""
    tune = lambda rate: tune_rate(SGD, Bowls(4.0), key, steps=3, problems=2, rates=(rate,))
    tuned = [tune(0.1), tune(0.2)]
    for coordinates in (100, 3):
        monkeypatch.setattr("hindgrad.learned.curves.COORDINATES", coordinates)
        curves = module.tuned_curves(tuned, Bowls(4.0), key, count=7, steps=3)
        for t, found in zip(tuned, curves, strict=True):
            expected = optax_curves(t.optimizer, Bowls(4.0), key, count=7, steps=3)
            np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_nothing_is_compiled_for_another_rate(key):
    traces = []

    def make(rate):
        traces.append(1)
        return SGD.make(rate)

    baseline = module.Baseline("gradient descent", make)
    for rates in ((0.1, 0.2, 0.3), (0.4,)):
        tune_rate(baseline, Bowls(), key, steps=2, problems=6, rates=rates, first=2)
        traces.append(0)
    assert traces == [1, 0, 0]


def test_the_edge_of_the_grid_is_told(key):
    """The loss after one step is (1 − rate)²/2."""
    tune = lambda *rates: tune_rate(SGD, Bowls(), key, steps=1, problems=4, rates=rates)
    inside = tune(0.5, 1.1, 1.5)
    assert (inside.rate, inside.at_edge) == (1.1, False)
    assert inside.value == pytest.approx(0.1**2 / 2, rel=1e-4)
    assert inside.message == "SGD: rate 1.1."
    for rates in ((0.5, 0.8), (1.1, 1.5, 1.8)):
        outside = tune(*rates)
        assert outside.at_edge
        assert "at the edge of the rates tried" in outside.message
    assert not tune(0.7).at_edge


def test_a_race_tries_few_rates_on_all_problems_and_finds_the_same(key):
    rates = np.linspace(0.05, 1.95, 20).tolist()
    tune = lambda first: tune_rate(
        SGD, Bowls(1.5), key, steps=3, problems=50, rates=rates, first=first, at=(1,)
    )
    race, whole = tune(4), tune(50)
    seen = sorted(race.trials.seen)
    assert seen[-module.FINALISTS :] == [50] * module.FINALISTS
    assert seen[:10] == [4] * 10
    for step in (1, 3):
        assert race.at(step).rate == whole.at(step).rate
        assert race.at(step).value == whole.at(step).value


def test_what_diverges_on_a_rare_problem_is_not_chosen(key):
    """The rates that lead on the common problems all diverge on the steep ones."""
    rates = np.linspace(0.01, 1.0, 12).tolist()
    options = {"steps": 40, "problems": 64, "rates": rates, "first": 1}
    tuned = tune_rate(SGD, Bowls(100.0), key, **options)
    assert tuned.rate == pytest.approx(0.01)
    assert np.isfinite(tuned.value)
    assert np.isinf(tune_rate(SGD, Bowls(1e6), key, **options).value)


def test_the_median_cares_less_for_what_diverges(key):
    tuned = tune_rate(
        SGD, Bowls(100.0), key, steps=40, problems=64, rates=(0.01, 0.5, 3.0), choose=np.median
    )
    assert tuned.rate == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": (0.1, 0.0)}, "positive numbers are needed"),
        ({"rates": ()}, "positive numbers are needed"),
        ({"decays": (0.9,)}, "SGD has no decay to tune"),
        ({"at": (5,)}, "steps from 0 to steps=4"),
    ],
)
def test_refused(key, options, message):
    with pytest.raises(ValueError, match=message):
        tune_rate(SGD, Bowls(), key, steps=4, **options)
    with pytest.raises(ValueError, match="numbers from 0 to below 1"):
        tune_rate(MOMENTUM, Bowls(), key, steps=4, decays=(1.0,))


def test_other_steps_than_those_looked_at_are_refused(key):
    tuned = tune_rate(SGD, Bowls(), key, steps=2, problems=2, rates=(0.1,))
    with pytest.raises(ValueError, match=r"looked at the steps 2\. Give one of them"):
        tuned.at(1)

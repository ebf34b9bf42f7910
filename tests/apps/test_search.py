"""The searches: what they spend, and that they give the rivals their due."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad.apps.model import Metrics, Network, draw_problem
from hindgrad.apps.table import Table
from hindgrad.apps.tune import search as module
from hindgrad.apps.tune.search import RANGES, Space, search
from hindgrad.apps.tune.trials import Trial

NETWORK = Network((1, 1, 1, 2), "classification", 10, 4)


@pytest.fixture
def trained(monkeypatch):
    """A stand-in for training: a noisy bowl around rate 1, blowing up above it. Counts calls."""
    calls = []

    def one(hyper, key):
        log_rate = float(hyper["rate"].mean())
        noise = 0.05 * float(jax.random.normal(key))
        loss = float("nan") if log_rate > 0.5 else (log_rate + 1) ** 2 + noise
        calls.append((log_rate, loss))
        return Trial(Metrics(*map(jnp.float32, (loss, 0, 0, 0))), [])

    def trials(problem, hypers, keys):
        return [one(hyper, key) for hyper, key in zip(hypers, keys, strict=True)]

    def mean(problem, hyper, keys):
        return float(np.mean([t.valid_loss for t in trials(problem, [hyper] * len(keys), keys)]))

    monkeypatch.setattr(module, "trials", trials)
    monkeypatch.setattr(module, "mean_valid_loss", mean)
    return calls


def tiny_problem():
    """Only passed on to the stand-in."""
    x, y = np.zeros((30, 1), np.float32), (np.arange(30) % 2).astype(np.int32)
    table = Table("tiny", x, y, "classification", ("a", "b"), ("x",), "y")
    return draw_problem(table, NETWORK, test=0.2, valid=0.2, seed=0)[0]


def run(sampler, key, budget=60, per_layer=True, start=None):
    draws = list(jax.random.split(jax.random.fold_in(key, 9), 5))
    space = Space(per_layer, 3, knots=4)
    return search(
        sampler,
        space,
        tiny_problem(),
        start or NETWORK.defaults(),
        budget=budget,
        draws=draws,
        key=key,
    )


@pytest.mark.parametrize("sampler", ["random", "TPE"])
@pytest.mark.parametrize("per_layer", [False, True])
def test_a_search_spends_exactly_its_budget_and_finds_the_bowl(trained, key, sampler, per_layer):
    found = run(sampler, key, per_layer=per_layer)
    assert len(trained) == found.trainings == 60
    assert float(found.hyper["rate"].mean()) == pytest.approx(-1, abs=0.6)
    assert found.incumbents[0][0] == 1
    assert found.incumbents[-1][0] == 60


@pytest.mark.parametrize("budget", [1, 3, 7, 19])
def test_small_budgets_are_kept(trained, key, budget):
    run("random", key, budget=budget)
    assert len(trained) == budget


@pytest.mark.parametrize("sampler", ["random", "TPE"])
def test_a_search_is_decided_by_its_key(trained, key, sampler):
    one, two = run(sampler, key, budget=20), run(sampler, key, budget=20)
    other = run(sampler, jax.random.fold_in(key, 1), budget=20)
    np.testing.assert_array_equal(one.hyper["rate"], two.hyper["rate"])
    assert trained[:20] == trained[20:40]
    assert not np.array_equal(one.hyper["rate"], other.hyper["rate"])


def test_the_first_trial_is_the_start(trained, key):
    run("TPE", key, budget=5)
    assert trained[0][0] == pytest.approx(float(np.log(0.1)))


def test_the_answer_is_chosen_on_the_draws_given(trained, key):
    found = run("random", key, budget=40)
    again = trained[-10:]
    assert found.value == pytest.approx(
        min(np.mean([v for _, v in again[i : i + 5]]) for i in (0, 5))
    )


def test_a_space_names_each_scalar_and_expands_to_all_knots():
    assert list(Space(False, 3, knots=1).names) == list(RANGES)
    assert list(Space(False, 3, knots=5).names) == [*RANGES, "fall"]
    space = Space(True, 2, knots=5)
    assert len(space.names) == 9
    point = {name: float(i) for i, name in enumerate(space.names)}
    hyper = space.hyper(point)
    assert hyper["rate"].shape == (5, 2)
    assert hyper["rate"][2].tolist() == [0.0, 1.0]
    assert hyper["decay"][3].tolist() == [2.0, 3.0]
    assert hyper["scale"].tolist() == [6.0, 7.0]


def test_the_rate_falls_by_one_number(key):
    """The log of the last ÷ the first, over all layers alike; the start's is found again."""
    space = Space(False, 3, knots=4)
    point = {"rate": -1.0, "decay": 2.0, "weight_decay": -9.0, "scale": 0.0, "fall": -3.0}
    rate = space.hyper(point)["rate"]
    np.testing.assert_allclose(rate[-1] - rate[0], -3.0, rtol=1e-6)
    np.testing.assert_allclose(jnp.diff(rate, axis=0), -1.0, rtol=1e-6)
    assert space.point(space.hyper(point)) == pytest.approx(point, rel=1e-6)


def test_the_start_is_brought_into_the_space():
    hyper = NETWORK.defaults()
    hyper["rate"] = hyper["rate"] + 100
    point = Space(False, 3, knots=4).point(hyper)
    assert point["rate"] == RANGES["rate"][1]
    assert point["decay"] == pytest.approx(np.log(9), rel=1e-6)

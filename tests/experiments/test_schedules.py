"""Learned schedules: the training, both ways of tuning, the search, and the words."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models
from experiments.maclaurin2015 import schedules as experiment
from experiments.maclaurin2015 import schedules_report as report
from experiments.maclaurin2015.schedules_problem import initialiser, natural
from experiments.maclaurin2015.schedules_tuning import RANGES, authors_adam
from experiments.search import search
from hindgrad.apps import datasets
from hindgrad.objective import init_key

SMALL = experiment.SMALL
MAIN = f"{report.THEIRS} 0.5"


def test_everything_is_written_and_nothing_else(written):
    assert written == {"learned.png", "tuning.png", "outcome.png", "table.csv"}


def test_the_paper_tunes_1608_numbers():
    count = lambda form: sum(
        leaf.size for leaf in jax.tree.leaves(form.start(log_rate=-1.0, decay=0.5, log_scale=-3.0))
    )
    assert count(experiment.each_step(experiment.DEFAULT)) == 1608
    assert count(experiment.few_knots(experiment.DEFAULT)) == 56
    assert experiment.FULL == experiment.DEFAULT


def test_the_start_stays_where_it_is():
    for form in (experiment.each_step(SMALL), experiment.few_knots(SMALL)):
        found = natural(form, form.start(log_rate=-1.0, decay=0.5, log_scale=-3.0))
        for name, value, shape in (
            ("rate", np.exp(-1), (6, 2)),
            ("decay", 0.5, (6, 2)),
            ("scale", np.exp(-3), (2,)),
        ):
            np.testing.assert_allclose(found[name], np.full(shape, value), rtol=1e-5)


def test_the_first_outer_loss_is_that_of_a_loop_by_hand(results):
    split = models.in_order("digits", SMALL.rows, SMALL.rows, SMALL.rows)
    key = jax.random.fold_in(jax.random.key(SMALL.seed), 0)
    scales = [dict.fromkeys("wb", jnp.float32(SMALL.log_scale))]
    params = initialiser((64, 10))({"log_scale": scales}, init_key(key))
    batches = models.Sampled(split.train, key, SMALL.batch)
    gradient = jax.jit(jax.grad(models.nll))
    velocity = jax.tree.map(jnp.zeros_like, params)
    for t in range(SMALL.steps):
        grads = gradient(params, batches(jnp.int32(t)).data)
        velocity = jax.tree.map(lambda v, g: 0.5 * v - 0.5 * g, velocity, grads)
        params = jax.tree.map(lambda p, v: p + np.exp(-1.0) * v, params, velocity)
    (run,) = results["authors"]["runs"][MAIN]
    assert run["outer"][0] == pytest.approx(float(models.nll(params, split.train)), rel=1e-5)


def test_what_one_seed_was_tuned_for_it_does_with_that_seed(results):
    """Judged by plain training in float32, tuned by training that is run backwards."""
    (run,) = results["comparison"]["runs"]
    for name in (report.EACH_FIXED, report.FEW_FIXED):
        arm = run["arms"][name]
        np.testing.assert_allclose(arm["own"]["valid"], min(arm["outer"]), rtol=1e-4)
        assert arm["outer"][-1] < arm["outer"][0]
        assert arm["judged"]["valid"] != pytest.approx(arm["own"]["valid"], rel=1e-4)


def test_all_ways_begin_at_the_same_loss(results):
    (run,) = results["comparison"]["runs"]
    arms = run["arms"]
    assert set(arms) == set(report.COLORS)
    for one, other in (
        (report.EACH_FIXED, report.FEW_FIXED),
        (report.EACH_FRESH, report.FEW_FRESH),
    ):
        np.testing.assert_allclose(arms[one]["outer"][0], arms[other]["outer"][0], rtol=1e-4)
    np.testing.assert_allclose(
        arms[report.START]["own"]["valid"], arms[report.EACH_FIXED]["outer"][0], rtol=1e-4
    )


def test_costs_in_trainings(results):
    (run,) = results["comparison"]["runs"]
    cost = {name: arm["trainings"] for name, arm in run["arms"].items()}
    assert cost[report.EACH_FIXED] == cost[report.FEW_FIXED] == 4 * 3
    assert cost[report.EACH_FRESH] == cost[report.FEW_FRESH] == cost[report.LATE] == 4 * 3 + 15
    assert (cost[report.START], cost[report.EARLY]) == (0, SMALL.early)


def test_the_authors_adam_is_that_of_their_formula():
    grads = np.random.default_rng(0).normal(size=(6, 3))
    optimizer, x, expected = authors_adam(0.04), jnp.zeros(3), np.zeros(3)
    state, mean, square = optimizer.init(x), np.zeros(3), np.zeros(3)
    for i, g in enumerate(grads):
        updates, state = optimizer.update(jnp.asarray(g, jnp.float32), state)
        x = jax.tree.map(jnp.add, x, updates)
        share = 1 - 0.9 * 1e-4**i
        mean = share * g + (1 - share) * mean
        square = 0.01 * g**2 + 0.99 * square
        step = mean / (1 - 0.9 ** (i + 1)) / (np.sqrt(square / (1 - 0.99 ** (i + 1))) + 1e-4)
        expected -= 0.04 * step
    np.testing.assert_allclose(x, expected, rtol=1e-3)


def test_a_search_counts_its_trainings_and_looks_again():
    """The first draws favour one corner, the later ones are honest; some trainings blow up."""
    start = {"log_rate": -1.0, "decay": 0.5, "log_scale": -3.0}
    asked = []

    def value(point, draw):
        asked.append((draw, dict(point)))
        honest = (point["log_rate"] + 1.5) ** 2 + abs(point["decay"] - 0.6)
        if draw < 30:
            return float("nan") if point["log_rate"] > 2 else honest - 5 * (draw == 20)
        return honest

    found = search(value, start, RANGES, early=10, trials=30, finalists=4, further=2, seed=0)
    draws = [draw for draw, _ in asked]
    assert draws == [*range(30), *(30, 31) * 4]
    assert asked[0][1] == start
    for name, (low, high) in RANGES.items():
        assert all(low <= point[name] <= high for _, point in asked)
    honest = lambda point: value(point, 30)
    first = min((point for _, point in asked[:10]), key=honest)
    finalists = [point for _, point in asked[30:38:2]]
    assert found.early == first
    assert asked[20][1] in finalists
    assert found.late == min(finalists, key=honest)


def test_rows_in_the_data_sets_own_order():
    data = datasets.load("digits")
    found = models.in_order("digits", 5, 4, 3)
    for part, rows in ((found.train, range(5)), (found.valid, range(5, 9))):
        np.testing.assert_array_equal(part.y, data.y[list(rows)])
    np.testing.assert_array_equal(found.test.y, data.y[9:12])
    np.testing.assert_allclose(found.train.x.mean(axis=0), 0, atol=1e-6)
    with pytest.raises(ValueError, match="'digits' has not 1000 \\+ 500 \\+ 500 training rows"):
        models.in_order("digits", 1000, 500, 500)


def test_the_words_follow_the_figures(results):
    def told(losses):
        runs = []
        for seed in range(3):
            (run,) = results["comparison"]["runs"]
            arms = {
                name: arm | {"judged": arm["judged"] | {"test": losses[name] + 0.01 * seed}}
                for name, arm in run["arms"].items()
            }
            runs.append({"seed": seed, "arms": arms})
        return " ".join(experiment.report.summary(results | {"comparison": {"runs": runs}}))

    names = list(report.COLORS)
    rising = told(dict(zip(names, itertools.count(1), strict=False)))
    falling = told(dict(zip(reversed(names), itertools.count(1), strict=False)))
    assert f"best first: {names[0]} 1.0100, {names[1]} 2.0100" in rising
    assert f"best first: {names[-1]} 1.0100, {names[-2]} 2.0100" in falling
    pair = f"{report.FEW_FRESH} minus {report.EACH_FRESH}"
    assert f"{pair} +2.0000 [+2.0000, +2.0000], lower on 0 of 3" in rising
    assert f"{pair} -2.0000 [-2.0000, -2.0000], lower on 3 of 3" in falling


def test_the_authors_figures_stand_beside_mnist_only(results):
    assert "authors' 0.5314" not in " ".join(experiment.report.summary(results))
    on_mnist = results | {"call": results["call"] | {"data": "mnist"}}
    assert "authors' 0.5314" in " ".join(experiment.report.summary(on_mnist))

"""The problem that is tuned: its splits, its standardisation, its training."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad.apps.model import CLIP, Form, Network, draw_problem, predict
from hindgrad.apps.table import Table
from hindgrad.apps.tune.hyperfile import every_step, from_units, to_units

NETWORK = Network((3, 8, 3), "classification", 20, 16)


def small_table(rows=100, kind="classification", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3)).astype(np.float32)
    y = (np.arange(rows) ** 2 % 3).astype(np.int32)
    if kind == "regression":
        y = (100 + 7 * x[:, 0]).astype(np.float32)
    classes = ("a", "b", "c") if kind == "classification" else ()
    return Table("small", x, y, kind, classes, ("p", "q", "r"), "y")


def draw(table=None, network=NETWORK, seed=0):
    return draw_problem(table or small_table(), network, test=0.2, valid=0.2, seed=seed)[0]


def rows_of(*parts):
    """The rows as a multiset."""
    return sorted(tuple(row) for part in parts for row in np.asarray(part.x).tolist())


def test_every_part_of_a_split_holds_the_classes_in_proportion(key):
    problem = draw()
    train, valid = problem.split(key)
    counts = np.bincount(small_table().y)
    for part, share in ((problem.test, 0.2), (valid, 0.2), (train, 0.6)):
        assert np.abs(np.bincount(part.y) - share * counts).max() <= 1


def test_a_split_uses_every_row_of_the_pool_once(key):
    problem = draw()
    assert rows_of(*problem.split(key)) == rows_of(problem.pool)
    assert len(problem.pool.y) + len(problem.test.y) == 100


def test_every_key_draws_another_split_and_every_seed_another_test_set(key):
    problem = draw()
    other = jax.random.fold_in(key, 1)
    assert rows_of(problem.split(key)[1]) == rows_of(problem.split(key)[1])
    assert rows_of(problem.split(key)[1]) != rows_of(problem.split(other)[1])
    assert rows_of(problem.test) == rows_of(draw(seed=0).test)
    assert rows_of(problem.test) != rows_of(draw(seed=1).test)


def test_nothing_that_is_trained_on_depends_on_the_test_rows():
    table = small_table()
    problem = draw(table)
    standard = draw_problem(table, NETWORK, test=0.2, valid=0.2, seed=0)[1]
    test_rows = np.asarray(problem.test.x) * standard.std + standard.mean
    tested = np.isclose(table.x[:, None], test_rows[None], atol=1e-5).all(-1).any(-1)
    assert tested.sum() == len(problem.test.y)
    changed = table.x.copy()
    changed[tested] += 100.0
    other = draw(replace(table, x=changed))
    np.testing.assert_array_equal(problem.pool.x, other.pool.x)
    assert np.asarray(other.test.x).max() == CLIP


def test_features_are_standardised_and_constant_ones_left_at_zero():
    table = small_table()
    table.x[:, 1] = 5.0
    pool = np.asarray(draw(table).pool.x)
    np.testing.assert_allclose(pool.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(pool.std(0), [1, 0, 1], atol=1e-5)


def test_initial_scales_scale_the_layers(key):
    problem = draw()
    hyper = NETWORK.defaults()
    doubled = {**hyper, "scale": jnp.log(jnp.array([2.0, 1.0]))}
    one = problem.objective.init(hyper, key)
    two = problem.objective.init(doubled, key)
    np.testing.assert_allclose(two[0]["w"], 2 * one[0]["w"], rtol=1e-6)
    np.testing.assert_allclose(two[1]["w"], one[1]["w"], rtol=1e-6)


def test_schedules_have_a_value_for_each_layer_in_each_window():
    network = replace(NETWORK, form=Form("windows", 10))
    problem = draw(network=network)
    rates = np.arange(1.0, 21).reshape(10, 2)
    hyper = {**network.defaults(), "rate": jnp.log(jnp.asarray(rates, jnp.float32))}
    taken = [problem.rate(hyper, jnp.int32(t)) for t in range(20)]
    np.testing.assert_allclose(taken, np.repeat(rates, 2, axis=0), rtol=1e-5)
    np.testing.assert_allclose(problem.decay(hyper, jnp.int32(3)), [0.9, 0.9], rtol=1e-6)


@pytest.mark.parametrize(("name", "first", "last"), [("linear", 0.1, 0.4), ("spline", 0.1, 0.4)])
def test_schedules_along_lines_go_from_knot_to_knot(name, first, last):
    network = replace(NETWORK, form=Form(name, 2))
    hyper = network.defaults() | {"rate": jnp.log(jnp.array([[first, 0.1], [last, 0.1]]))}
    problem = draw(network=network)
    taken = [problem.rate(hyper, jnp.int32(t))[0] for t in range(20)]
    np.testing.assert_allclose(taken, np.geomspace(first, last, 20), rtol=1e-5)
    shown = every_step(hyper, network)
    np.testing.assert_allclose(shown["rate"][:, 0], taken, rtol=1e-6)
    np.testing.assert_allclose(shown["decay"], np.full((20, 2), 0.9), rtol=1e-6)


def test_the_training_loss_adds_each_layers_weight_decay(key):
    problem = draw()
    hyper = {**NETWORK.defaults(), "weight_decay": jnp.log(jnp.array([0.5, 0.25]))}
    training = problem.training(key)
    params = problem.objective.init(hyper, key)
    batch = training.batches(jnp.int32(0))
    squares = [float(jnp.sum(layer["w"] ** 2)) for layer in params]
    expected = problem.fit(params, batch.data) + 0.5 * squares[0] + 0.25 * squares[1]
    np.testing.assert_allclose(problem.loss(params, hyper, batch), expected, rtol=1e-6)


def test_the_objective_scores_the_validation_rows_of_its_own_split(key):
    problem = draw()
    run = problem.objective.run(NETWORK.defaults(), key)
    valid = problem.split(key)[1]
    outputs = predict(run.params, valid.x)
    right = jax.nn.log_softmax(outputs)[np.arange(len(valid.y)), valid.y]
    np.testing.assert_allclose(problem.objective(NETWORK.defaults(), key), -right.mean(), rtol=1e-5)


def test_a_regressions_error_is_in_the_targets_units(key):
    table = small_table(kind="regression")
    problem = draw(table, Network((3, 8, 1), "regression", 20, 16))
    params = [
        {"w": jnp.zeros((3, 8)), "b": jnp.zeros(8)},
        {"w": jnp.zeros((8, 1)), "b": jnp.zeros(1)},
    ]
    metrics = problem.metrics(params, key)
    assert float(metrics.valid_error) == pytest.approx(table.y.std(), rel=0.3)
    assert float(metrics.valid_loss) == pytest.approx(1.0, rel=0.6)


def test_hyperparameters_survive_the_way_to_units_and_back():
    hyper = {name: value - 0.3 for name, value in NETWORK.defaults().items()}
    there = to_units(hyper)
    assert there["rate"][0][0] == pytest.approx(0.1 * np.exp(-0.3))
    back = from_units(there)
    for name in hyper:
        np.testing.assert_allclose(back[name], hyper[name], rtol=1e-6)


def test_classes_of_three_rows_are_in_every_part(key):
    table = small_table()
    table.y[:] = 0
    table.y[:3] = 1
    table.y[3:6] = 2
    problem = draw(table)
    train, valid = problem.split(key)
    for part in (train, valid, problem.test):
        assert set(np.asarray(part.y).tolist()) == {0, 1, 2}

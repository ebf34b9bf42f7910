"""Which inputs suit a table, and the networks that are kept."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from hindgrad.apps.model import RATES, Network, draw_problem
from hindgrad.apps.saved import load, softmax
from hindgrad.apps.splits import set_aside
from hindgrad.apps.table import Table
from hindgrad.apps.tables import bends
from hindgrad.apps.tune.inputs import bending, suited
from hindgrad.apps.tune.keep import keep, lasting, model_of, of_all, refits

PARTS = {"test": 0.2, "valid": 0.2, "seed": 0}


def table_of(function, kind="regression", columns=2, rows=240):
    x = np.random.default_rng(1).normal(size=(rows, columns))
    y = function(x)
    classes = ("low", "high") if kind == "classification" else ()
    y = y.astype(np.int32) if classes else y.astype(np.float64)
    return Table("t", x, y, kind, classes, tuple("abcdefghijklmnop"[:columns]), "y")


def network_of(table):
    outputs = len(table.classes) or 1
    return Network((table.encoder.width, 16, outputs), table.kind, 120, 32)


def chosen(table):
    network = network_of(table)
    draws = list(jax.random.split(jax.random.key(3), 3))
    problem = lambda network: draw_problem(table, network, **PARTS)[0]
    return suited(network, table, network.defaults(), draws, problem)


def test_numbers_are_bent_where_that_validates_better():
    curved = table_of(lambda x: np.sin(3 * x[:, 0]) + np.exp(2 * x[:, 1]) / 50)
    assert chosen(curved).bent == (0, 1)
    plane = table_of(lambda x: x @ np.linspace(-1, 1, 16), columns=16, rows=60)
    assert chosen(plane).bent == ()


def test_what_cannot_be_bent_is_left(monkeypatch):
    table = table_of(lambda x: x[:, 0])
    few = replace(table, x=np.round(np.clip(table.x, -2, 2)))
    assert few.bendable == ()
    assert few.inputs == few.encoder.width == 2
    assert replace(table, image=(1, 2)).bendable == ()
    wide = table_of(lambda x: x[:, 0], columns=16)
    many = replace(
        wide, x=np.tile(wide.x, 5), features=tuple(f"x{i}" for i in range(80)), columns=()
    )
    assert many.bendable == ()
    monkeypatch.setattr(bends, "MOST_NUMBERS", 240 * bends.added(2) - 1)
    assert replace(table, name="again").bendable == ()


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_the_kept_networks_answer_by_their_mean(kind, tmp_path):
    target = lambda x: x[:, 0] > 0 if kind == "classification" else 100 + 7 * x[:, 0]
    table = table_of(target, kind)
    network = bending(network_of(table), table)
    problem, standard = draw_problem(table, network, **PARTS)
    hyper = network.defaults()
    told = keep(tmp_path / "model", table, problem, standard, hyper, seed=0)
    assert told["bent"]
    assert 1 < told["networks"] <= 4
    model = load(tmp_path)
    _, tested = set_aside(table, PARTS["test"], PARTS["seed"])
    rows = model.code(table.x[tested])
    answers = model.outputs(rows)
    if kind == "classification":
        right = table.y[tested]
        np.testing.assert_allclose(softmax(answers).sum(axis=1), 1)
        loss = -answers[np.arange(len(right)), right].mean()
        error = (answers.argmax(axis=1) != right).mean()
    else:
        right = (table.y[tested] - standard.target_mean) / standard.target_std
        loss = np.mean((answers[:, 0] - right) ** 2)
        error = standard.target_std * loss**0.5
    np.testing.assert_allclose([told["test_loss"], told["test_error"]], [loss, error], rtol=1e-4)
    alone = [replace(model, networks=(one,)).outputs(rows) for one in model.networks]
    assert all(np.abs(one - answers).max() > 1e-4 for one in alone)
    if kind == "classification":
        alone, answers = [softmax(one) for one in alone], softmax(answers)
    np.testing.assert_allclose(answers, sum(alone) / len(alone), rtol=1e-9)


def test_bent_numbers_do_not_depend_on_the_rows_to_test_on():
    table = table_of(lambda x: x[:, 0])
    _, tested = set_aside(table, PARTS["test"], PARTS["seed"])
    x = table.x.copy()
    x[tested] += 5.0
    both = table, replace(table, x=x)
    network = bending(network_of(table), table)
    one, other = (draw_problem(table, network, **PARTS)[0] for table in both)
    np.testing.assert_array_equal(one.pool.x, other.pool.x)
    assert np.abs(one.test.x - other.test.x).max() > 1


def test_training_lasts_longer_where_that_validates_better():
    """Of a plane seen through noise more steps learn the noise; of waves, the waves."""
    noise = np.random.default_rng(2).normal(size=240)
    for function, times in (
        (lambda x: x[:, 0] + 3 * noise, 1),
        (lambda x: np.sin(5 * x[:, 0]), 3),
    ):
        table = table_of(function)
        network = network_of(table)
        problem, _ = draw_problem(table, network, **PARTS)
        found = lasting(problem, network.defaults(), jax.random.key(1)).network
        assert found.steps == times * network.steps
        rate = lambda network: network.schedule(RATES)(
            network.defaults()["rate"], network.steps - 1
        )
        np.testing.assert_allclose(rate(found), rate(network), rtol=1e-6)


def test_a_network_that_does_not_fit_is_left_out(monkeypatch):
    table = table_of(lambda x: x[:, 0])
    network = network_of(table)
    problem, standard = draw_problem(table, network, **PARTS)
    key = jax.random.key(0)
    all_ = refits(problem, network.defaults(), key)
    bad = replace(all_[-1], metrics=all_[-1].metrics._replace(valid_loss=np.float32(np.nan)))
    monkeypatch.setattr("hindgrad.apps.tune.keep.trials", lambda *_: [bad, *all_[:3]])
    assert all(trial is not bad for trial in refits(problem, network.defaults(), key))
    assert len(model_of(table, standard, all_[:2], {}).networks) == 2
    losses = [of_all(problem, [trial], problem.test)[0] for trial in all_]
    assert of_all(problem, all_, problem.test)[0] <= np.mean(losses) + 1e-9

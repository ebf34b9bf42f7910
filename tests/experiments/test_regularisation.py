"""Penalties: what they are of, how finely, what is tuned, and what is written."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
from experiments.maclaurin2015 import regularisation as experiment
from experiments.maclaurin2015 import regularisation_report as report
from experiments.models import nll, split
from hindgrad.objective import init_key

SMALL = experiment.SMALL


@pytest.fixture(scope="module")
def drawn():
    model = SMALL.network
    return split("digits", model.train, model.valid, SMALL.test, 0)


@pytest.fixture(scope="module")
def layers(drawn):
    return experiment.Penalised(drawn, SMALL.network, experiment.same).initial(jax.random.key(5))


def test_everything_is_written_and_nothing_else(written):
    names = {"penalties-logistic.png", "penalties-network.png", "regularisation.png", "table.csv"}
    assert written == names


def test_what_is_tuned(results):
    (run,) = results["runs"]
    inputs, hidden, classes = 64, 8, 10
    every = (inputs + 1) * hidden + (hidden + 1) * classes
    counts = {way: found.get("count") for way, found in run["network"].items()}
    assert counts == {
        report.NONE: None,
        report.START: None,
        report.SHARED: 1,
        report.WEIGHT: every,
        report.FRESH: every,
    }
    assert run["logistic"][report.AUTHORS]["count"] == (inputs + 1) * classes
    for way in (report.SHARED, report.WEIGHT, report.AUTHORS):
        history = run["logistic"][way]["history"]
        assert len(history) == SMALL.logistic.steps_outer
        assert history[-1] < history[0]
        assert run["logistic"][way]["test"] != run["logistic"][report.START]["test"]
    assert np.shape(run["logistic"][report.WEIGHT]["maps"]) == (10, 64)
    assert np.shape(run["network"][report.WEIGHT]["maps"]) == (hidden, 64)


def test_penalties_of_all_grains(layers):
    """At the same value they are one; each concerns its own weights only."""
    squares = sum(float(jnp.sum(w**2)) for w in jax.tree.leaves(layers))
    count = lambda grain: sum(leaf.size for leaf in jax.tree.leaves(grain(layers, jnp.log(0.3))))
    counts = [count(grain) for grain in experiment.GRAINS.values()]
    assert counts == [1, 2, 8 + 10, (64 + 1) * 8 + (8 + 1) * 10]
    for grain in experiment.GRAINS.values():
        found = experiment.penalty(grain(layers, jnp.log(0.3)), layers)
        assert float(found) == pytest.approx(0.3 * squares, rel=1e-5)
    nothing = experiment.penalty(jnp.array(-jnp.inf), layers)
    assert float(nothing) == 0
    own = jax.grad(experiment.penalty)(
        experiment.GRAINS["one per unit"](layers, jnp.log(0.3)), layers
    )
    for grads, layer in zip(own, layers, strict=True):
        expected = 0.3 * (jnp.sum(layer["w"] ** 2, axis=0) + layer["b"] ** 2)
        np.testing.assert_allclose(grads, expected, rtol=1e-5)


@pytest.mark.slow
def test_the_hypergradient_of_one_step_is_the_closed_form(drawn):
    """One damped step: w' = w − α (1 − β) (g + 2 exp(l) w), so that the derivative of the score by
    l is −α (1 − β) 2 exp(l) w times the score's gradient."""
    model = dataclasses.replace(SMALL.network, steps=1, log_scale=-1.0)
    penalised, key = experiment.Penalised(drawn, model, experiment.same), jax.random.key(8)
    begin, objective = penalised.start(report.WEIGHT), penalised.objective()
    found = jax.grad(lambda log_l2: objective(log_l2, key, adjoint=hg.Reversible()))(begin)
    layers = penalised.initial(init_key(key))
    after = objective.run(begin, key).params
    slopes = jax.grad(nll)(after, drawn.valid)
    factor = -model.rate * (1 - model.decay) * 2 * model.l2
    expected = jax.tree.map(lambda slope, w: factor * slope * w, slopes, layers)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-9)


def test_dividing_anew(drawn):
    """All images are in one part, with their labels, and others for another key."""
    pool = np.concatenate([drawn.train.x, drawn.valid.x])
    labels = np.concatenate([drawn.train.y, drawn.valid.y])
    train, valid = experiment.anew(drawn, jax.random.key(0))
    assert (len(train.y), len(valid.y)) == (SMALL.network.train, SMALL.network.valid)
    sort = lambda x, y: np.column_stack([x, y])[np.lexsort(np.column_stack([x, y]).T)]
    x, y = (np.concatenate([getattr(part, name) for part in (train, valid)]) for name in "xy")
    np.testing.assert_array_equal(sort(x, y), sort(pool, labels))
    other, _ = experiment.anew(drawn, jax.random.key(1))
    assert (np.asarray(train.x) != np.asarray(other.x)).any()
    same = experiment.same(drawn, jax.random.key(1))
    assert same[0] is drawn.train
    assert same[1] is drawn.valid


def test_maps_are_of_the_units_with_the_lowest_penalties():
    w = jnp.tile(jnp.arange(12.0)[::-1], (9, 1))
    found = experiment.maps([{"w": w, "b": jnp.zeros(12)}], 9)
    assert np.array(found)[:, 0].tolist() == list(range(11 - 2, -1, -1))
    assert experiment.maps(jnp.array(1.0), 9) == experiment.maps([jnp.zeros(12)], 9) == []


def test_the_words_follow_the_figures(results):
    """Of finer penalties that fit the validation images, and of some that do not."""
    network = results["runs"][0]["network"]
    network[report.SHARED] |= {"valid": 0.5, "test": 0.5}
    for test, words in (
        (0.52, "has fitted the validation images by 0.120 more"),
        (0.4, "has not fitted the validation images more"),
    ):
        network[report.WEIGHT] |= {"valid": 0.4, "test": test}
        lines = experiment.report.summary(results)
        (line,) = [line for line in lines if line.startswith("Network, test loss less")]
        assert words in line
        (against,) = [line for line in lines if f"Network, {report.WEIGHT} against" in line]
        assert f"test loss {test - 0.5:+.3f}" in against


def test_the_full_settings_are_the_authors():
    model = experiment.FULL.logistic
    assert (model.steps, model.batch, model.rate, model.decay) == (50, 200, 1.0, 0.9)
    assert (model.train, model.valid, experiment.FULL.authors_rate) == (10_000, 10_000, 1000.0)
    assert experiment.total(SMALL) == 3 * 20 * 6 + 3 * 20 * 3

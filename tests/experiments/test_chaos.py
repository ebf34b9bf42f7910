"""Chaos: the scan of learning rates, the tunings above the edge, and what is said of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
from experiments.maclaurin2015 import chaos as experiment
from experiments.maclaurin2015 import chaos_report as report
from experiments.maclaurin2015.chaos_report import EVOLUTION, EXACT, PERSISTENT

SMALL = experiment.SMALL


def test_everything_is_written_and_nothing_else(written, finished):
    assert written == {"chaos-rates.png", "chaos-above.png", "rates.csv"}
    assert len((finished / "rates.csv").read_text().splitlines()) == 1 + SMALL.values


@pytest.mark.slow
def test_the_scan_is_that_of_the_written_out_run(results):
    """Damped momentum by hand, from the authors' random numbers, batches in order."""
    data = experiment.images(SMALL)
    sizes = [(64, 8), (8, 10)]
    random = np.random.RandomState(SMALL.seed)
    random.randn(sum((a + 1) * b for a, b in sizes))
    start = [{"w": random.randn(a, b), "b": random.randn(b)} for a, b in sizes]
    start = jax.tree.map(lambda x: jnp.asarray(x * np.exp(SMALL.log_scale), jnp.float32), start)

    def nll(params, rows):
        hidden = jnp.tanh(data.x[rows] @ params[0]["w"] + params[0]["b"][None])
        log_p = jax.nn.log_softmax(hidden @ params[1]["w"] + params[1]["b"][None])
        return -log_p[jnp.arange(len(rows)), data.y[rows]].mean()

    def loss(log_rate):
        params, velocity = start, jax.tree.map(jnp.zeros_like, start)
        for t in range(SMALL.steps):
            rows = np.arange(SMALL.batch) + t % (SMALL.rows // SMALL.batch) * SMALL.batch
            grads = jax.grad(nll)(params, rows)
            velocity = jax.tree.map(lambda v, g: 0.9 * v - 0.1 * g, velocity, grads)
            params = jax.tree.map(lambda p, v: p + jnp.exp(log_rate) * v, params, velocity)
        return nll(params, np.arange(SMALL.rows))

    value, slope = jax.value_and_grad(loss)(jnp.float32(SMALL.low))
    assert results["rates"]["loss"][0] == pytest.approx(float(value), rel=1e-4)
    assert results["rates"]["gradient"][0] == pytest.approx(float(slope), rel=1e-3)
    assert len(results["rates"]["loss"]) == SMALL.values


def test_a_run_that_leaves_the_range_has_no_hypergradient_and_a_reason(results):
    """The last log rate, 12."""
    rates = results["rates"]
    assert rates["gradient"][0] is not None
    assert rates["gradient"][-1] is None
    assert rates["left"][0] == ""
    assert "left the range" in rates["left"][-1]


def test_what_the_tunings_cost(results):
    """No arm spends more trainings than another is allowed to."""
    assert SMALL.costs() == {EXACT: 4, EVOLUTION: 3, PERSISTENT: 2.0}
    for arm, runs in results["above"].items():
        (found,) = runs
        assert len(found["values"]) == int(SMALL.trainings / SMALL.costs()[arm])
        assert len(found["log_rate"]) == SMALL.windows


def test_an_answer_is_judged_by_runs_around_it(results):
    """Answers are compared by the same runs, so that luck alone cannot win."""
    found = results["above"][EXACT][0]
    settings = SMALL
    plain = experiment.objective(settings, settings.seed)
    noise = jax.random.normal(
        jax.random.key(settings.seed), (experiment.NEIGHBOURS, settings.windows)
    )
    rates = jnp.asarray(found["log_rate"])[None] + settings.spread * noise
    logs = [np.log(plain({"log_rate": r})) for r in rates]
    assert found["answer"] == pytest.approx(float(np.mean(logs)), abs=1e-3)


@pytest.mark.parametrize("place", [1.2, 1.7])
def test_the_edge_of_a_scan_is_found(place):
    """A slope that is right up to a place, and anything beyond it."""
    x = np.linspace(0.5, 2.5, 1000)
    wild = np.random.default_rng(0).normal(size=1000)
    losses = np.where(x < place, np.exp(-x), np.exp(-x) + 0.1 * wild)
    gradients = np.where(x < place, -np.exp(-x), 1e3 * wild)
    assert report.scan_edge(x, losses, gradients) == pytest.approx(place, abs=0.06)
    assert report.scan_edge(x, np.exp(-x), -np.exp(-x)) is None


def test_the_words_go_with_the_results(results):
    def told(answers):
        for arm, answer in answers.items():
            results["above"][arm][0] |= {"start": -3.0, "answer": answer}
        return " ".join(experiment.report.summary(results))

    words = told({EXACT: -3.5, EVOLUTION: -5.5, PERSISTENT: -2.0})
    assert "`Evolution` improves on the start on 1 of 1 seeds, and beats the exact" in words
    assert "its loss is 7.4 times lower" in words
    assert "`PersistentEvolution` improves on the start on 0 of 1" in words
    assert "The exact hypergradient improves on the start on 1 of 1" in words
    results["edge"]["edge"] = None
    assert "none by `diagnose`" in told({EXACT: -1.0})


def test_the_settings_are_the_authors():
    default = experiment.DEFAULT
    assert (default.rows, default.batch, default.steps, default.decay) == (1000, 250, 50, 0.9)
    assert (default.low, default.high, default.values) == (0.5, 2.5, 1000)
    layers = experiment.weights(default, 0, 784, 10)
    assert [layer["w"].shape for layer in layers] == [(784, 200), (200, 50), (50, 10)]
    assert isinstance(default.adjoint(EXACT, 0), hg.Reversible)
    assert experiment.total(SMALL) == SMALL.values + 3 * (SMALL.trainings // 4)

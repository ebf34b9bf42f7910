"""Attribution beside its rivals: each against what it approximates, and what is reported."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from experiments.attribution import attribution_lds as experiment
from experiments.attribution import attribution_lds_report as report
from experiments.attribution import influence, trained
from experiments.attribution.networks import Convolutional, Dense, log_odds, losses
from experiments.models import Examples

SMALL = experiment.SMALL


@pytest.fixture(scope="module", params=SMALL.models, ids=lambda model: model.name)
def rows(request):
    return trained.draw(request.param, 3, 0)


def test_everything_is_written_and_nothing_else(written):
    assert written == {"lds.png", "single.csv", "halved.csv", "models.csv"}


def test_every_way_is_scored(results):
    of = lambda part: [(one["model"], one["way"]) for one in results[part]]
    dense, convolutions = (model.name for model in SMALL.models)
    assert of("single") == [(m, way) for m in (dense, convolutions) for way in report.WAYS]
    assert of("halved") == [(dense, way) for way in report.BY_HALVES]
    for one in results["single"] + results["halved"]:
        assert -1 <= one["low"] <= one["high"] <= 1
        assert -1 <= one["lds"] <= 1
        assert one["seconds"] > 0


def test_the_work_is_counted_before_it_is_done(results):
    assert experiment.total(SMALL) == len(results["single"]) + len(results["halved"])


def test_queries_are_no_training_rows(rows):
    parts = [{row.tobytes() for row in np.asarray(part.x)} for part in (rows.train, rows.test)]
    assert not parts[0] & parts[1]
    np.testing.assert_array_equal(rows.queries.x, rows.test.x[:3])


def test_hypergradients_foretell_a_removal(rows):
    key = jax.random.key(3)
    foretold = experiment.by_hypergradient(SMALL, rows, key)
    gone = np.zeros((1, len(rows.train)), bool)
    gone[0, np.argmax(np.abs(foretold[0]))] = True
    happened = trained.changes(rows, gone, key)[0]
    np.testing.assert_allclose(happened, foretold[:, gone[0]][:, 0], rtol=0.2, atol=2e-4)


def test_a_subset_of_all_rows_is_a_plain_training(rows):
    key = jax.random.key(4)
    whole = trained.of_subsets(rows, np.ones((1, len(rows.train)), bool), key)[0]
    params = trained.params(rows, jax.random.split(key, 1)[0])
    plain = log_odds(rows.model.network.logits(params, rows.queries.x), rows.queries)
    np.testing.assert_allclose(whole, plain, rtol=1e-4, atol=1e-5)


def test_log_odds_are_those_of_the_loss(rows):
    logits = rows.model.network.logits
    scores = logits(trained.params(rows, jax.random.key(0)), rows.test.x)
    p = np.exp(-np.asarray(losses(scores, rows.test), np.float64))
    np.testing.assert_allclose(log_odds(scores, rows.test), np.log(p / (1 - p)), atol=1e-3)


def test_gradients_of_rows_add_up_to_that_of_the_mean(rows):
    logits, params = rows.model.network.logits, trained.params(rows, jax.random.key(0))
    mean = jax.grad(lambda p: jnp.mean(losses(logits(p, rows.train.x), rows.train)))(params)
    alone = influence.gradients(losses, logits, params, rows.train)
    np.testing.assert_allclose(alone.mean(0), ravel_pytree(mean)[0], atol=1e-6)
    matrix = jax.random.normal(jax.random.key(1), (alone.shape[1], 2))
    found = influence.projected(losses, logits, params, rows.train, matrix)
    np.testing.assert_allclose(found, alone @ matrix, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def convex():
    """Logistic regression on five features with a penalty, trained until nothing moves."""
    x = jax.random.normal(jax.random.key(0), (40, 5))
    y = (jnp.arange(40) + (x[:, 0] > 0)) % 3
    rows, queries = (Examples(x[part], y[part]) for part in (slice(34), slice(34, 40)))
    return rows, queries, Dense(()).start(jax.random.key(1), (5,), 3)


def test_the_gauss_newton_matrix_of_logistic_regression_is_its_hessian(convex):
    rows, _, params = convex
    flat, unravel = ravel_pytree(params)
    logits = Dense(()).logits
    hessian = jax.hessian(lambda p: jnp.mean(losses(logits(unravel(p), rows.x), rows)))(flat)
    of = lambda v: influence.gauss_newton_product(logits, params, rows, v)
    np.testing.assert_allclose(jax.vmap(of)(jnp.eye(len(flat))), hessian, atol=1e-6)


def test_influence_functions_are_the_derivative_of_the_minimum(convex):
    """The query at the penalised minimum, with a little less of a row."""
    rows, queries, start = convex
    logits, penalty, less = Dense(()).logits, 0.3, 0.03
    flat, unravel = ravel_pytree(start)

    def minimum(weights):
        def loss(p):
            fit = jnp.mean(weights * losses(logits(unravel(p), rows.x), rows))
            return fit + penalty / 2 * jnp.vdot(p, p)

        step = lambda _, p: p - jnp.linalg.solve(jax.hessian(loss)(p), jax.grad(loss)(p))
        return unravel(jax.lax.fori_loop(0, 20, step, flat))

    asked = jax.jit(lambda w: log_odds(logits(minimum(w), queries.x), queries))
    ones, params = jnp.ones(34), minimum(jnp.ones(34))
    found = influence.influence_functions(
        logits, params, rows, queries, damping=penalty, iterations=50
    )
    for row in (0, 7):
        change = asked(ones.at[row].add(-less)) - asked(ones.at[row].add(less))
        np.testing.assert_allclose(found[:, row], change / (2 * less), rtol=0.02, atol=1e-4)


def test_trak_by_hand(convex):
    rows, queries, params = convex
    logits, key = Dense(()).logits, jax.random.key(2)
    found = influence.trak(logits, params, rows, queries, key=key, dimensions=4)
    projection = np.asarray(jax.random.normal(key, (18, 4))) / 2
    features, asked = (_log_odds_gradients(params, part) @ projection for part in (rows, queries))
    p = np.exp(-np.asarray(losses(logits(params, rows.x), rows)))
    scores = asked @ np.linalg.inv(features.T @ features) @ features.T * (1 - p)
    np.testing.assert_allclose(-found, scores, rtol=1e-3, atol=1e-6)


def _log_odds_gradients(params, rows):
    """Of linear scores, biases first: e_y − softmax over the others, times (1, x)."""
    scores = np.asarray(Dense(()).logits(params, rows.x), np.float64)
    own = np.eye(3)[np.asarray(rows.y)]
    others = np.exp(scores) * (1 - own)
    pulls = own - others / others.sum(1, keepdims=True)
    by_weight = np.asarray(rows.x)[:, :, None] * pulls[:, None]
    return np.concatenate([pulls, by_weight.reshape(len(pulls), -1)], 1)


def test_tracin_of_one_step_is_its_derivative(convex):
    """From the start, one step of gradient descent on the sum of the losses."""
    rows, queries, params = convex
    logits, rate = Dense(()).logits, 1e-5
    flat, unravel = ravel_pytree(params)

    def asked(weights):
        loss = lambda p: jnp.vdot(weights, losses(logits(unravel(p), rows.x), rows))
        stepped = unravel(flat - rate * jax.grad(loss)(flat))
        return log_odds(logits(stepped, queries.x), queries)

    found = influence.tracin(logits, [params], rows, queries)
    derivative = jax.jacobian(asked)(jnp.ones(34))
    np.testing.assert_allclose(found, -derivative / rate, rtol=0.01, atol=1e-2)


def test_convolutions_see_a_row_alone():
    network = Convolutional((2, 3))
    params = network.start(jax.random.key(0), (8, 8, 3), 4)
    x = jax.random.normal(jax.random.key(1), (5, 192))
    whole = network.logits(params, x)
    assert whole.shape == (5, 4)
    np.testing.assert_allclose(network.logits(params, x[2:3])[0], whole[2], atol=1e-5)

"""Attributions against a loop by hand, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
from attribution import problem
from hindgrad.attribution.way import reversible_for
from hindgrad.trees import as_hyper

H = 1e-4


@pytest.fixture(scope="module")
def found():
    with jax.enable_x64(True):
        yield hg.attribute(
            problem.objective(), problem.hyper(), problem.queries, examples=problem.weight
        )


def difference(name, at):
    """The queries' derivative by one number of a hyperparameter, by central differences."""

    def moved(h):
        hyper = problem.hyper()
        value = np.array(hyper[name], float)
        value[at] += h
        return problem.by_hand(hyper | {name: value})

    return (8 * (moved(H) - moved(-H)) - (moved(2 * H) - moved(-2 * H))) / (12 * H)


def test_values(found):
    np.testing.assert_allclose(found.values, problem.by_hand(problem.hyper()), rtol=1e-10)


@pytest.mark.parametrize("name", problem.hyper())
def test_each_cause_is_the_finite_difference(found, name):
    """Weights of examples and groups, labels, features, rates over the steps, decay, weight decay
    and initial scale; every number of each."""
    shape = np.shape(problem.hyper()[name])
    assert found.scores[name].shape == (5, *shape)
    for at in np.ndindex(shape):
        wanted, scores = difference(name, at), np.asarray(found.scores[name])[(slice(None), *at)]
        np.testing.assert_allclose(scores, wanted, rtol=2e-6, atol=1e-8)


def test_elasticities(found):
    for name, value in problem.hyper().items():
        wanted = np.asarray(found.scores[name]) * np.asarray(value)[None]
        np.testing.assert_allclose(found.elasticities[name], wanted, rtol=1e-12)


def test_removal(found):
    """Along the way from a row's weight to zero, at its beginning."""
    share, row = 1e-5, 7
    hyper = problem.hyper()
    hyper["weight"][row] *= 1 - share
    slope = (problem.by_hand(hyper) - problem.by_hand(problem.hyper())) / share
    np.testing.assert_allclose(found.removed[:, row], slope, rtol=1e-3, atol=1e-6)


def test_other_labels(found):
    """The same, from a row's label to each of the others."""
    share, row = 1e-5, 3
    effects = found.relabelled(lambda hyper: hyper["label"])
    assert effects.shape == (5, problem.ROWS, problem.CLASSES)
    np.testing.assert_allclose(effects[:, row, problem.Y[row]], 0, atol=1e-15)
    for other in range(problem.CLASSES):
        hyper = problem.hyper()
        hyper["label"][row] += share * (np.eye(problem.CLASSES)[other] - hyper["label"][row])
        slope = (problem.by_hand(hyper) - problem.by_hand(problem.hyper())) / share
        np.testing.assert_allclose(effects[:, row, other], slope, rtol=1e-3, atol=1e-6)


def test_single_features(found):
    """One feature of one row at another value."""
    share, row, feature = 1e-5, 11, 2
    effects = found.replaced(lambda hyper: hyper["pixels"], 0.3)
    hyper = problem.hyper()
    hyper["pixels"][row, feature] = 0.3 * share
    slope = (problem.by_hand(hyper) - problem.by_hand(problem.hyper())) / share
    np.testing.assert_allclose(effects[:, row, feature], slope, rtol=1e-3, atol=1e-6)


def test_predictions_and_retrainings(x64, found):
    """For any change at once: what is foretold is off by its square."""
    random = np.random.default_rng(2)
    along = {name: random.normal(size=np.shape(x)) for name, x in problem.hyper().items()}
    errors = []
    for share in (1e-3, 1e-4):
        hyper = {name: x + share * along[name] for name, x in problem.hyper().items()}
        happens = problem.by_hand(hyper)
        np.testing.assert_allclose(found.retrained(hyper), happens, rtol=1e-9)
        errors.append(np.abs(np.asarray(found.predicted(hyper)) - happens).max())
    assert errors[1] < errors[0] / 50 < 1e-3


def test_what_has_no_derivative_is_not_foretold():
    objective, hyper = problem.of_weights(steps=2)
    found = hg.attribute(objective, hyper | {"n": 1}, problem.queries, adjoint=hg.Stored())
    with pytest.raises(ValueError, match=r"no float .* retrained"):
        found.predicted(hyper | {"n": 2})
    np.testing.assert_array_equal(found.predicted(hyper | {"n": 1}), found.values)


def test_half_precision_is_added_up_in_float64():
    """Of a thousand equal queries, the mean is that of each."""
    objective, _ = problem.of_weights(steps=2)
    hyper = {"weight": jnp.ones(problem.ROWS, jnp.bfloat16)}
    many = lambda params, *_: jnp.tile(problem.queries(params, None, None)[:1], 1000)
    found = hg.attribute(objective, hyper, many, adjoint=hg.Stored())
    mean, first = found.top(None, 3), found.top(0, 3)
    np.testing.assert_array_equal(mean.rows, first.rows)
    np.testing.assert_allclose(mean.effects, first.effects, rtol=1e-12)


def test_top_and_bottom(found):
    effects = found.removed[3]
    top, bottom = found.top(3, 4), found.bottom(3, 4)
    np.testing.assert_array_equal(top.rows, np.argsort(-effects)[:4])
    np.testing.assert_array_equal(bottom.rows, np.argsort(effects)[:4])
    np.testing.assert_array_equal(top.effects, effects[top.rows])
    mean = found.top(None, 2)
    np.testing.assert_allclose(mean.effects, np.sort(found.removed.mean(0))[::-1][:2])


ADJOINTS = {"Stored": hg.Stored(), "Forward": hg.Forward()}


@pytest.mark.parametrize("adjoint", ADJOINTS.values(), ids=ADJOINTS)
def test_any_adjoint(x64, found, adjoint):
    given = problem.objective(), problem.hyper(), problem.queries
    other = hg.attribute(*given, examples=problem.weight, adjoint=adjoint)
    assert other.adjoint is adjoint
    for a, b in zip(jax.tree.leaves(other.scores), jax.tree.leaves(found.scores), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_backwards_unless_given(found):
    assert isinstance(found.adjoint, hg.Reversible)
    assert found.adjoint.min_decay == {"decay": 76 / 128}


WAYS = {
    "Adam": (hg.Adam(0.05), hg.Reversible),
    "no decay": (hg.Momentum(0.1, 0.0), hg.Checkpointed),
    "Nesterov": (hg.Momentum(0.1, 0.6, convention=hg.Nesterov()), hg.Checkpointed),
    "optax": (hg.from_optax(lambda hyper: optax.sgd(0.1)), hg.Checkpointed),
}


@pytest.mark.parametrize(("optimizer", "kind"), WAYS.values(), ids=WAYS)
def test_backwards_where_the_optimizer_lets_it(optimizer, kind):
    objective, hyper = problem.of_weights(optimizer=optimizer, steps=4)
    found = hg.attribute(objective, hyper, problem.queries)
    assert isinstance(found.adjoint, kind)
    if kind is hg.Reversible:
        stored = hg.attribute(objective, hyper, problem.queries, adjoint=hg.Stored())
        np.testing.assert_allclose(found.removed, stored.removed, atol=2e-5)


def test_a_run_that_cannot_be_undone_after_all():
    """It leaves the range of the exact numbers: the scores are taken another way."""
    far = lambda hyper, key: jax.tree.map(lambda w: 3000 * w, problem.init(hyper, key))
    flat = lambda params, hyper, batch: jnp.mean(
        hyper["weight"][batch.index] * jnp.sum(params["out"]) / 1e3
    )
    objective = problem.objective(init=far, loss=flat, steps=3)
    hyper, key = as_hyper(problem.hyper()), jax.random.key(0)
    assert reversible_for(objective, hyper, key) is not None
    score = lambda params, hyper, key: jnp.sum(params["out"])[None]
    found = hg.attribute(objective, hyper, score, examples=problem.weight)
    assert isinstance(found.adjoint, hg.Checkpointed)


def test_a_state_beside_the_weights(x64):
    """Its mean is a query too."""

    def loss(params, hyper, batch, state):
        hidden = jnp.mean(batch.data @ params["in"], 0)
        return problem.loss(params, hyper, batch), 0.9 * state + 0.1 * hidden

    queries = lambda params, hyper, key, state: jnp.append(
        problem.queries(params, hyper, key), jnp.sum(state)
    )
    begin = lambda hyper, key: (problem.init(hyper, key), jnp.zeros(4))
    objective = problem.objective(loss=loss, init=begin)
    found = hg.attribute(objective, problem.hyper(), queries, examples=problem.weight)
    assert isinstance(found.adjoint, hg.Reversible)
    ends = lambda scale: found.retrained(problem.hyper() | {"scale": scale})
    slope = (ends(0.7 + 1e-5) - ends(0.7 - 1e-5)) / 2e-5
    np.testing.assert_allclose(found.scores["scale"], slope, rtol=1e-5, atol=1e-8)


def test_queries_of_any_kind():
    """Of the whole run; a table, or one number alone; the examples are the only row of numbers."""
    objective, hyper = problem.of_weights()
    hyper |= {"unread": 1.0}
    attribute = lambda queries: hg.attribute(objective, hyper, queries, adjoint=hg.Stored())
    whole = attribute(hg.RunScore(lambda run, hyper, key: run.losses[-2:]))
    assert whole.values.shape == (2,)
    assert whole.examples.name == "hyper['weight']"
    assert not np.any(whole.scores["unread"])
    table = attribute(lambda *args: problem.queries(*args)[:4].reshape(2, 2))
    assert table.removed.shape == (4, problem.ROWS)
    single = attribute(lambda *args: problem.queries(*args)[2])
    np.testing.assert_allclose(single.removed[0], table.removed[2], rtol=1e-3, atol=1e-6)


def test_a_second_call_does_not_compile(monkeypatch):
    optimizer = hg.Momentum(0.3, lambda hyper, t: hyper["decay"])
    objective, hyper = problem.of_weights(optimizer=optimizer, steps=3)
    call = lambda decay: hg.attribute(objective, hyper | {"decay": decay}, problem.queries)
    call(0.595)
    traced = []
    monkeypatch.setattr(problem, "nll", lambda *_: traced.append(1))
    assert call(0.6).adjoint.min_decay == {"decay": 76 / 128}
    assert not traced


def given(**changes):
    objective, hyper = problem.of_weights(steps=2)
    call = {"objective": objective, "hyper": hyper, "queries": problem.queries}
    return call | {"adjoint": hg.Stored()} | changes


REFUSED = {
    "a function as the objective": (given(objective=lambda hyper: 0.0), {}, "hg.Objective"),
    "rows as queries": (given(queries=np.ones((2, 3))), {}, "a function"),
    "integers": (given(queries=lambda p, h, k: jnp.argmax(p["out"])), {}, "floats are needed"),
    "no floats": (given(hyper={"rate": 1}), {}, "without a float"),
    "no such leaf": (given(), {"examples": lambda hyper: hyper["wait"]}, "hyper\\['weight'\\]"),
    "not one leaf": (given(), {"examples": lambda hyper: hyper}, "one leaf"),
    "computed from a leaf": (given(), {"examples": lambda hyper: hyper["weight"] * 2}, "one leaf"),
    "a number in place of a leaf": (given(), {"examples": lambda hyper: 0}, "one leaf"),
    "a single number": (
        given(hyper={"weight": np.ones(problem.ROWS), "rate": 0.1}),
        {"examples": lambda hyper: hyper["rate"]},
        "single number",
    ),
    "constants as queries": (given(queries=lambda *_: jnp.ones(2)), {}, "do not read"),
    "a list": (given(queries=lambda *_: [1.0]), {}, "one array"),
    "estimates": (given(adjoint=hg.Evolution(pairs=2, spread=0.1)), {}, "one score"),
    "unread weights": (
        given(hyper={"weight": np.ones(problem.ROWS), "other": np.ones(4)}),
        {"examples": lambda hyper: hyper["other"]},
        "never reads it",
    ),
    "a diverging run": (
        given(hyper={"weight": np.full(problem.ROWS, np.nan)}),
        {},
        "5 queries .* not fin",
    ),
}


@pytest.mark.parametrize(("call", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(call, options, message):
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message):
        hg.attribute(**call, **options)


def test_refused_within_a_program():
    with pytest.raises(ValueError, match=r"hg\.jacobian"):
        jax.jit(lambda w: hg.attribute(problem.objective(), w, problem.queries).values)(jnp.ones(3))


def test_refused_questions(found):
    asked = [
        (lambda: found.top(5), "there are 5"),
        (lambda: found.top(0, 0), "at least 1"),
        (lambda: found.relabelled(lambda hyper: hyper["weight"]), "one_hot"),
        (lambda: found.replaced(lambda hyper: 1.0, 0.0), "one leaf"),
        (lambda: found.replaced(lambda hyper: 1 - hyper["weight"], 0.0), "one leaf"),
        (lambda: found.replaced(problem.weight, np.ones(3)), r"weight.* has shape \[24\]"),
        (lambda: found.replaced(problem.weight, "none"), r"replaced\(by='none'\)"),
        (lambda: found.replaced(problem.weight, np.nan), "finite"),
        (lambda: found.replaced(problem.weight, 1j), "of that kind"),
        (
            lambda: found.predicted({"weight": np.ones(3)}),
            r"hyper\['decay'\] has shape \[\] there, and no float here",
        ),
        (lambda: found.certify(drop=1.0), "above 0 and below 1"),
        (lambda: found.certify(bar=True), "correlation"),
        (lambda: found.certify(runs=5), "at least 10"),
        (lambda: found.certify(bar=2), "correlation"),
        (lambda: found.certify(side_by_side=0), "side_by_side"),
    ]
    for question, message in asked:
        with pytest.raises(ValueError, match=message):
            question()


def test_no_leaf_is_guessed_among_several():
    objective, hyper = problem.of_weights(steps=2)
    hyper |= {"other": np.ones(4)}
    found = hg.attribute(objective, hyper, problem.queries, adjoint=hg.Stored())
    for question in (found.certify, lambda: found.top(0), lambda: found.removed):
        with pytest.raises(ValueError, match="examples="):
            question()

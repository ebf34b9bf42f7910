"""State beside the weights: against loops written by hand, and what is refused."""

from functools import partial

import equinox as eqx
import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import hindgrad as hg
from tests.stateful import (
    HYPER,
    STEPS,
    assert_close,
    by_hand,
    loss,
    objective,
    rows,
    score,
    start,
    training,
)

EXACT = {
    "stored": hg.Stored(),
    "checkpointed": hg.Checkpointed(slots=2),
    "forward": hg.Forward(),
    "forward by blocks": hg.Forward(block=2),
    "truncated": hg.Truncated(7),
}


@pytest.fixture(autouse=True)
def ranks():
    """The layers of Equinox and Flax add vectors to matrices."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize("name", EXACT)
def test_every_adjoint_against_a_loop(x64, name):
    wanted = jax.grad(by_hand)(HYPER)
    found = jax.grad(lambda h: objective()(h, adjoint=EXACT[name]))(HYPER)
    assert_close(found, wanted)
    assert all(abs(g) > 1e-3 for g in wanted.values())


@pytest.mark.parametrize("name", EXACT)
def test_a_target_network(x64, name):
    """A slow copy of the weights, which is carried and which the loss learns from."""

    def bootstrapped(params, hyper, batch, state):
        (x, y), slow = batch.data, state["slow"]
        after = hyper["decay"] * slow + (1 - hyper["decay"]) * params["w"]
        return jnp.mean((x @ params["w"] - y - jnp.tanh(x @ slow) / 2) ** 2), {"slow": after}

    def init(hyper, key):
        weights = jnp.eye(4, 3) * hyper["width"] + 0.1
        return {"w": weights}, {"slow": weights * hyper["variance"]}

    score = lambda params, hyper, key, state: jnp.sum(params["w"] * state["slow"])
    wanted = jax.grad(partial(by_hand, loss=bootstrapped, init=init, score=score))(HYPER)
    given = objective(init, score, loss=bootstrapped)
    assert_close(jax.grad(lambda h: given(h, adjoint=EXACT[name]))(HYPER), wanted)
    assert all(abs(g) > 1e-3 for g in wanted.values())


def test_second_derivatives(x64):
    assert_close(jax.hessian(objective())(HYPER), jax.hessian(by_hand)(HYPER), rtol=1e-7)


def test_side_by_side_and_compiled(x64):
    rates = jnp.array([0.05, 0.1])
    of = lambda function: jax.jit(
        jax.vmap(lambda rate: jax.grad(lambda r: function(HYPER | {"rate": r}))(rate))
    )(rates)
    assert_close(of(objective()), of(by_hand))


def test_derivative_with_respect_to_the_state(x64):
    """A run's state is an input and an output like its parameters; two halves are the whole."""
    params, state = start(HYPER, None)
    floats, rest = eqx.partition(state, eqx.is_inexact_array)

    def end(floats, pieces):
        run, given = None, {"model_state": eqx.combine(floats, rest)}
        for begin, steps in pieces:
            at = params if run is None else run.params
            run = training()(at, HYPER, start=begin, steps=steps, adjoint=hg.Stored(), **given)
            given = {"state": run.state, "model_state": run.model_state}
        return score(run.params, HYPER, None, run.model_state)

    whole = jax.grad(lambda f: end(f, [(0, 7)]))(floats)
    assert_close(jax.grad(lambda f: end(f, [(0, 3), (3, 4)]))(floats), whole)
    nudged = jax.tree.map(lambda x: x + 1e-6, floats)
    slope = (end(nudged, [(0, 7)]) - end(floats, [(0, 7)])) / 1e-6
    np.testing.assert_allclose(sum(map(jnp.sum, jax.tree.leaves(whole))), slope, rtol=1e-4)


class Normalised(eqx.Module):
    """Two layers, with Equinox's own batch normalisation and dropout between."""

    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout
    last: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key)
        self.first, self.last = eqx.nn.Linear(4, 5, key=keys[0]), eqx.nn.Linear(5, 3, key=keys[1])
        self.norm = eqx.nn.BatchNorm(5, axis_name="batch", mode="batch")
        self.dropout = eqx.nn.Dropout(0.2)

    def __call__(self, x, state, key):
        h, state = self.norm(self.first(x), state)
        return self.last(self.dropout(jax.nn.tanh(h), key=key)), state


def test_equinox(x64):
    def loss(model, hyper, batch, state):
        x, y = batch.data
        keys = jax.random.split(batch.key, len(x))
        every = jax.vmap(model, (0, None, 0), (0, None), axis_name="batch")
        out, state = every(x, state, keys)
        return jnp.mean((out - y) ** 2), state

    def score(model, hyper, key, state):
        x, y = rows()
        fixed = eqx.nn.inference_mode(model)
        every = jax.vmap(fixed, (0, None, None), (0, None), axis_name="batch")
        return jnp.mean((every(x, state, None)[0] - y) ** 2)

    init = lambda hyper, key: eqx.nn.make_with_state(Normalised)(jax.random.key(5))
    hyper = {"rate": 0.1}
    wanted = jax.grad(lambda h: by_hand(h, loss, score, init))(hyper)
    value = objective(init, score, loss=loss)
    for adjoint in (hg.Stored(), hg.Forward(), hg.Reversible()):
        assert_close(jax.grad(lambda h, a=adjoint: value(h, adjoint=a))(hyper), wanted)
    of_pair = objective(init(hyper, None), score, loss=loss)
    assert_close(jax.grad(of_pair)(hyper), wanted)


class Linen(linen.Module):
    """The same in Flax's older API."""

    @linen.compact
    def __call__(self, x, train):
        h = linen.BatchNorm(use_running_average=not train, momentum=0.9)(linen.Dense(5)(x))
        return linen.Dense(3)(linen.Dropout(0.2, deterministic=not train)(jnp.tanh(h)))


def test_flax_linen(x64):
    model = Linen()
    variables = model.init(jax.random.key(0), rows()[0], train=False)

    def loss(params, hyper, batch, state):
        x, y = batch.data
        out, after = model.apply(
            {"params": params, "batch_stats": state},
            x,
            train=True,
            rngs={"dropout": batch.key},
            mutable=["batch_stats"],
        )
        return jnp.mean((out - y) ** 2), after["batch_stats"]

    def score(params, hyper, key, state):
        x, y = rows()
        out = model.apply({"params": params, "batch_stats": state}, x, train=False)
        return jnp.mean((out - y) ** 2)

    check_against_a_loop(loss, score, (variables["params"], variables["batch_stats"]))


class Nnx(nnx.Module):
    """And in its newer one."""

    def __init__(self, rngs):
        self.first, self.last = nnx.Linear(4, 5, rngs=rngs), nnx.Linear(5, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(5, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(jnp.tanh(self.norm(self.first(x)))))


def test_flax_nnx(x64):
    """Split into its graph, its parameters, and the rest: statistics, and dropout's own keys."""
    graph, params, state = nnx.split(Nnx(nnx.Rngs(0)), nnx.Param, ...)

    def loss(params, hyper, batch, state):
        x, y = batch.data
        model = nnx.merge(graph, params, state, copy=True)
        model.train()
        value = jnp.mean((model(x) - y) ** 2)
        return value, nnx.split(model, nnx.Param, ...)[2]

    def score(params, hyper, key, state):
        x, y = rows()
        model = nnx.merge(graph, params, state)
        model.eval()
        return jnp.mean((model(x) - y) ** 2)

    check_against_a_loop(loss, score, (params, state), kept=7 * 12)  # the key and count of dropout


def check_against_a_loop(loss, score, init, kept=1):
    is_float = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    init = jax.tree.map(lambda x: x.astype(jnp.float64) if is_float(x) else x, init)
    hyper = {"rate": 0.1}
    wanted = jax.grad(lambda h: by_hand(h, loss, score, lambda *_: init))(hyper)
    value = objective(init, score, loss=loss)
    for adjoint in (
        hg.Stored(),
        hg.Checkpointed(slots=2),
        hg.Forward(),
        hg.Reversible(budget=kept),
    ):
        found = jax.grad(lambda h, a=adjoint: value(h, adjoint=a))(hyper)
        assert_close(found, wanted, rtol=1e-6)


def test_estimators_see_the_state():
    """With a score that is linear in the state, of a state that is linear in one hyperparameter,
    each estimate is the slope times the mean square of the directions."""
    count = lambda params, hyper, batch, state: (jnp.sum(params**2), state + hyper["step"])
    run = hg.Training(count, optimizer=hg.Momentum(0.0), batches=lambda t: None, steps=4)
    state = lambda params, hyper, key, state: state
    value = hg.Objective(run, init=(jnp.ones(2), jnp.zeros(())), score=state)
    for adjoint in (hg.Evolution, partial(hg.PersistentEvolution, window=4)):
        by = adjoint(2000, spread=0.1)
        found = jax.grad(lambda h, by=by: value(h, adjoint=by))({"step": 0.3})["step"]
        np.testing.assert_allclose(found, 4.0, rtol=0.1)


def test_tune_and_its_diagnostics():
    assert hg.check(objective(), HYPER).ok
    precise = hg.precision(objective(), HYPER).leaves.values()
    assert all(leaf.error < 1e-4 for leaf in precise)
    found = hg.tune(objective(), HYPER, optax.adam(0.01), steps=5, key=0, progress=False)
    assert found.value < objective()(HYPER, 0)
    assert np.isfinite(hg.diagnose(objective(), HYPER, key=0).metasmoothness)


def test_real_time_tuning():
    params, state = start(HYPER, None)
    valid = lambda params, hyper, t, state: score(params, hyper, None, state)
    options = {"every": 2, "progress": False, "model_state": state}
    forwards, backwards = (
        hg.tune_online(training(), params, HYPER, valid, optax.sgd(0.1), horizon=horizon, **options)
        for horizon in (hg.horizons.Forgotten(), hg.horizons.LastWindow())
    )
    assert forwards.model_state["count"] == STEPS
    assert abs(forwards.hyper["decay"] - HYPER["decay"]) > 1e-3
    assert_close(forwards.hyper, backwards.hyper, rtol=1e-4)
    assert_close(forwards.model_state["mean"], backwards.model_state["mean"], rtol=1e-3)


SOLVERS = [
    hg.solvers.NormalEquations(steps=400),
    hg.solvers.FixedPoint(steps=2000),
    hg.solvers.Neumann(terms=2000),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda solver: type(solver).__name__)
def test_implicit_in_closed_form(x64, solver):
    """Weights and an average of them that pulls them on: both come to rest at target / (1 − pull).
    A constant beside the average does not."""

    def loss(params, hyper, batch, state):
        miss = params - hyper["target"] - hyper["pull"] * state["average"]
        average = 0.9 * state["average"] + 0.1 * params
        return jnp.sum(miss**2) * state["unit"], state | {"average": average}

    run = hg.Training(loss, optimizer=hg.Momentum(0.2), batches=lambda t: None, steps=300)
    init = jnp.zeros(2), {"average": jnp.zeros(2), "unit": jnp.ones(())}
    score = lambda params, hyper, key, state: jnp.sum(params**3) + jnp.sum(state["average"])
    value = hg.Objective(run, init=init, score=score)
    hyper = {"target": jnp.array([0.5, -0.3]), "pull": jnp.float64(0.4)}
    rest = lambda h: h["target"] / (1 - h["pull"])
    wanted = jax.grad(lambda h: jnp.sum(rest(h) ** 3 + rest(h)))(hyper)
    adjoint = hg.Implicit(solver)
    assert_close(jax.grad(lambda h: value(h, adjoint=adjoint))(hyper), wanted, rtol=1e-4)
    options = {"steps": 2, "key": 0, "progress": False}
    by_rest, by_way = (
        hg.tune(value, hyper, optax.sgd(0.01), adjoint=a, **options).hyper
        for a in (adjoint, hg.Stored())
    )
    assert_close(by_rest, by_way, rtol=1e-4)


def test_implicit_with_batch_normalisation(x64):
    """The penalty of a small net on all rows, against the whole way back. (No weights are followed
    by a normalisation at once: their penalty would have no minimum.)"""

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x, train):
            h = jnp.tanh(linen.Dense(5)(x))
            return linen.Dense(3)(linen.BatchNorm(use_running_average=not train, momentum=0.9)(h))

    model = Net()
    variables = model.init(jax.random.key(0), rows()[0], train=False)
    variables = jax.tree.map(lambda x: x.astype(jnp.float64), variables)

    def loss(params, penalty, batch, state):
        x, y = rows()
        out, after = model.apply(
            {"params": params, "batch_stats": state},
            x,
            train=True,
            mutable=["batch_stats"],
        )
        squares = sum(jnp.sum(p**2) for p in jax.tree.leaves(params))
        return jnp.mean((out - y) ** 2) + penalty * squares, after["batch_stats"]

    def score(params, penalty, key, state):
        x, y = rows()
        out = model.apply({"params": params, "batch_stats": state}, x, train=False)
        return jnp.mean((out - y) ** 2)

    run = hg.Training(loss, optimizer=hg.Momentum(0.5), batches=lambda t: None, steps=2000)
    init = variables["params"], variables["batch_stats"]
    value = hg.Objective(run, init=init, score=score)
    adjoint = hg.Implicit(hg.solvers.NormalEquations(steps=1000), stationary=1e-4)
    found = jax.grad(lambda penalty: value(penalty, adjoint=adjoint))(0.05)
    wanted = jax.grad(lambda penalty: value(penalty, adjoint=hg.Checkpointed(slots=50)))(0.05)
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


def test_implicit_by_conjugate_gradients_is_refused():
    with pytest.raises(ValueError, match=r"weights with a model's state.*NormalEquations"):
        jax.grad(lambda h: objective()(h, adjoint=hg.Implicit()))({"rate": 0.1} | HYPER)


def changed(change):
    """The loss with another state after it."""

    def other(params, hyper, batch, state):
        value, after = loss(params, hyper, batch, state)
        return change(value, after)

    return other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value, after: value, r"must return \(value, state\)"),
        (lambda value, after: (value, after, 1), r"must return \(value, state\)"),
        (lambda value, after: (value, after | {"new": 1}), "keeps its structure"),
        (lambda value, after: (value, after | {"mean": jnp.zeros(2)}), r"\['mean'\].*float32\[2\]"),
        (lambda value, after: (value, after | {"count": 1.5}), r"\['count'\] from int32"),
        (lambda value, after: (value, after | {"count": 1}), r"\['count'\] from int32\[\] into 1"),
    ],
)
def test_a_state_that_changes(change, message):
    with pytest.raises(ValueError, match=message):
        objective(loss=changed(change))(HYPER)


@pytest.mark.parametrize("begin", [0, False])
def test_a_number_that_is_no_array_cannot_change(begin):
    """Every step would get the first one."""
    for change in (lambda n: n + 1, lambda n: n + jnp.int32(1)):
        loss = lambda p, h, batch, state, c=change: (jnp.sum(p), {"n": c(state["n"])})
        run = hg.Training(loss, optimizer=hg.Momentum(0.1), batches=lambda t: None, steps=3)
        with pytest.raises(ValueError, match=rf"\['n'\], which is {begin}: only arrays"):
            run(jnp.ones(2), {}, model_state={"n": begin})
    loss = lambda p, h, batch, state: (jnp.sum(p), state)
    run = hg.Training(loss, optimizer=hg.Momentum(0.1), batches=lambda t: None, steps=3)
    assert run(jnp.ones(2), {}, model_state={"n": begin}).model_state == {"n": begin}


def test_a_score_of_a_state_that_is_not_there():
    plain = lambda params, hyper, batch: jnp.sum(params["w"] ** 2)
    params, _ = start(HYPER, None)
    with pytest.raises(ValueError, match="The score takes a fourth argument"):
        objective(params, loss=plain)(HYPER)
    valid = lambda params, hyper, t, state: 0.0
    with pytest.raises(ValueError, match="The valid_loss takes a fourth argument"):
        hg.tune_online(training(plain), params, HYPER, valid, optax.adam(0.01), every=2)


def test_a_state_on_one_side_only():
    params, state = start(HYPER, None)
    plain = lambda params, hyper, batch: jnp.sum(params["w"] ** 2)
    with pytest.raises(ValueError, match="there is no state"):
        training()(params, HYPER)
    with pytest.raises(ValueError, match="the loss does not take it"):
        training(plain)(params, HYPER, model_state=state)
    with pytest.raises(ValueError, match="If they are a model's state, take it"):
        training(lambda params, hyper, batch: (plain(params, hyper, batch), state))(params, HYPER)
    with pytest.raises(ValueError, match=r"must be, or return, the pair"):
        objective(params)(HYPER)

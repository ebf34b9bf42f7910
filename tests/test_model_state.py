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

EXACT = {
    "stored": hg.Stored(),
    "checkpointed": hg.Checkpointed(slots=2),
    "forward": hg.Forward(),
    "forward by blocks": hg.Forward(block=2),
    "reversible": hg.Reversible(),
    "truncated": hg.Truncated(7),
}


@pytest.fixture(autouse=True)
def ranks():
    """The layers of Equinox and Flax add vectors to matrices."""
    with jax.numpy_rank_promotion("allow"):
        yield


STEPS, DECAY = 7, 0.9
HYPER = {"rate": 0.1, "decay": 0.8, "width": 1.0, "variance": 0.7}


def rows():
    x = jax.random.normal(jax.random.key(0), (60, 4))
    return x, jnp.tanh(x[:, :3] @ jnp.arange(9.0).reshape(3, 3) / 5)


def loss(params, hyper, batch, state):
    """Normalised by the batch, moved by what is carried: floats, a count and a key."""
    x, y = batch.data
    z = x @ params["w"]
    mean, variance = z.mean(0), z.var(0)
    toward = lambda old, new: hyper["decay"] * old + (1 - hyper["decay"]) * new
    after = {
        "mean": toward(state["mean"], mean),
        "variance": toward(state["variance"], variance),
        "count": state["count"] + 1,
        "key": jax.random.fold_in(state["key"], 1),
    }
    noise = 0.01 * state["count"] * jax.random.normal(state["key"], y.shape)
    normal = (z - mean) / jnp.sqrt(variance + 1e-3) + 0.1 * jnp.tanh(state["mean"]) + noise
    return jnp.mean((normal * params["gain"] - y) ** 2), after


def score(params, hyper, key, state):
    x, y = rows()
    z = (x @ params["w"] - state["mean"]) / jnp.sqrt(state["variance"] + 1e-3)
    return jnp.mean((z * params["gain"] - y) ** 2)


def start(hyper, key):
    params = {"w": jnp.eye(4, 3) * hyper["width"] + 0.1, "gain": jnp.ones(3)}
    state = {"mean": jnp.zeros(3), "variance": jnp.ones(3) * hyper["variance"]}
    return params, state | {"count": jnp.int32(0), "key": jax.random.key(3)}


def batches():
    return hg.minibatches(rows(), size=12, key=1)


def training(loss=loss, **options):
    optimizer = hg.Momentum(lambda h, t: h["rate"], DECAY)
    given = {"optimizer": optimizer, "batches": batches(), "steps": STEPS}
    return hg.Training(loss, **given | options)


def objective(init=start, score=score, **options):
    return hg.Objective(training(**options), init=init, score=score)


def by_hand(hyper, loss=loss, score=score, init=start):
    """Momentum, step by step, differentiated by JAX."""
    params, state = init(hyper, None)
    params, fixed = eqx.partition(params, eqx.is_inexact_array)
    velocity = jax.tree.map(jnp.zeros_like, params)
    for t in range(STEPS):
        whole = lambda p, t=t, s=state: loss(eqx.combine(p, fixed), hyper, batches()(t), s)
        grads, state = jax.grad(whole, has_aux=True)(params)
        velocity = jax.tree.map(lambda v, g: DECAY * v - (1 - DECAY) * g, velocity, grads)
        params = jax.tree.map(lambda p, v: p + hyper["rate"] * v, params, velocity)
    return score(eqx.combine(params, fixed), hyper, None, state)


def assert_close(found, wanted, rtol=1e-9):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol)


@pytest.mark.parametrize("name", EXACT)
def test_every_adjoint_against_a_loop(x64, name):
    wanted = jax.grad(by_hand)(HYPER)
    found = jax.grad(lambda h: objective()(h, adjoint=EXACT[name]))(HYPER)
    assert_close(found, wanted)
    assert all(abs(g) > 1e-3 for g in wanted.values())


def test_second_derivatives(x64):
    assert_close(jax.hessian(objective())(HYPER), jax.hessian(by_hand)(HYPER), rtol=1e-7)


def test_side_by_side_and_compiled(x64):
    rates = jnp.array([0.05, 0.1])
    of = lambda function: jax.jit(
        jax.vmap(lambda rate: jax.grad(lambda r: function(HYPER | {"rate": r}))(rate))
    )(rates)
    assert_close(of(objective()), of(by_hand))


def test_a_rule_of_the_loss(x64):
    """Reverse over reverse, where the loss has a rule that is not its derivative."""
    clipped = jax.custom_vjp(lambda x: x)
    clipped.defvjp(lambda x: (x, None), lambda _, d: (jnp.clip(d, -1e-3, 1e-3),))

    def with_rule(params, hyper, batch, state):
        value, after = loss(params, hyper, batch, state)
        return value + jnp.sum(clipped(params["w"]) ** 2 * state["variance"]), after

    wanted = jax.grad(lambda h: by_hand(h, with_rule))(HYPER)
    for adjoint in (hg.Stored(), hg.Reversible()):
        found = jax.grad(lambda h, a=adjoint: objective(loss=with_rule)(h, adjoint=a))(HYPER)
        assert_close(found, wanted)


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
    for name in ("stored", "forward", "reversible"):
        assert_close(jax.grad(lambda h, n=name: value(h, adjoint=EXACT[n]))(hyper), wanted)
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


def test_a_state_that_is_too_large_to_keep():
    adjoint = hg.Reversible(budget=100)
    with pytest.raises(ValueError, match=r"7 steps of \d+ bytes are \d+ bytes.*Checkpointed"):
        jax.grad(lambda h: objective()(h, adjoint=adjoint))(HYPER)


def averaging(params, hyper, batch, state):
    """What is normalised by the batch reads no statistics; it moves them, and averages weights."""
    x, y = batch.data
    z = x @ params["w"]
    after = {
        "mean": 0.9 * state["mean"] + 0.1 * z.mean(0),
        "variance": jnp.where(state["count"] == 0, z.var(0), state["variance"] * 0.9 + z.var(0)),
        "count": state["count"] + 1,
        "weights": optax.incremental_update(params["w"], state["weights"], hyper["width"] * 0.1),
    }
    normal = (z - z.mean(0)) / jnp.sqrt(z.var(0) + 1e-3)
    return jnp.mean((normal * params["gain"] - y) ** 2), after


def averaged(hyper, key):
    params, state = start(hyper, key)
    return params, {**{k: state[k] for k in ("mean", "variance", "count")}, "weights": params["w"]}


def score_of_averages(params, hyper, key, state):
    return score({**params, "w": state["weights"]}, hyper, key, state)


def test_statistics_that_nothing_reads_are_not_kept(x64):
    """Reversible keeps the count, which decides, and the weights, whose rate of averaging is a
    hyperparameter: 4 and 96 bytes a step, not the other 48."""
    value = objective(averaged, score_of_averages, loss=averaging)
    wanted = jax.grad(lambda h: by_hand(h, averaging, score_of_averages, averaged))(HYPER)
    wanted = jax.tree.map(lambda g: g.astype(jnp.float64), wanted)
    found = jax.grad(lambda h: value(h, adjoint=hg.Reversible(budget=7 * 100)))(HYPER)
    assert_close(found, wanted)
    with pytest.raises(ValueError, match="7 steps of 100 bytes are 700 bytes"):
        jax.grad(lambda h: value(h, adjoint=hg.Reversible(budget=7 * 100 - 1)))(HYPER)
    segments = hg.hypergradient(value, HYPER, key=0, adjoint=hg.Reversible(), segments=3)
    assert_close(segments.gradient, wanted)


@pytest.mark.parametrize(
    "change",
    [
        lambda state, params, loss: state * jnp.sum(params["w"]),  # in its own derivative
        lambda state, params, loss: jnp.tanh(state),
        lambda state, params, loss: state + loss * state,
        lambda state, params, loss: jax.lax.fori_loop(0, 2, lambda _, s: s * 0.5 * loss, state),
    ],
)
def test_what_a_derivative_reads_is_kept(x64, change):
    def moving(params, hyper, batch, state):
        value, _ = averaging(params, hyper, batch, averaged(HYPER, None)[1])
        return value, change(state, params, value)

    def init(hyper, key):
        return start(hyper, key)[0], jnp.full(2, hyper["variance"])

    of_state = lambda params, hyper, key, state: jnp.sum(state**2)
    value = objective(init, of_state, loss=moving)
    wanted = jax.grad(lambda h: by_hand(h, moving, of_state, init))(HYPER)
    assert_close(jax.grad(lambda h: value(h, adjoint=hg.Reversible()))(HYPER), wanted, rtol=1e-8)
    with pytest.raises(ValueError, match="16 bytes"):
        jax.grad(lambda h: value(h, adjoint=hg.Reversible(budget=1)))(HYPER)


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

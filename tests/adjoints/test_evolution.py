"""`Evolution`: against smoothed objectives in closed form, and what it refuses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.scipy.stats import norm

import hindgrad as hg
from hindgrad.adjoints import antithetic
from means import assert_mean

KEYS = jax.random.split(jax.random.key(3), 1000)


def of_hyper(score):
    """An objective that is a function of its hyperparameters alone."""
    run = hg.Training(
        lambda params, hyper, batch: jnp.sum(params**2),
        optimizer=hg.Momentum(0.1),
        batches=lambda t: None,
        steps=1,
    )
    return hg.Objective(run, init=jnp.zeros(1), score=lambda params, hyper, key: score(hyper))


def gradient(objective, hyper, **options):
    return jax.grad(lambda h: objective(h, adjoint=hg.Evolution(**options)))(hyper)


def many(objective, hyper, make):
    """Independent estimates, along the leading axis; `make(key)` gives the adjoint."""
    estimate = jax.grad(lambda h, key: objective(h, adjoint=make(key)))
    return jax.jit(jax.vmap(lambda key: estimate(hyper, key)))(KEYS)


SLOPE = jnp.array([1.0, -2.0, 0.5])
CURVATURE = jnp.array([[2.0, 0.3, 0.0], [0.3, 1.0, -0.4], [0.0, -0.4, 3.0]])


def bowl(hyper):
    return SLOPE @ hyper + hyper @ CURVATURE @ hyper / 2 + 7.0


def test_linear_and_quadratic(x64):
    """The pairs' directions know the slope at the middle, with nothing of the curvature; on
    average, that is the gradient."""
    hyper = jnp.array([0.4, -1.0, 2.0])
    wanted = SLOPE + CURVATURE @ hyper
    found = many(of_hyper(bowl), hyper, lambda key: hg.Evolution(100, spread=0.3, key=key))
    along = antithetic.directions(jax.random.fold_in(KEYS[0], 0), 100, hyper)
    np.testing.assert_allclose(found[0], along.T @ along @ wanted / 100, rtol=1e-12)
    assert_mean(found, wanted)


def test_a_cliff_becomes_a_slope():
    """A step, whose own derivative is zero: the normal density, with a spread for each leaf."""
    hyper, spread = {"a": 0.5, "b": jnp.array([0.3, -0.2])}, {"a": 1.0, "b": jnp.array([0.5, 2.0])}
    step = lambda h: 1.0 * (h["a"] > 0) + jnp.sum(jnp.where(h["b"] > 0, jnp.array([2.0, 3.0]), 0))
    make = lambda key: hg.Evolution(200, spread=spread, key=key)
    density = lambda name: norm.pdf(hyper[name], scale=spread[name])
    wanted = {"a": density("a"), "b": jnp.array([2.0, 3.0]) * density("b")}
    assert_mean(many(of_hyper(step), hyper, make), wanted)
    assert of_hyper(step)(hyper, adjoint=make(KEYS[0])) == step(hyper)


def test_a_complex_number():
    score = lambda h: h.real - 3 * h.imag
    found = many(of_hyper(score), jnp.complex64(1), lambda key: hg.Evolution(9, spread=1, key=key))
    assert_mean(found, jax.grad(score)(jnp.complex64(1)))


def test_members_that_diverge_count_as_the_worst():
    cut = lambda value: of_hyper(lambda h: jnp.where(h > 0.1, value, h**2))
    options = {"pairs": 8, "spread": 0.3}
    worst = gradient(cut(jnp.nan), 0.0, **options)
    assert worst == gradient(cut(jnp.inf), 0.0, **options)
    along = np.asarray(
        antithetic.directions(jax.random.fold_in(jax.random.key(0), 0), 8, jnp.zeros(()))
    )
    scores = np.where(0.3 * np.stack([along, -along]) > 0.1, -np.inf, (0.3 * along[None]) ** 2)
    scores = np.where(np.isinf(scores), scores.max(), scores)
    np.testing.assert_allclose(worst, np.mean(along * (scores[0] - scores[1])) / 0.6, rtol=1e-5)
    assert np.isnan(gradient(of_hyper(lambda h: h * jnp.nan), 0.0, **options))


def objective(optimizer=None, steps=5, seen=None):
    """A run to a target, from a scaled start; `seen` is called where the loss is."""

    def loss(params, hyper, batch):
        if seen is not None:
            seen(params)
        return jnp.sum((params - hyper["target"]) ** 2)

    run = hg.Training(
        loss,
        optimizer=optimizer or hg.Momentum(lambda h, t: h["rate"], 0.5),
        batches=lambda t: None,
        steps=steps,
    )
    return hg.Objective(
        run,
        init=lambda hyper, key: hyper["scale"] * jnp.ones(2),
        score=lambda params, hyper, key: jnp.sum((params - 1) ** 2) + hyper["scale"] ** 2,
    )


HYPER = {"rate": 0.1, "scale": 2.0, "target": jnp.array([0.5, 1.5])}


def test_a_training_run(x64):
    """The start, the run and the score; near enough, the smoothed gradient is the exact one."""
    exact = jax.grad(objective())(HYPER)
    found = many(objective(), HYPER, lambda key: hg.Evolution(30, spread=1e-3, key=key))
    assert_mean(found, exact, within=0.25)


def test_the_optimizer_need_not_be_differentiable():
    """Steps of fixed sizes: the exact derivative with respect to the target is zero."""
    optimizer = hg.from_optax(lambda hyper: optax.sign_sgd(hyper["rate"]))
    run = objective(optimizer, steps=20)
    assert not jax.grad(run)(HYPER)["target"].any()
    found = gradient(run, HYPER, pairs=64, spread=0.3)["target"]
    assert found[0] < -0.1
    assert found[1] > 0.1


def test_what_is_not_differentiated_is_not_perturbed():
    adjoint = hg.Evolution(4, spread=0.1)
    apart = lambda moved: objective()({**HYPER, **moved, "n": 3, "f": jnp.tanh}, adjoint=adjoint)
    alone = lambda scale: objective()({**HYPER, "scale": scale}, adjoint=adjoint)
    np.testing.assert_allclose(jax.grad(apart)({"scale": 2.0})["scale"], jax.grad(alone)(2.0))


def test_under_every_transformation():
    """In blocks too, one of which is not full."""
    f = lambda h, block: objective()(h, adjoint=hg.Evolution(4, spread=0.1, block=block))
    two = jax.tree.map(lambda x: jnp.stack([x, 2.0 * x]), HYPER)
    scanned = lambda h: jax.lax.scan(lambda c, _: (c + f(h, 3), None), 0.0, None, length=2)[0] / 2
    wanted = jax.grad(f)(HYPER, None)
    for got in (
        jax.tree.map(lambda x: x[0], jax.vmap(jax.jit(jax.grad(lambda h: f(h, None))))(two)),
        jax.grad(jax.checkpoint(scanned))(HYPER),
    ):
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3)


def test_runs_and_compilations():
    """Every member and the middle run once; another key or spread compiles nothing."""
    steps, traces = [], []

    def seen(params):
        traces.append(1)
        jax.debug.callback(lambda params: steps.append(1), params)

    run = objective(steps=5, seen=seen)
    gradient(run, HYPER, pairs=3, spread=0.1)
    jax.effects_barrier()
    assert len(steps) == (2 * 3 + 1) * 5
    before = len(traces)
    gradient(run, HYPER, pairs=3, spread=0.2, key=5)
    assert len(traces) == before


def test_tuning_draws_fresh_perturbations():
    """Without moving, every outer step has another estimate, the one with its own count."""
    adjoint = hg.Evolution(2, spread=0.1)
    options = {"steps": 3, "adjoint": adjoint, "progress": False}
    result = hg.tune(objective(), HYPER, optax.sgd(0.0), **options)
    norms = [record.norm for record in result.history]
    assert len(set(norms)) == 3
    for i, found in enumerate(norms):
        wanted = objective().hypergradient(HYPER, adjoint=adjoint, carry=jnp.int32(i)).gradient
        np.testing.assert_allclose(found, optax.tree.norm(wanted), rtol=1e-4)
    assert {record.value for record in result.history} == {float(objective()(HYPER))}
    assert result.diagnosis is None
    assert result.message == "Took the start of 3 steps."


# What it refuses.


def test_a_run_alone_is_refused():
    for adjoint in (
        hg.Evolution(spread=0.1),
        hg.PersistentEvolution(spread=0.1, window=2),
    ):
        with pytest.raises(ValueError, match=r"objective\(hyper, adjoint=\w*Evolution\(…\)\)"):
            objective().run(HYPER, KEYS[0], adjoint=adjoint)


@pytest.mark.parametrize(
    "adjoint", [hg.Evolution(spread=0.1), hg.PersistentEvolution(spread=0.1, window=2)]
)
def test_other_derivatives_are_refused(adjoint):
    def outside(data):
        run = objective()
        score = lambda params, hyper, key: jnp.sum((params - data) ** 2)
        return hg.Objective(run.training, init=run.init, score=score)(HYPER, adjoint=adjoint)

    with pytest.raises(ValueError, match="something that the objective closes over"):
        jax.grad(outside)(jnp.ones(2))
    second = jax.grad(lambda h: jax.grad(lambda h: objective()(h, adjoint=adjoint))(h)["rate"])
    with pytest.raises(ValueError, match="first derivatives only"):
        second(HYPER)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pairs": 0, "spread": 0.1}, r"Evolution\(pairs=0\): a whole number, at least 1"),
        ({"block": 0, "spread": 0.1}, r"Evolution\(block=0\): a whole number, at least 1"),
        ({"spread": "0.1"}, "spread='0.1' is no standard deviation"),
        ({"spread": 0.0}, "spread=0.0 is no standard deviation"),
        ({"spread": {"rate": [0.1, -1]}}, "spread=-1 is no standard deviation"),
        ({"spread": float("nan")}, "spread=nan is no standard deviation"),
    ],
)
def test_misuse(options, words):
    with pytest.raises(ValueError, match=words):
        hg.Evolution(**options)


@pytest.mark.parametrize("adjoint", [hg.Evolution, partial(hg.PersistentEvolution, window=2)])
def test_whole_numbers_and_keys(adjoint):
    """NumPy's too; what is none is refused at once."""
    given = adjoint(spread=0.1, pairs=np.int64(3), key=np.int64(3))
    assert (given.pairs, given.key) == (3, jax.random.key(3))
    for wrong in (2.5, True, "8"):
        with pytest.raises(ValueError, match="whole number"):
            adjoint(spread=0.1, pairs=wrong)
    with pytest.raises(ValueError, match="a seed goes from 0"):
        adjoint(spread=0.1, key=-1)


@pytest.mark.parametrize("adjoint", [hg.Evolution, partial(hg.PersistentEvolution, window=2)])
def test_second_derivatives_by_the_contract_are_refused(adjoint):
    found = lambda h: objective().hypergradient(h, adjoint=adjoint(spread=0.1)).gradient["rate"]
    with pytest.raises(ValueError, match="first derivatives only"):
        jax.grad(found)(jax.tree.map(jnp.asarray, HYPER))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("adjoint", [hg.Evolution, partial(hg.PersistentEvolution, window=2)])
def test_hyperparameters_in_half_precision(adjoint, dtype):
    """They stay what they are, and the estimate is about what it is in float32, of other draws."""
    hyper = jax.tree.map(jnp.float32, HYPER)
    run = lambda rate, by: objective()(hyper | {"rate": rate}, adjoint=by)
    estimate = jax.grad(lambda rate: run(rate, adjoint(400, spread=0.01)))
    found, right = estimate(hyper["rate"].astype(dtype)), estimate(hyper["rate"])
    assert found.dtype == dtype
    np.testing.assert_allclose(np.float32(found), right, rtol=0.3)


def test_a_spread_that_does_not_fit():
    with pytest.raises(ValueError, match="spread has the structure"):
        gradient(objective(), HYPER, spread={"rate": 0.1})

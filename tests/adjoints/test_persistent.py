"""`PersistentEvolution`: unbiased however short the window, and one window an outer step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
import hindgrad.tuning.tune as tuning
from means import assert_mean

KEYS = jax.random.split(jax.random.key(4), 1200)
STEPS = 7
COUPLING = jnp.array([[0.0, -1.5], [-1.5, 0.0]])
HYPER = {"pull": 0.3, "scale": 1.0}


def training(optimizer=None, seen=None):
    """Two parameters that feed each other, and a pull on both."""

    def loss(params, hyper, batch):
        if seen is not None:
            seen(params)
        force = jnp.array([-2.0, 1.0]) * hyper["pull"]
        return params @ COUPLING @ params / 2 + force @ params

    optimizer = optimizer or hg.Momentum(0.3, 0.0)
    return hg.Training(loss, optimizer=optimizer, batches=lambda t: None, steps=STEPS)


def influence(run=None, score=None):
    """A pull that lowers the score at once, and raises it by far later. It is linear in it."""
    return hg.Objective(
        run or training(),
        init=lambda hyper, key: hyper["scale"] * jnp.array([0.1, -0.2]),
        score=score or (lambda params, hyper, key: params[1] + hyper["scale"] ** 2),
    )


def adjoint(pairs=50, window=3, **options):
    return hg.PersistentEvolution(pairs, window=window, spread=0.2, **options)


def cut_off(hyper, window):
    """What evolution strategies without persistence would give on average: the derivative of every
    window's change of score with what came before as constant."""
    run, params, memory, total = training(), jnp.array([0.1, -0.2]), None, 0.0
    for first in range(0, STEPS, window):
        before = jax.tree.map(jax.lax.stop_gradient, (params, memory))
        options: dict = {"start": first, "steps": min(window, STEPS - first), "state": before[1]}
        end = run(before[0], hyper, **options)
        total += end.params[1] - before[0][1]
        params, memory = end.params, end.state
    return total


def test_unbiased_where_windows_by_themselves_have_the_wrong_sign(x64):
    """Three windows, the last one short."""
    exact = jax.grad(influence())(HYPER)
    for window in (1, 2, 3):
        assert jax.grad(cut_off)(HYPER, window)["pull"] < 0 < exact["pull"]
    estimate = jax.grad(lambda h, key: influence()(h, adjoint=adjoint(key=key)))
    found = jax.jit(jax.vmap(lambda key: estimate(HYPER, key)))(KEYS)
    assert_mean(found["pull"], exact["pull"])
    assert_mean(found["scale"], exact["scale"])  # of the start, and of the score itself


def test_unbiased_one_window_at_a_time(x64):
    """As `tune` goes: the mean over the windows of a pass; so for the value."""
    objective, key = influence(), jax.random.key(0)
    hyper = jax.tree.map(jnp.asarray, HYPER)
    begin = adjoint().first_carry(objective.scored(key), hyper)

    def step(passing, _):
        found = objective.hypergradient(hyper, key, adjoint=adjoint(), carry=passing)
        return found.carry, (found.value, found.gradient)

    passing, _ = jax.jit(step)(begin, None)  # a whole pass, for the values
    assert int(passing.done) == 3
    _, (values, found) = jax.jit(lambda p: jax.lax.scan(step, p, length=3 * 900))(passing)
    exact = jax.grad(objective)(HYPER)
    for name in HYPER:
        assert_mean(found[name].reshape(900, 3).mean(axis=1), exact[name])
    assert_mean(values[2::3], objective(HYPER) + 0.2**2)  # the scale's square is smoothed too


@pytest.mark.parametrize("window", [STEPS, 3 * STEPS])
def test_one_window_is_plain_evolution(window):
    evaluate = lambda a: jax.value_and_grad(lambda h: influence()(h, adjoint=a))(HYPER)
    plain = evaluate(hg.Evolution(5, spread=0.2, key=2))
    found = evaluate(adjoint(5, window, key=2))
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)


def test_under_every_transformation():
    """In blocks too, one of which is not full."""
    f = lambda h, **options: influence()(h, adjoint=adjoint(4, **options))
    two = jax.tree.map(lambda x: jnp.stack([x, 2.0 * x]), HYPER)
    wanted = jax.grad(f)(HYPER)
    batched = jax.vmap(jax.jit(jax.grad(jax.checkpoint(f))))(two)
    for got in (jax.tree.map(lambda x: x[0], batched), jax.grad(lambda h: f(h, block=3))(HYPER)):
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3)


def test_members_that_diverge_count_as_the_worst():
    def gradient(value, limit):
        score = lambda params, hyper, key: jnp.where(params[1] > limit, value, params[1])
        return jax.grad(lambda h: influence(score=score)(h, adjoint=adjoint(8)))(HYPER)["pull"]

    assert gradient(jnp.nan, 1.0) > 0.5
    assert np.isnan(gradient(jnp.nan, -100.0))


def tune(objective, steps, rate=0.0, **options):
    options = {"progress": False, "patience": None, "key": 0, "choose": lambda h: 0.0} | options
    options = {"steps": steps, "adjoint": adjoint(2)} | options
    return hg.tune(objective, HYPER, optax.sgd(rate), **options)


def test_tuning_takes_a_window_a_step_and_a_draw_a_pass(monkeypatch):
    """The first step takes a pass. The score is the draw's alone, and a pass keeps its draw."""
    steps, counts = [], []

    def seen(params):
        jax.debug.callback(lambda params: steps.append(1), params)

    def count(*args):
        jax.effects_barrier()
        counts.append(len(steps))

    monkeypatch.setattr(tuning, "show_record", count)
    score = lambda params, hyper, key: jax.random.normal(key)
    objective = influence(training(seen=seen), score)
    values = [record.value for record in tune(objective, 6).history]
    members = 4
    assert np.diff([0, *counts]).tolist() == [members * n for n in (7, 3, 3, 1, 3, 3)]
    draws = [float(jax.random.normal(jax.random.fold_in(jax.random.key(0), i))) for i in range(6)]
    np.testing.assert_allclose(values, [draws[i] for i in (0, 1, 1, 1, 4, 4)], rtol=1e-6)


def test_the_answer_is_that_of_a_plain_run():
    """The values of the steps are not: they come from perturbed members."""
    objective = influence()
    result = hg.tune(
        objective, HYPER, optax.sgd(0.01), steps=4, adjoint=adjoint(pairs=1), progress=False
    )
    np.testing.assert_allclose(result.value, objective(result.hyper), rtol=1e-6)
    assert result.value != min(record.value for record in result.history)


def test_an_interrupted_tuning_ends_with_the_same_result(tmp_path, monkeypatch):
    """To the bit, with an optimizer that counts its steps."""
    objective = influence(training(hg.from_optax(lambda hyper: optax.adam(0.3))))
    whole = tune(objective, 8, 0.01)

    class Killed(Exception):
        pass

    def kill(bar, record, best):
        del bar, best
        if record.step in (3, 4):
            raise Killed

    monkeypatch.setattr("hindgrad.checkpoint.SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(tuning, "show_record", kill)
    for _ in range(2):
        with pytest.raises(Killed):
            tune(objective, 8, 0.01, checkpoint=tmp_path)
    resumed = tune(objective, 8, 0.01, checkpoint=tmp_path)
    assert len({record.norm for record in whole.history}) == 8
    assert resumed.history == whole.history
    assert resumed.hyper == whole.hyper
    assert whole.diagnosis is None


def test_a_second_call_compiles_nothing():
    """With another key, spread and start."""
    traces = []
    objective = influence(training(seen=traces.append))
    for i in range(2):
        another = hg.PersistentEvolution(2, window=3, spread=0.1 + i, key=i)
        jax.grad(lambda h, a=another: objective(h, adjoint=a))({"pull": 0.1 * i, "scale": 1.0})
        traces.append("end")
    assert traces[-1] == traces[-2] == "end"


def test_misuse():
    with pytest.raises(ValueError, match=r"PersistentEvolution\(window=0\): a whole number"):
        adjoint(window=0)

"""State beside the weights on the way back: what is kept of it, and that the run comes home."""

import jax
import jax.numpy as jnp
import optax
import pytest

import hindgrad as hg
from tests.stateful import (
    HYPER,
    assert_close,
    by_hand,
    loss,
    objective,
    score,
    start,
)


@pytest.fixture(autouse=True)
def ranks():
    """Vectors are added to matrices here."""
    with jax.numpy_rank_promotion("allow"):
        yield


def test_against_a_loop(x64):
    found = jax.grad(lambda h: objective()(h, adjoint=hg.Reversible()))(HYPER)
    assert_close(found, jax.grad(by_hand)(HYPER))


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

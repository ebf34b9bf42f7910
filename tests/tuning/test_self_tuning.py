"""An optax optimizer that tunes itself, against the formula written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg

START, TARGET = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.5, 0.5, 0.5])
CURVATURE = jnp.array([1.0, 2.0, 3.0])
OUTER = 1e-3


def gradient(params):
    return CURVATURE * (params - TARGET)


def train(optimizer, steps=10, gradients=gradient, valid=lambda params: None):
    """The usual jitted loop; the states of all steps."""

    @jax.jit
    def run(params, state):
        def step(carry, t):
            params, state = carry
            grads = gradients(params)
            updates, state = optimizer.update(grads, state, params, valid_grads=valid(params))
            return (optax.apply_updates(params, updates), state), state

        return jax.lax.scan(step, (params, state), jnp.arange(steps))

    (params, _), states = run(START, optimizer.init(START))
    return params, states


SGD = hg.self_tuning(lambda h: optax.sgd(h["rate"]), {"rate": 0.05}, optax.sgd(OUTER))


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_formula(decay):
    """Baydin et al. 2018, eq. 5 (SGD) and its momentum: rate ← rate + β g_t · v_{t−1}."""
    optimizer = hg.self_tuning(
        lambda h: optax.sgd(h["rate"], momentum=decay), {"rate": 0.05}, optax.sgd(OUTER)
    )
    got, states = train(optimizer)
    params, velocity, rate, rates = START, jnp.zeros(3), 0.05, []
    for _ in range(10):
        rate = rate + OUTER * gradient(params) @ velocity
        velocity = decay * velocity + gradient(params)
        params = params - rate * velocity
        rates.append(rate)
    assert rates[-1] > 1.1 * rates[0]
    np.testing.assert_allclose(states.hyper["rate"], rates, rtol=1e-5)
    np.testing.assert_allclose(got, params, rtol=1e-5)
    assert not states.skipped.any()


def test_valid_gradients():
    """The rate follows them; the parameters follow the training loss."""
    away = lambda params: -gradient(params)
    _, states = train(SGD, valid=away)
    assert (np.diff(states.hyper["rate"]) <= 0).all()
    rate = 0.05 - OUTER * gradient(START - 0.05 * gradient(START)) @ gradient(START)
    np.testing.assert_allclose(states.hyper["rate"][1], rate, rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_state_keeps_its_structure_and_dtypes(dtype):
    """As `jax.lax.scan` and jitted loops want it: also where a rate in float32 would make updates
    and moments of bfloat16 float32. What is not tuned is not in the state."""
    hyper = {"rate": 0.05, "b1": jnp.array(0.9), "nesterov": 1, "none": None}
    optimizer = hg.self_tuning(
        lambda h: optax.adam(h["rate"], b1=h["b1"], nesterov=h["nesterov"] == 1),
        hyper,
        optax.adam(1e-3),
    )
    params = {"w": START, "other": jnp.ones(2, dtype), "none": None}
    state = optimizer.init(params)
    updates, after = optimizer.update(params, state, params)
    describe = lambda tree: jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), tree)
    assert describe(after) == describe(state)
    assert describe(updates) == describe(params)
    assert (after.hyper["nesterov"], after.hyper["none"]) == (None, None)
    assert isinstance(optimizer, optax.GradientTransformationExtraArgs)


def test_in_a_chain_of_optax():
    """As any other transformation."""
    chain = optax.chain(optax.clip_by_global_norm(1e6), SGD)
    got, _ = train(chain)
    np.testing.assert_allclose(got, train(SGD)[0], rtol=1e-6)


def test_a_nan_changes_nothing_and_is_counted():
    """The gradient is NaN once: two hypergradients, that of the step and that of the next one."""
    optimizer = hg.self_tuning(lambda h: optax.sgd(h["rate"]), {"rate": 0.05}, optax.adam(0.01))
    state = optimizer.init(START)
    _, state = optimizer.update(START, state, START)
    _, broken = optimizer.update(START * jnp.nan, state, START)
    assert broken.skipped == 1
    jax.tree.map(np.testing.assert_array_equal, broken.outer, state.outer)
    assert broken.hyper["rate"] == state.hyper["rate"]
    _, state = optimizer.update(START, broken, START)
    assert state.skipped == 2
    _, state = optimizer.update(START, state, START)
    assert state.skipped == 2
    assert np.isfinite(state.hyper["rate"])


@pytest.mark.parametrize("outer", [1.0, -1.0, 1e6, -1e6])
def test_rates_stay_at_or_above_zero(outer):
    optimizer = hg.self_tuning(lambda h: optax.sgd(h["rate"]), {"rate": 0.0}, optax.sgd(outer))
    _, states = train(optimizer, gradients=lambda params: jnp.tanh(gradient(params)))
    assert (states.hyper["rate"] >= 0).all()


def test_a_rate_never_becomes_infinite():
    """A finite hypergradient times a wild outer rate overflows, and is taken."""
    optimizer = hg.self_tuning(lambda h: optax.sgd(h["rate"]), {"rate": 0.05}, optax.sgd(3e38))
    _, state = optimizer.update(10 * START, optimizer.init(START), START)
    _, state = optimizer.update(10 * START, state, START)
    assert np.isfinite(state.hyper["rate"])


def test_projection():
    optimizer = hg.self_tuning(
        lambda h: optax.sgd(h["rate"]),
        {"rate": 0.05},
        optax.sgd(1.0),
        project=hg.constraints.Box(rate=(0.01, 0.06)),
    )
    _, states = train(optimizer)
    assert (states.hyper["rate"] <= np.float32(0.06)).all()
    assert states.hyper["rate"][3] == np.float32(0.06)


def test_misuse():
    with pytest.raises(ValueError, match="without a float"):
        hg.self_tuning(lambda h: optax.sgd(0.1), {"rate": 1}, optax.sgd(0.1))

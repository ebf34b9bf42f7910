"""Every horizon's hypergradient, against `jax.grad` of loops written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
import problems

STEPS, EVERY = 9, 3
TINY = 1e-8
"""The outer rate: changes of the hyperparameters are too small to matter, and tell the gradient."""
HYPER = {"rate": np.array([0.1, 0.2, 0.15]), "decay": 0.5, "l2": 0.3}
START = np.array([1.0, -2.0])


def loss(params, hyper, batch):
    return jnp.sum(jnp.cosh(params - batch)) + hyper["l2"] * jnp.sum(params**2)


def batches(t):
    return jnp.stack([jnp.cos(1.0 * t), jnp.sin(1.0 * t)])


def valid_loss(params, hyper, t):
    """Depends on hyperparameters and on the step directly too."""
    return jnp.sum(params**3) + hyper["l2"] ** 2 + 0.1 * t * jnp.sum(params)


RATE = hg.schedules.Piecewise(knots=3, steps=STEPS, range=hg.schedules.Real())
TRAINING = hg.Training(
    loss,
    optimizer=hg.Momentum(lambda hyper, t: RATE(hyper["rate"], t), lambda hyper, t: hyper["decay"]),
    batches=batches,
    steps=STEPS,
)


def by_hand(hyper, first, steps, state):
    """Damped momentum from step `first` on."""
    for t in range(first, first + steps):
        params, velocity = state
        gradient = jax.grad(loss)(params, hyper, batches(t))
        velocity = hyper["decay"] * velocity - (1 - hyper["decay"]) * gradient
        state = params + hyper["rate"][t * 3 // STEPS] * velocity, velocity
    return state


def whole_past(hyper, end, begin):
    return valid_loss(by_hand(hyper, 0, end, begin)[0], hyper, end)


def last_window(hyper, end, begin):
    before = jax.lax.stop_gradient(by_hand(hyper, 0, end - EVERY, begin))
    return valid_loss(by_hand(hyper, end - EVERY, EVERY, before)[0], hyper, end)


def short_run(hyper, end, begin):
    del end
    return whole_past(hyper, EVERY, begin)


HORIZONS = {
    "carried": (hg.horizons.Carried(), whole_past),
    "forgotten": (hg.horizons.Forgotten(), last_window),
    "last window": (hg.horizons.LastWindow(), last_window),
    "last window, replayed": (hg.horizons.LastWindow(hg.Checkpointed(slots=1)), last_window),
    "restarted": (hg.horizons.Restarted(), short_run),
}


def tuned(horizon, optimizer, every=EVERY, training=TRAINING, hyper=None, valid=valid_loss):
    start = jax.tree.map(jnp.asarray, HYPER) if hyper is None else hyper
    return hg.tune_online(
        training,
        jnp.asarray(START),
        start,
        valid,
        optimizer,
        every=every,
        horizon=horizon,
        progress=False,
    )


@pytest.mark.parametrize("case", HORIZONS)
def test_hypergradients(x64, case):
    """At each of three changes, for a schedule, a decay and a hyperparameter of both losses."""
    horizon, expected = HORIZONS[case]
    trajectory = tuned(horizon, optax.sgd(TINY)).trajectory
    hyper = jax.tree.map(jnp.asarray, HYPER)
    begin = jnp.asarray(START), jnp.zeros(2)
    assert (trajectory.status == 0).all()
    for k in range(3):
        old = {n: trajectory.hyper[n][k - 1] if k else np.asarray(HYPER[n]) for n in HYPER}
        got = {n: (old[n] - trajectory.hyper[n][k]) / TINY for n in HYPER}
        value, wanted = jax.value_and_grad(expected)(hyper, (k + 1) * EVERY, begin)
        # The changes are tiny, but not zero.
        np.testing.assert_allclose(trajectory.values[k], value, rtol=1e-4)
        for name, gradient in wanted.items():
            assert problems.relative_error(got[name], gradient) <= 1e-5, name
    assert trajectory.steps.tolist() == [3, 6, 9]


def test_one_step_is_hypergradient_descent(x64):
    """Baydin et al. 2018, eq. 5 and 6: the rate grows by the product of two gradients in a row."""
    outer, steps = 1e-3, 8
    training = hg.Training(
        lambda params, hyper, batch: loss(params, {"l2": 0.1}, batch),
        optimizer=hg.Momentum(lambda hyper, t: hyper, 0.0),
        batches=batches,
        steps=steps,
    )
    next_batch = lambda params, hyper, t: training.loss(params, hyper, training.batches(t))
    result = tuned(
        hg.horizons.Forgotten(), optax.sgd(outer), 1, training, jnp.asarray(0.05), valid=next_batch
    )
    params, rate, rates = jnp.asarray(START), 0.05, []
    gradient = lambda params, t: jax.grad(training.loss)(params, None, batches(t))
    for t in range(steps):
        step = gradient(params, t)
        params = params - rate * step
        rate = rate + outer * gradient(params, t + 1) @ step
        rates.append(rate)
    np.testing.assert_allclose(result.trajectory.hyper, rates, rtol=1e-10)
    np.testing.assert_allclose(result.params, params, rtol=1e-10)


@pytest.mark.parametrize("name", ["forgotten", "last window"])
def test_any_optax_optimizer(name):
    """Through its state, with an integer in it."""
    training = hg.Training(
        loss,
        optimizer=hg.from_optax(lambda hyper: optax.adam(hyper["rate"][0], b1=hyper["decay"])),
        batches=batches,
        steps=6,
    )
    result = tuned(HORIZONS[name][0], optax.adam(0.01), training=training)
    wanted = tuned(hg.horizons.LastWindow(hg.Checkpointed()), optax.adam(0.01), training=training)
    jax.tree.map(
        lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4), result.hyper, wanted.hyper
    )
    assert result.state[0].count == 6

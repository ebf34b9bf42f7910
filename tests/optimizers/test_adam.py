"""Adam against optax, against the same run by hand, and where its derivative is delicate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
import problems


def by_hand(params, hyper, decoupled):
    def leaf(p, g, m, s, a, b1, wd, t):
        g = g if decoupled else g + wd * p
        m = b1 * m + (1 - b1) * g
        s = 0.99 * s + 0.01 * g**2
        step = m / (1 - b1 ** (t + 1)) / (jnp.sqrt(s / (1 - 0.99 ** (t + 1))) + 1e-8)
        return p - a * step - (a * wd * p if decoupled else 0), m, s

    def step(state, t):
        p, m, s = state
        a = problems.spread(problems.rate(hyper, t), p)
        value, g = jax.value_and_grad(problems.loss)(p, hyper, problems.batches(t))
        new = jax.tree.map(
            lambda *x: leaf(*x, t), p, g, m, s, a, hyper["decay"], hyper["weight_decay"]
        )
        return jax.tree.transpose(jax.tree.structure(p), jax.tree.structure((0, 0, 0)), new), value

    zeros = jax.tree.map(jnp.zeros_like, params)
    (params, *_), losses = problems.scan(step, (params, zeros, zeros))
    return problems.score(params, losses)


@pytest.mark.parametrize("weight_decay", [hg.Coupled, hg.Decoupled])
@pytest.mark.parametrize(("bits", "tolerance"), [(64, 1e-10), (32, 1e-5)])
def test_against_by_hand(key, weight_decay, bits, tolerance):
    with jax.enable_x64(bits == 64):
        params = problems.init(key)
        hyper = problems.hyper(params)
        hyper["rate"] = jax.tree.map(lambda r: 0.05 * r, hyper["rate"])
        decay = weight_decay(problems.weight_decay)
        training = problems.training(
            hg.Adam(problems.rate, problems.decay, 0.99, weight_decay=decay)
        )
        ours = jax.grad(lambda p, h: problems.score(training(p, h)), argnums=(0, 1))
        theirs = jax.grad(lambda p, h: by_hand(p, h, weight_decay is hg.Decoupled), argnums=(0, 1))
        # With L2 in the loss no gradient is exactly zero, since no weight is.
        got, wanted = jax.jit(lambda *args: (ours(*args), theirs(*args)))(params, hyper)
    assert problems.relative_error(got, wanted) <= tolerance


def test_same_trajectory_as_optax(key, x64):
    """In float64: in float32 optax's 1 − b2^t has five digits in the first steps."""
    params = problems.init(key)
    hyper = problems.hyper(params)
    ours = problems.training(hg.Adam(0.01, weight_decay=hg.Decoupled(0.1)), 50)(params, hyper)
    optimizer = hg.from_optax(lambda h: optax.adamw(0.01, weight_decay=0.1))
    theirs = problems.training(optimizer, 50)(params, hyper)
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-12)


def dead_unit(optimizer, steps=5):
    """A parameter that the loss reads only through hyper["leak"], here 0: its gradient is zero."""

    def loss(params, hyper, batch):
        return (params["live"] - 1) ** 2 + hyper["leak"] * params["dead"] + 0.0 * batch

    training = hg.Training(loss, optimizer=optimizer, batches=lambda t: t * 1.0, steps=steps)
    start = {"live": jnp.asarray(0.5), "dead": jnp.asarray(0.2)}

    def score(hyper):
        params = training(start, hyper).params
        return params["live"] ** 2 + params["dead"]

    return score


def test_derivative_at_zero_gradient(x64):
    """The derivative through a gradient of exactly zero is the true one: −steps · rate / eps."""
    score = dead_unit(hg.Adam(lambda h, t: h["rate"], eps=1e-3))
    hyper = {"rate": 0.1, "leak": 0.0}
    got = jax.grad(score)(hyper)
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(got))
    h = 1e-8
    difference = (score({**hyper, "leak": h}) - score({**hyper, "leak": -h})) / (2 * h)
    assert abs(got["leak"] - difference) <= 1e-4 * abs(difference)
    assert abs(difference + 5 * 0.1 / 1e-3) <= 1e-4 * abs(difference)


def test_optax_adam_is_nan_there_and_says_so():
    score = dead_unit(hg.from_optax(lambda h: optax.adam(h["rate"])))
    with pytest.raises(Exception, match=r"exactly zero.*eps_root"):
        jax.grad(score)({"rate": 0.1, "leak": 0.0})
    with pytest.raises(Exception, match=r"exactly zero.*eps_root"):
        jax.jit(jax.grad(score))({"rate": 0.1, "leak": 0.0})


def test_optax_adam_with_eps_root_is_finite():
    score = dead_unit(hg.from_optax(lambda h: optax.adam(h["rate"], eps_root=1e-8)))
    gradient = jax.grad(score)({"rate": 0.1, "leak": 0.0})
    assert all(np.isfinite(leaf) for leaf in jax.tree.leaves(gradient))


def test_a_diverged_run_is_nan_and_no_fault():
    """NaN because the run blew up is not blamed on optax."""
    loss = lambda params, hyper, batch: jnp.sum(params**4) + 0.0 * batch
    optimizer = hg.from_optax(lambda h: optax.sgd(h, momentum=0.9))
    training = hg.Training(loss, optimizer=optimizer, batches=lambda t: t * 1.0, steps=50)
    gradient = jax.grad(lambda h: jnp.sum(training(jnp.full(2, 5.0), h).params))(1.0)
    assert not np.isfinite(gradient)

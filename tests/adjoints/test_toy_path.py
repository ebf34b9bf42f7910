"""The toy path of Maclaurin, Duvenaud & Adams 2015 (Figure 1; settings from their code)."""

import jax
import jax.numpy as jnp
import numpy as np

import hindgrad as hg

STEPS = 50
REAL = [395.3552074251, 356.6034635, 356.3042217, 376.0604618]
"""The losses in real arithmetic, before each of three outer steps and after."""
RECORDED = 395.30489703
"""The authors' first loss: their decay is .99 rounded up to 64881/65536, their 1 − decay .01."""


def valley(w, hyper, batch):
    del hyper, batch
    y, x = w
    r = 100 * (x - y**2) ** 2 + (1 - y) ** 2 + 200 * y
    return 800 * jax.nn.sigmoid(r / 500)


def final_loss(optimizer, adjoint, hyper):
    training = hg.Training(valley, optimizer=optimizer, batches=lambda t: None, steps=STEPS)
    return valley(training(jnp.array([1.4, 3.9]), hyper, adjoint=adjoint).params, None, None)


def test_losses_of_real_arithmetic(x64):
    """50 rates and 50 decays, three outer steps of damped momentum."""
    optimizer = hg.Momentum(
        lambda hyper, t: jnp.exp(hyper["log_rate"][t]),
        lambda hyper, t: jax.nn.sigmoid(hyper["logit_decay"][t]),
    )
    adjoint = hg.Reversible(min_decay=0.9)
    value = jax.jit(jax.value_and_grad(lambda hyper: final_loss(optimizer, adjoint, hyper)))
    hyper = {
        "log_rate": jnp.full(STEPS, -4.5),
        "logit_decay": jnp.full(STEPS, jnp.log(0.99 / 0.01)),
    }
    velocity = jax.tree.map(jnp.zeros_like, hyper)
    losses = []
    for _ in REAL:
        loss, grads = value(hyper)
        losses.append(float(loss))
        velocity = jax.tree.map(lambda v, g: 0.9 * v - 0.1 * g, velocity, grads)
        hyper = jax.tree.map(lambda h, v: h + 0.01 * v, hyper, velocity)
    print(losses)
    np.testing.assert_allclose(losses, REAL, rtol=1e-6)


def test_recorded_first_loss(x64):
    """With the authors' decay; their velocity is larger by .01 / (1 − decay)."""
    decay = 64881 / 65536
    optimizer = hg.Momentum(float(np.exp(-4.5)) * 0.01 / (1 - decay), decay)
    np.testing.assert_allclose(
        final_loss(optimizer, hg.Reversible(), {}), RECORDED, atol=5e-9, rtol=0
    )

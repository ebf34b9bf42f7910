"""Second derivatives, of own and optax optimizers, by every adjoint that has them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg

STEPS = 5
X = np.random.default_rng(0).normal(size=(12, 3))
HYPER = {"rate": 0.1, "l2": 0.3}


def objective(optimizer, adjoint):
    def loss(params, hyper, batch):
        return jnp.mean(jnp.tanh(X @ params - 0.3) ** 2) + hyper["l2"] * jnp.sum(params**2)

    training = hg.Training(loss, optimizer=optimizer, batches=lambda t: None, steps=STEPS)
    run = hg.Objective(training, init=jnp.ones(3), score=lambda p, h, k: jnp.sum(jnp.sin(p)))
    return lambda hyper: run(hyper, adjoint=adjoint)


OPTIMIZERS = {
    "momentum": hg.Momentum(lambda h, t: h["rate"], 0.5),
    "adam": hg.Adam(lambda h, t: h["rate"], eps=1e-3),
    "sgd": hg.from_optax(lambda h: optax.sgd(h["rate"])),
}
ADJOINTS = [
    hg.Stored(),
    hg.Checkpointed(slots=2),
    hg.Forward(),
    hg.Truncated(STEPS, hg.Checkpointed(slots=1)),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("adjoint", ADJOINTS, ids=lambda adjoint: type(adjoint).__name__)
def test_hessian_and_grad_of_grad(x64, optimizer, adjoint):
    run = objective(optimizer, adjoint)
    gradient = jax.jit(jax.grad(objective(optimizer, hg.Stored())))
    along = {"rate": 0.7, "l2": -0.4}
    at = lambda step: jax.tree.map(lambda h, a: h + step * a, HYPER, along)
    right = jax.tree.map(lambda a, b: (a - b) / 2e-5, gradient(at(1e-5)), gradient(at(-1e-5)))
    hessian = jax.hessian(run)(HYPER)
    product = {
        name: sum(row[other] * along[other] for other in along) for name, row in hessian.items()
    }
    dot = lambda hyper: sum(jax.grad(run)(hyper)[name] * along[name] for name in along)
    again = jax.grad(dot)(HYPER)
    for name in HYPER:
        np.testing.assert_allclose(product[name], right[name], rtol=1e-6)
        np.testing.assert_allclose(again[name], right[name], rtol=1e-6)


@pytest.mark.parametrize("adjoint", ADJOINTS[:2], ids=lambda adjoint: type(adjoint).__name__)
def test_hessians_of_many_runs_and_scores(x64, adjoint):
    """With `vmap` around and within, where what is asked for depends on some inputs alone."""
    run = objective(OPTIMIZERS["momentum"], adjoint)
    rates = jnp.array([0.05, 0.1])
    both = jax.vmap(lambda rate: jax.hessian(run)({"rate": rate, "l2": 0.3}))(rates)
    alone = jax.hessian(run)(HYPER)
    for name, row in alone.items():
        for other in row:
            np.testing.assert_allclose(both[name][other][1], row[other], rtol=1e-10)
    several = lambda hyper: jnp.stack([run(hyper), hyper["l2"] ** 2, run(hyper) ** 2])
    found = jax.jacfwd(jax.jacrev(several))(HYPER)
    np.testing.assert_allclose(found["rate"]["l2"][0], alone["rate"]["l2"], rtol=1e-10)
    np.testing.assert_allclose(found["l2"]["l2"][1], 2.0, rtol=1e-10)


def test_a_run_from_the_state_of_another(x64):
    """A count among the memory is no derivative."""
    training = hg.Training(
        lambda params, hyper, batch: jnp.sum(jnp.cos(params)),
        optimizer=hg.from_optax(lambda h: optax.adam(h, eps_root=1e-8)),
        batches=lambda t: None,
        steps=4,
    )

    def in_two(rate, adjoint):
        first = training(jnp.ones(2), rate, steps=2, adjoint=adjoint)
        second = training(first.params, rate, state=first.state, start=2, steps=2, adjoint=adjoint)
        return jnp.sum(second.params**2)

    right = jax.grad(lambda rate: jnp.sum(training(jnp.ones(2), rate).params ** 2))(0.1)
    for adjoint in (hg.Stored(), hg.Checkpointed(slots=1), hg.Forward(), hg.Forward(block=1)):
        found = jax.grad(in_two)(0.1, adjoint)
        np.testing.assert_allclose(found, right, rtol=1e-9)

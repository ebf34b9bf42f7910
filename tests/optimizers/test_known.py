"""Steps whose result is known: their derivatives, and what is not computed for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
import problems
from hindgrad import trees
from hindgrad.optimizers.closed import ClosedOptimizer

RATE, DECAY = (lambda hyper, t, name=name: hyper[name] for name in ("rate", "decay"))
CONVENTIONS = [hg.Damped(), hg.PositionFirst(), hg.HeavyBall(), hg.Nesterov()]
OPTIMIZERS = {
    **{type(c).__name__: hg.Momentum(RATE, DECAY, convention=c) for c in CONVENTIONS},
    "clipped": hg.Momentum(RATE, DECAY, clip=hg.ClipByGlobalNorm(0.5)),
    "coupled": hg.Momentum(RATE, weight_decay=hg.Coupled(DECAY)),
    "decoupled": hg.Momentum(RATE, weight_decay=hg.Decoupled(DECAY)),
    "Adam": hg.Adam(RATE, weight_decay=hg.Decoupled(DECAY)),
    "averaged": hg.Averaged(hg.Momentum(RATE), decay=DECAY),
}
HYPER = {"rate": jnp.float32(0.3), "decay": jnp.float32(0.8)}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_derivative_is_that_of_the_step(x64, name):
    optimizer, t = OPTIMIZERS[name], jnp.int32(0)
    params, grads, *others = (
        {"w": jax.random.normal(key, (3, 2)), "b": jax.random.normal(key, (2,))}
        for key in jax.random.split(jax.random.key(0), 5)
    )
    hyper = jax.tree.map(lambda x: x.astype(float), HYPER)
    coefficients = optimizer.coefficients(hyper, t)
    memory = optimizer.init(params, coefficients)
    squares = zip(jax.tree.leaves(memory), jax.tree.leaves((others, others)), strict=False)
    nonzero = [m + jnp.mean(x**2) if m.ndim == 0 else m + x**2 for m, x in squares]
    memory = jax.tree.unflatten(jax.tree.structure(memory), nonzero)
    closed = ClosedOptimizer.of(optimizer, hyper, t, (params, memory))
    given = grads, memory, params, coefficients
    after, pull = jax.vjp(closed.update, *given)
    slightly_off = lambda new, old: jnp.where(new == old, new, new + 1e-12)
    known = jax.tree.map(slightly_off, after, (params, memory))
    found, pull_known = jax.vjp(lambda *given: closed.update_to(*given, known), *given)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(known), strict=True):
        np.testing.assert_array_equal(x, y)
    cotangent = jax.tree.map(jnp.cos, after)
    assert problems.relative_error(pull_known(cotangent), pull(cotangent)) < 1e-7
    assert trees.finite(pull(cotangent))


def test_gradients_that_nothing_asks_for_are_not_computed():
    """By a rate, the way back needs no gradient: its last products are left out."""
    rows, width = 64, 96
    x = jnp.asarray(np.random.default_rng(0).normal(size=(rows, width)), jnp.float32)

    def loss(params, hyper, batch):
        return jnp.mean(jnp.tanh(x @ params) ** 2)

    training = hg.Training(loss, optimizer=hg.Momentum(RATE, DECAY), batches=lambda t: t, steps=5)
    params = jnp.eye(width)
    score = lambda h: jnp.sum(training(params, h, adjoint=hg.Stored()).params ** 2)

    def operations(*names):
        of = lambda some: score(HYPER | some)
        compiled = jax.jit(jax.grad(of)).lower({name: HYPER[name] for name in names}).compile()
        return compiled.cost_analysis()["flops"]

    product = 2 * rows * width**2
    saved = operations("rate", "decay") - operations("rate")
    assert 0.9 * product < saved < 1.5 * product


def test_an_update_of_its_own(x64):
    """Of an optimizer whose step is not what its moves make, nothing is known."""

    class Halved(hg.Momentum):
        def update(self, grads, memory, params, coefficients):
            half = jax.tree.map(lambda g: g / 2, grads)
            return super().update(half, memory, params, coefficients)

    training = lambda optimizer: hg.Training(
        problems.loss, optimizer=optimizer, batches=problems.batches, steps=4
    )
    params = problems.init(jax.random.key(0))
    hyper = {"rate": 0.3, "log_l2": -3.0}
    score = lambda h, adjoint: problems.valid(
        training(Halved(RATE))(params, h, adjoint=adjoint).params
    )
    found = jax.grad(score)(hyper, hg.Stored())
    wanted = jax.grad(score)(hyper, hg.Forward())
    assert problems.relative_error(found, wanted) < 1e-9

"""Half precision and complex numbers, by own optimizers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg

X = jax.random.normal(jax.random.key(0), (20, 3))
Y = jnp.tanh(X @ jnp.array([1.0, -2.0, 0.5]))
OPTIMIZERS = {
    "adam": hg.Adam(lambda h, t: h),
    "slow momentum": hg.Momentum(lambda h, t: 100 * h, 0.999),
    "adamw": hg.Adam(lambda h, t: h, weight_decay=hg.Decoupled(0.01)),
}


def value_and_grad(optimizer, adjoint, start, compute=jnp.float32):
    def loss(params, hyper, batch):
        predicted = (X.astype(compute) @ params.astype(compute)).astype(Y.dtype)
        return jnp.mean((predicted - Y) ** 2)

    training = hg.Training(loss, optimizer=optimizer, batches=lambda t: None, steps=10)
    run = hg.Objective(training, init=start, score=lambda p, h, k: loss(p, h, None))
    return jax.value_and_grad(lambda h: run(h, adjoint=adjoint))(0.05)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16], ids=lambda d: d.__name__)
def test_half_precision_is_near_single(optimizer, dtype):
    """Coefficients and moments are in float32: a decay of .999 is not 1."""
    start = jnp.array([0.1, 0.2, 0.3])
    right = value_and_grad(optimizer, hg.Stored(), start)
    for adjoint in (
        hg.Stored(),
        hg.Checkpointed(slots=2),
        hg.Reversible(min_decay=0.9),
        hg.Forward(),
    ):
        found = value_and_grad(optimizer, adjoint, start.astype(dtype))
        np.testing.assert_allclose(found, right, rtol=0.06)


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_half_precision_within_the_loss(optimizer):
    start = jnp.array([0.1, 0.2, 0.3])
    right = value_and_grad(optimizer, hg.Stored(), start)
    for adjoint in (hg.Stored(), hg.Reversible(min_decay=0.9)):
        found = value_and_grad(optimizer, adjoint, start, compute=jnp.bfloat16)
        np.testing.assert_allclose(found, right, rtol=0.05)


def test_unused_parameters_stay_in_float16():
    training = hg.Training(
        lambda w, h, b: jnp.sum((w[:2].astype(jnp.float32) - 0.2) ** 2),
        optimizer=hg.Adam(0.05),
        batches=lambda t: None,
        steps=2,
    )
    params = training(jnp.ones(4, jnp.float16), None).params
    assert params.dtype == jnp.float16
    np.testing.assert_allclose(params, [0.9, 0.9, 1, 1], rtol=1e-3)


A = np.random.default_rng(0).normal(size=(8, 3, 2)) @ np.array([1, 1j])
TARGET = A @ np.array([1 + 1j, -2j, 0.5])


def complex_loss(w, hyper, batch):
    return jnp.mean(jnp.abs(A @ w - TARGET) ** 2)


def momentum_by_hand(rate):
    w, v = jnp.full(3, 0.1 + 0.1j), jnp.zeros(3, complex)
    for _ in range(20):
        v = 0.5 * v - 0.5 * jnp.conj(jax.grad(complex_loss)(w, None, None))
        w = w + rate * v
    return complex_loss(w, None, None)


def adam_by_hand(rate):
    w, m, s = jnp.full(3, 0.1 + 0.1j), jnp.zeros(3, complex), jnp.zeros(3)
    for t in range(1, 21):
        g = jnp.conj(jax.grad(complex_loss)(w, None, None))
        m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * (g.real**2 + g.imag**2)
        w = w - rate * (m / (1 - 0.9**t)) / (jnp.sqrt(s / (1 - 0.999**t)) + 1e-8)
    return complex_loss(w, None, None)


@pytest.mark.parametrize(
    ("optimizer", "by_hand"),
    [(hg.Momentum(lambda h, t: h, 0.5), momentum_by_hand), (hg.Adam(lambda h, t: h), adam_by_hand)],
    ids=["momentum", "adam"],
)
def test_complex_parameters_go_down(x64, optimizer, by_hand):
    training = hg.Training(complex_loss, optimizer=optimizer, batches=lambda t: None, steps=20)
    run = hg.Objective(training, init=jnp.full(3, 0.1 + 0.1j), score=complex_loss)
    right = jax.value_and_grad(by_hand)(0.05)
    assert right[0] < complex_loss(jnp.full(3, 0.1 + 0.1j), None, None)
    for adjoint in (hg.Stored(), hg.Checkpointed(slots=2), hg.Forward()):
        found = jax.value_and_grad(lambda h, a=adjoint: run(h, adjoint=a))(0.05)
        np.testing.assert_allclose(found, right, rtol=1e-9)


def test_complex_numbers_are_refused_by_name(x64):
    training = hg.Training(
        complex_loss, optimizer=hg.Momentum(0.1), batches=lambda t: None, steps=2
    )
    with pytest.raises(ValueError, match=r"Reversible.*complex"):
        training(jnp.full(3, 1j), None, adjoint=hg.Reversible())
    step = lambda s, h, t: s * h
    run = lambda h: hg.unroll(step, jnp.complex128(1), h, 3, adjoint=hg.Forward())[0].real
    with pytest.raises(ValueError, match=r"Forward.*complex"):
        jax.grad(run)(1 + 1j)


def test_coefficients_of_other_kinds():
    """Truth values are numbers, and a model of numbers is no function."""
    training = lambda **options: hg.Training(
        lambda w, h, b: jnp.sum(w**2),
        optimizer=hg.Momentum(**options),
        batches=lambda t: None,
        steps=3,
    )
    flags = training(rate=lambda h, t: 0.1, decay=lambda h, t: h)(jnp.ones(2), False).losses
    np.testing.assert_allclose(flags, training(rate=0.1, decay=0.0)(jnp.ones(2), None).losses)


def test_a_model_of_rates(key):
    model = eqx.nn.Linear(3, 2, key=key)
    rates = jax.tree.map(lambda _: 0.1, model)
    assert callable(rates)
    training = lambda rate: hg.Training(
        lambda m, h, b: jnp.sum(jax.vmap(m)(X) ** 2),
        optimizer=hg.Momentum(rate),
        batches=lambda t: None,
        steps=3,
    )
    np.testing.assert_array_equal(
        training(rates)(model, None).losses, training(0.1)(model, None).losses
    )

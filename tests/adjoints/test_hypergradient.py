"""The contract between tuning and adjoints: value, gradient, carry and status."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg

HYPER = {"penalty": jnp.float32(-1.0), "rate": jnp.float32(0.3)}
CENTER = jnp.array([1.0, -2.0, 0.5])


def objective(steps=60, optimizer=None):
    def loss(params, hyper, batch):
        return jnp.sum((params - CENTER) ** 2) / 2 + jnp.exp(hyper["penalty"]) * jnp.sum(params**2)

    optimizer = optimizer or hg.Momentum(lambda h, t: h["rate"], 0.5)
    training = hg.Training(loss, optimizer=optimizer, batches=lambda t: None, steps=steps)
    score = lambda params, hyper, key: jnp.sum((params - 0.7 * CENTER) ** 2)
    return hg.Objective(training, init=jnp.zeros(3), score=score)


EXACT = [
    hg.Stored(),
    hg.Checkpointed(),
    hg.Reversible(),
    hg.Forward(),
    hg.Truncated(60, hg.Reversible()),
    hg.Implicit(),
]


@pytest.mark.parametrize("adjoint", EXACT, ids=lambda a: type(a).__name__)
def test_the_gradient_is_that_of_jax(adjoint):
    found = objective().hypergradient(HYPER, adjoint=adjoint)
    value, gradient = jax.value_and_grad(lambda h: objective()(h, adjoint=adjoint))(HYPER)
    np.testing.assert_allclose(found.value, value, rtol=1e-6)
    for name in HYPER:
        np.testing.assert_allclose(found.gradient[name], gradient[name], rtol=1e-5, atol=1e-7)
    assert str(found.status or "") == ""


@pytest.mark.parametrize(
    ("adjoint", "steps", "words"),
    [
        (hg.Reversible(), 60, "range"),
        (hg.Truncated(60, hg.Reversible()), 60, "range"),
        (hg.Implicit(), 2, "stationary"),
        (hg.Truncated(3, hg.Implicit()), 2, "stationary"),
    ],
)
def test_a_failure_is_nan_and_a_status(adjoint, steps, words):
    hyper = HYPER | {"rate": jnp.float32(30.0 if steps == 60 else 0.01)}
    found = objective(steps).hypergradient(hyper, adjoint=adjoint)
    assert words in str(found.status)
    assert all(np.isnan(g) for g in jax.tree.leaves(found.gradient))
    with pytest.raises(RuntimeError, match=words):
        jax.grad(lambda h: objective(steps)(h, adjoint=adjoint))(hyper)


def test_a_failure_allowed_has_no_status():
    adjoint = hg.Implicit(failure=hg.failures.Warn())

    def status():
        found = objective(2).hypergradient(HYPER, adjoint=adjoint)
        jax.block_until_ready(found.gradient)
        jax.effects_barrier()
        return found.status

    with pytest.warns(UserWarning, match="stationary"):
        assert status() is None


def test_implicit_carries_its_solution():
    """A single, short step of the solver is enough from there, and not from zeros."""
    whole = objective().hypergradient(HYPER, adjoint=hg.Implicit())
    short = hg.Implicit(hg.solvers.FixedPoint(steps=1, rate=0.1), solved=10.0)
    again = objective().hypergradient(HYPER, adjoint=short, carry=whole.carry)
    anew = objective().hypergradient(HYPER, adjoint=short)
    assert abs(anew.gradient["penalty"]) < 0.5 * abs(whole.gradient["penalty"])
    np.testing.assert_allclose(again.gradient["penalty"], whole.gradient["penalty"], rtol=1e-4)


def test_evolution_carries_the_number_of_estimates():
    adjoint = hg.Evolution(4, spread=0.1)
    first = objective().hypergradient(HYPER, adjoint=adjoint)
    second = objective().hypergradient(HYPER, adjoint=adjoint, carry=first.carry)
    assert int(second.carry) == 2
    assert float(first.gradient["rate"]) != float(second.gradient["rate"])
    same = jax.grad(lambda h: objective()(h, adjoint=adjoint))(HYPER)
    np.testing.assert_allclose(first.gradient["rate"], same["rate"], rtol=1e-5)


def test_a_function_has_no_adjoint():
    with pytest.raises(TypeError, match="needs an Objective"):
        hg.tune(
            lambda h: h["rate"] ** 2,
            HYPER,
            optax.sgd(0.1),
            steps=1,
            adjoint=hg.Stored(),
            progress=False,
        )


def test_implicit_recovers_from_a_failure():
    """Where it ended too early, the solution carried is NaN."""
    failed = objective(2).hypergradient(HYPER, adjoint=hg.Implicit())
    assert np.isnan(failed.carry).all()
    again = objective().hypergradient(HYPER, adjoint=hg.Implicit(), carry=failed.carry)
    anew = objective().hypergradient(HYPER, adjoint=hg.Implicit())
    assert str(again.status) == ""
    np.testing.assert_allclose(again.gradient["penalty"], anew.gradient["penalty"], rtol=1e-6)


def test_the_carry_of_another_persistent_evolution_is_refused():
    one, other = (hg.PersistentEvolution(window=w, spread=0.1) for w in (10, 20))
    carry = objective().hypergradient(HYPER, adjoint=one).carry
    with pytest.raises(ValueError, match="the carry of another one: of 6 windows"):
        objective().hypergradient(HYPER, adjoint=other, carry=carry)


def test_what_cannot_be_truncated():
    with pytest.raises(TypeError, match="an adjoint of a run is needed"):
        hg.Truncated(3, hg.Evolution(spread=0.1))


def test_forward_mode_of_a_reverse_adjoint_names_forward():
    run = lambda h: objective()(h, adjoint=hg.Stored())
    with pytest.raises(ValueError, match=r"give adjoint=Forward\(\)"):
        jax.jvp(run, (HYPER,), (HYPER,))

"""Activations kept on the way forward: the same hypergradients, from less work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
import problems
from hindgrad.adjoints.activations import Linearized
from hindgrad.jaxprs import equations

KEEPING = hg.Stored(activations=2**30)
RATE, DECAY = (lambda hyper, t, name=name: hyper[name] for name in ("rate", "decay"))
HYPER = {"rate": 0.3, "decay": 0.8, "log_l2": -3.0}


@jax.custom_vjp
def straight_through(x):
    return jnp.round(x)


straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, d: (d,))


def rounded(params, hyper, batch):
    params = jax.tree.map(lambda p: straight_through(8 * p) / 8, params)
    return problems.loss(params, hyper, batch)


RUNS = {
    "momentum": (problems.loss, {"optimizer": hg.Momentum(RATE, DECAY)}),
    "Adam": (problems.loss, {"optimizer": hg.Adam(lambda h, t: h["rate"] / 30, DECAY)}),
    "averaged": (problems.loss, {"optimizer": hg.Averaged(hg.Momentum(RATE), decay=DECAY)}),
    "a rule of its own": (rounded, {"optimizer": hg.Momentum(RATE, DECAY)}),
    "rematerialised": (jax.checkpoint(problems.loss), {"optimizer": hg.Momentum(RATE, DECAY)}),
}


def make(name):
    loss, options = RUNS[name]
    return hg.Training(loss, batches=problems.batches, steps=problems.STEPS, **options)


def scored(training, hyper, adjoint, *, sees_losses=False):
    run = training(problems.init(jax.random.key(0)), hyper, adjoint=adjoint)
    return problems.valid(run.params) + (jnp.mean(run.losses) if sees_losses else 0.0)


@pytest.mark.parametrize("sees_losses", [False, True], ids=["", "losses"])
@pytest.mark.parametrize("name", RUNS)
def test_hypergradients_are_those_without(x64, name, sees_losses):
    of = lambda adjoint: jax.grad(
        lambda h: scored(make(name), h, adjoint, sees_losses=sees_losses)
    )(HYPER)
    assert problems.relative_error(of(KEEPING), of(hg.Stored())) < 1e-11


def unrolled(hyper, adjoint):
    def step(state, hyper, t):
        x, count = state
        matrix = jnp.outer(x, jnp.cos(x)) + hyper["a"]
        return (jnp.tanh(matrix @ x), count + 1), jnp.sum(x)

    start = jnp.linspace(0.1, 1.0, 7), jnp.int32(0)
    (x, _), _ = hg.unroll(step, start, hyper, 6, adjoint=adjoint)
    return jnp.sum(x**2)


def test_any_dynamics(x64):
    of = lambda adjoint: jax.grad(unrolled)({"a": 0.3}, adjoint)["a"]
    np.testing.assert_allclose(of(KEEPING), of(hg.Stored()), rtol=1e-12)


def test_state_beside_the_weights(x64):
    """Running means, which the score sees."""

    def loss(params, hyper, batch, mean):
        x, y = batch
        mean = hyper["decay"] * mean + (1 - hyper["decay"]) * jnp.mean(x @ params, 0)
        return jnp.mean((x @ params - mean[None] - y[:, None]) ** 2), mean

    training = hg.Training(
        loss, optimizer=hg.Momentum(RATE), batches=problems.batches, steps=problems.STEPS
    )
    start = jnp.ones((64, 3)) / 9, jnp.zeros(3)
    score = lambda params, hyper, key, mean: jnp.sum(params**2) + jnp.sum(mean**3)
    objective = hg.Objective(training, init=start, score=score)
    of = lambda adjoint: jax.grad(lambda h: objective(h, adjoint=adjoint))(HYPER | {"rate": 0.01})
    assert problems.relative_error(of(KEEPING), of(hg.Stored())) < 1e-12


def test_many_scores_and_second_derivatives(x64):
    start = problems.init(jax.random.key(0))

    def errors(params, hyper, key):
        x, y = problems.data(slice(160, 166))
        return jax.vmap(lambda x, y: problems.cross_entropy(params, x[None], y[None]))(x, y)

    objective = hg.Objective(make("momentum"), init=start, score=errors)
    of = lambda adjoint: hg.jacobian(objective, HYPER, adjoint=adjoint)
    assert problems.relative_error(of(KEEPING), of(hg.Stored())) < 1e-11
    second = lambda adjoint: jax.grad(
        lambda h: jax.grad(lambda h: scored(make("momentum"), h, adjoint))(h)["rate"]
    )(HYPER)
    assert problems.relative_error(second(KEEPING), second(hg.Stored())) < 1e-10


def linearized(adjoint=KEEPING):
    """The steps of the run by momentum as the adjoint takes them apart, for its rate."""
    found = []

    class Watched(hg.Stored):
        def record(self, dynamics, state, wanted):
            found.append((Linearized.of(dynamics, wanted, state), dynamics, state, wanted))
            tape = super().record(dynamics, state, wanted)
            found.append(tape[2].linearized is not None)
            return tape

    watched = Watched(activations=adjoint.activations)
    jax.grad(lambda rate: scored(make("momentum"), HYPER | {"rate": rate}, watched))(0.3)
    return found[0][0], found[1]


def products(program):
    """How many products of the program sum over rows, units or classes."""
    dots = [e for e in equations(program) if e.primitive.name == "dot_general"]
    return sum(max(v.aval.ndim for v in e.invars) > 1 and bool(_summed(e)) for e in dots)


def _summed(equation):
    return equation.params["dimension_numbers"][0][0]


def test_products_of_the_gradient_are_not_computed_again():
    """The gradient of two layers takes five products. Each becomes two in its tangent, less one for
    the first layer's inputs, which do not move, and one for its weights' derivative."""
    steps, _ = linearized()
    assert products(steps.forward_program) == 5
    assert products(steps.backward_program) == 2 * 5 - 2


def test_what_is_kept():
    """What enters the hidden layer's nonlinearity, the loss's derivative by it, and the logits."""
    steps, _ = linearized()
    hidden, logits = problems.BATCH * 6, problems.BATCH * 10
    numbers = steps.activation_bytes / jnp.float32(0).nbytes
    assert 2 * hidden + logits <= numbers <= 2 * hidden + logits + 10


def test_a_callback_is_called_once_a_step():
    """Its rows are kept: another call might give others."""
    calls = []

    def rows(t):
        calls.append(int(t))
        return np.full((4, 3), 1.0 + t + len(calls), np.float32)

    def loss(params, hyper, batch):
        return jnp.mean(jnp.tanh(batch @ params) ** 2)

    batches = lambda t: jax.pure_callback(rows, jax.ShapeDtypeStruct((4, 3), jnp.float32), t)
    training = hg.Training(loss, optimizer=hg.Momentum(RATE), batches=batches, steps=5)
    score = lambda rate: jnp.sum(
        training(jnp.ones((3, 2)) / 9, {"rate": rate}, adjoint=KEEPING).params ** 2
    )
    _, found = jax.value_and_grad(score)(0.3)
    assert calls == list(range(5))
    calls.clear()
    ahead, behind = score(0.31), (calls.clear(), score(0.29))[1]
    np.testing.assert_allclose(found, (ahead - behind) / 0.02, rtol=1e-2)


def test_only_if_they_fit():
    steps, is_kept = linearized()
    assert is_kept
    needed = problems.STEPS * steps.activation_bytes
    assert linearized(hg.Stored(activations=needed))[1]
    assert not linearized(hg.Stored(activations=needed - 1))[1]


@pytest.mark.parametrize("activations", [-1, 1e9, True, None])
def test_a_budget_is_a_whole_number(activations):
    with pytest.raises(ValueError, match=r"Stored\(activations=.*whole number, at least 0"):
        hg.Stored(activations=activations)

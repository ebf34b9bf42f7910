"""Losses with derivative rules that are not derivatives, against loops by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg

STEPS = 5
MATRIX = np.array([[2.0, 1.0], [1.0, 3.0]])
START = {"v": np.array([0.4, -0.7]), "w": np.array([[1.0, -1.5], [0.3, 0.8]])}


@jax.custom_vjp
def clipped(x):
    """Clips the norm of the gradient that flows back."""
    return x


clipped.defvjp(lambda x: (x, None), lambda _, g: (g * jnp.minimum(1.0, 0.5 / jnp.linalg.norm(g)),))


@jax.custom_vjp
def straight(x):
    """Rounds; the gradient passes straight through."""
    return jnp.round(2 * x) / 2


straight.defvjp(lambda x: (straight(x), None), lambda _, g: (g,))


@jax.custom_vjp
def reversal(x):
    return jnp.tanh(x)


reversal.defvjp(lambda x: (jnp.tanh(x), x), lambda x, g: (-0.3 * g * jnp.cos(x),))


@jax.custom_vjp
def documented(x):
    """As JAX's documentation writes it: the forward rule calls the function itself, and the
    backward rule another one with a rule."""
    return jnp.sin(x)


documented.defvjp(lambda x: (documented(x), x), lambda x, g: (clipped(g) * jnp.cos(x),))


@jax.custom_jvp
def mixed(x):
    return jnp.sin(x)


mixed.defjvp(lambda p, t: (mixed(p[0]), t[0] @ (MATRIX + jnp.outer(p[0][0], jnp.ones(2)))))

RULES = {"clipped": clipped, "straight": straight, "reversal": reversal, "documented": documented}
RULES |= {"mixed": mixed}


def loss_with(rule):
    def loss(params, hyper, batch):
        hidden = rule(MATRIX @ params["w"])
        return hyper["c"] * jnp.sum((hidden @ params["v"] - 1) ** 2) + jnp.sum(
            rule(params["w"]) ** 2
        )

    return loss


def by_hand(loss):
    """Heavy-ball momentum, and JAX's reverse mode through it."""

    def value(hyper):
        def step(carry, _):
            params, velocity = carry
            grads = jax.grad(loss)(params, hyper, None)
            velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, grads)
            move = lambda p, v: p - hyper["rate"] * v
            return (jax.tree.map(move, params, velocity), velocity), None

        start = START, jax.tree.map(jnp.zeros_like, START)
        (params, _), _ = jax.lax.scan(step, start, None, STEPS)
        return sum(jnp.sum(p**2) for p in jax.tree.leaves(params))

    return value


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize(
    "adjoint",
    [hg.Stored(), hg.Checkpointed(slots=2), hg.Reversible(), hg.Truncated(STEPS)],
    ids=lambda adjoint: type(adjoint).__name__,
)
def test_rule(x64, rule, adjoint):
    loss = loss_with(rule)
    optimizer = hg.Momentum(lambda h, t: h["rate"], 0.9, convention=hg.HeavyBall())
    training = hg.Training(loss, optimizer=optimizer, batches=lambda t: None, steps=STEPS)
    score = lambda params, hyper, key: sum(jnp.sum(p**2) for p in jax.tree.leaves(params))
    objective = hg.Objective(training, init=START, score=score)
    hyper = {"c": 0.5, "rate": 0.02}
    right = jax.grad(by_hand(loss))(hyper)
    found = jax.jit(jax.grad(lambda h: objective(h, adjoint=adjoint)))(hyper)
    for name in hyper:
        np.testing.assert_allclose(found[name], right[name], rtol=1e-6, atol=1e-9)


def test_conjugate_gradients_are_refused():
    training = hg.Training(
        loss_with(clipped), optimizer=hg.Momentum(0.1), batches=lambda t: None, steps=STEPS
    )
    objective = hg.Objective(training, init=START, score=lambda p, h, k: jnp.sum(p["v"]))
    with pytest.raises(ValueError, match=r"derivative rules of its own \(clipped"):
        jax.grad(lambda h: objective(h, adjoint=hg.Implicit()))({"c": 0.5})


@pytest.mark.parametrize("adjoint", [hg.Stored(), hg.Checkpointed(slots=2), hg.Reversible()])
def test_a_rule_that_the_parameters_do_not_enter(x64, adjoint):
    """It makes derivatives by hyperparameters, of the losses too, as through a loop by hand."""

    def loss(params, hyper, batch):
        return jnp.sum((params["w"] - clipped(hyper["shift"])) ** 2) + jnp.sum(params["v"] ** 4)

    def by_hand(hyper):
        params, losses, velocity = START, [], jax.tree.map(jnp.zeros_like, START)
        for _ in range(STEPS):
            value, grads = jax.value_and_grad(loss)(params, hyper, None)
            velocity = jax.tree.map(lambda v, g: 0.5 * v + g, velocity, grads)
            params = jax.tree.map(lambda p, v: p - 0.1 * v, params, velocity)
            losses.append(value)
        return sum(losses) + jnp.sum(params["w"] ** 2)

    def run(hyper):
        optimizer = hg.Momentum(0.1, 0.5, convention=hg.HeavyBall())
        training = hg.Training(loss, optimizer=optimizer, batches=lambda t: None, steps=STEPS)
        result = training(START, hyper, adjoint=adjoint)
        return jnp.sum(result.losses) + jnp.sum(result.params["w"] ** 2)

    hyper = {"shift": jnp.array([[0.8, 0.1], [-0.4, 0.9]])}
    right = jax.grad(by_hand)(hyper)["shift"]
    np.testing.assert_allclose(jax.grad(run)(hyper)["shift"], right, rtol=1e-6)


@pytest.mark.parametrize("adjoint", [hg.Stored(), hg.Checkpointed(slots=2)])
@pytest.mark.parametrize("rule", [clipped, reversal, mixed], ids=["clipped", "reversal", "mixed"])
def test_second_derivatives(x64, adjoint, rule):
    """Of a rule that the parameters do not enter: forwards and in reverse these differ, and each
    is that of a loop by hand."""

    def loss(params, hyper, batch):
        hidden = jnp.sin(rule(hyper["shift"]) * params["w"])
        return jnp.sum(hidden**2) + jnp.sum(params["v"] ** 4)

    def by_hand(hyper):
        params, losses = START, []
        for _ in range(STEPS):
            value, grads = jax.value_and_grad(loss)(params, hyper, None)
            params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
            losses.append(value)
        return sum(losses) + jnp.sum(params["w"] ** 2)

    def run(hyper):
        optimizer = hg.from_optax(lambda _: optax.sgd(0.1))
        training = hg.Training(loss, optimizer=optimizer, batches=lambda t: None, steps=STEPS)
        result = training(START, hyper, adjoint=adjoint)
        return jnp.sum(result.losses) + jnp.sum(result.params["w"] ** 2)

    hyper = {"shift": jnp.array([[0.8, 0.1], [-0.4, 0.9]])}
    along = {"shift": jnp.array([[1.0, -0.5], [0.2, 0.3]])}
    forwards = lambda f: jax.jvp(jax.grad(f), (hyper,), (along,))[1]["shift"]
    dot = lambda gradient: jnp.vdot(gradient["shift"], along["shift"])
    in_reverse = lambda f: jax.grad(lambda h: dot(jax.grad(f)(h)))(hyper)["shift"]
    for second in (forwards, in_reverse):
        np.testing.assert_allclose(second(run), second(by_hand), rtol=1e-6)

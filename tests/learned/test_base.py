"""The derivative with respect to a learned optimizer's weights: against loops written by hand and
finite differences, with and without second derivatives, through every way to train."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
from hindgrad.learned import problems

STEPS = 4


def start():
    return {"a": jnp.array([0.5, -1.0]), "b": jnp.array(0.3)}


def loss(params):
    return jnp.sum(jnp.cosh(params["a"])) + (params["a"][0] * params["b"] - 1) ** 2


def lstm(second_derivatives):
    return hg.learned.CoordinateLSTM(
        (2,), preprocess=None, scale=0.5, second_derivatives=second_derivatives
    )


def weights_of(optimizer):
    return optimizer.weights(jax.random.key(1))


def by_hand(optimizer, weights, grads=None):
    """The sum of all losses, the last included, and the gradients met; with `grads` given, these
    are met whatever the parameters."""
    transformation = optimizer.as_optax(weights)

    def step(carry, given):
        params, state = carry
        met = jax.grad(loss)(params) if grads is None else given
        met = met if optimizer.second_derivatives else jax.lax.stop_gradient(met)
        updates, state = transformation.update(met, state)
        return (optax.apply_updates(params, updates), state), (loss(params), met)

    begin = (start(), transformation.init(start()))
    (params, _), (losses, met) = jax.lax.scan(step, begin, grads, length=STEPS)
    return jnp.sum(losses) + loss(params), met


@functools.cache
def gradient_by_hand(second_derivatives):
    """Value, gradient with respect to the weights, and the gradients met."""
    optimizer = lstm(second_derivatives)
    function = jax.value_and_grad(lambda w: by_hand(optimizer, w), has_aux=True)
    (value, met), gradient = jax.jit(function)(weights_of(optimizer))
    return float(value), gradient, met


def by_training(optimizer, weights, adjoint):
    training = hg.Training(
        lambda params, hyper, batch: loss(params),
        optimizer=optimizer,
        batches=lambda t: None,
        steps=STEPS,
    )
    run = training(start(), weights, adjoint=adjoint)
    return jnp.sum(run.losses) + loss(run.params)


def by_problems(optimizer, weights, adjoint):
    drawn = problems.draw(
        lambda key: (start(), lambda params, key: loss(params)), jax.random.key(0), 1
    )
    begin = problems.begin(optimizer, drawn)
    after, losses = problems.run(optimizer, weights, drawn, begin, STEPS, adjoint=adjoint)
    return jnp.sum(losses) + jnp.sum(drawn.losses(after.params, after.t))


def difference(function, weights, direction):
    """The derivative along a direction, from values alone."""
    at = lambda h: function(jax.tree.map(lambda w, d: w + h * d, weights, direction))
    h = 1e-4
    return float(8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


@pytest.mark.parametrize("second_derivatives", [True, False])
def test_the_hand_written_loop_against_finite_differences(x64, second_derivatives):
    """Without second derivatives, of the run that meets the same gradients whatever the weights."""
    optimizer = lstm(second_derivatives)
    weights = weights_of(optimizer)
    _, gradient, met = gradient_by_hand(second_derivatives)
    function = jax.jit(lambda w: by_hand(optimizer, w, None if second_derivatives else met)[0])
    for seed in range(3):
        direction = optimizer.weights(jax.random.key(seed + 10))
        right = difference(function, weights, direction)
        assert abs(right) > 1e-3
        assert optax.tree.vdot(gradient, direction) == pytest.approx(right, rel=1e-7)


@pytest.mark.parametrize(
    ("second_derivatives", "way", "adjoint"),
    [
        (True, by_training, hg.Stored()),
        (False, by_training, hg.Stored()),
        (False, by_training, hg.Checkpointed(2)),
        (True, by_training, hg.Forward()),
        (False, by_training, hg.Forward()),
        (True, by_problems, hg.Stored()),
        (False, by_problems, hg.Stored()),
        (False, by_problems, hg.Checkpointed(2)),
        (False, by_problems, hg.Forward()),
    ],
    ids=lambda x: getattr(x, "__name__", type(x).__name__),
)
def test_all_ways_to_train_give_the_gradient_by_hand(x64, second_derivatives, way, adjoint):
    value, gradient, _ = gradient_by_hand(second_derivatives)
    optimizer = lstm(second_derivatives)
    both = jax.jit(jax.value_and_grad(lambda w: way(optimizer, w, adjoint)))
    found, found_gradient = both(weights_of(optimizer))
    assert found == pytest.approx(value, rel=1e-12)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    jax.tree.map(close, found_gradient, gradient)


def test_dropping_second_derivatives_changes_the_gradient(x64):
    """Or the two would not need two tests."""
    with_them, without = (gradient_by_hand(second)[1] for second in (True, False))
    assert optax.tree.norm(optax.tree.sub(with_them, without)) > 1e-2


def test_without_second_derivatives_the_loss_need_not_have_any():
    """The gradient is a constant to the adjoint as well, which never asks for its derivative."""

    @jax.custom_vjp
    def once(x):
        return x**2

    def refuse(x):
        raise AssertionError("a second derivative was asked for")

    slope = jax.custom_jvp(lambda x: 2 * x)
    slope.defjvp(lambda primals, tangents: refuse(primals))
    once.defvjp(lambda x: (once(x), x), lambda x, g: (g * slope(x),))

    def value(second_derivatives):
        optimizer = lstm(second_derivatives)
        training = hg.Training(
            lambda params, hyper, batch: once(params),
            optimizer=optimizer,
            batches=lambda t: None,
            steps=2,
        )
        return jax.grad(lambda w: training(1.0, w, adjoint=hg.Stored()).params)(
            weights_of(optimizer)
        )

    assert optax.tree.norm(value(False)) > 0
    with pytest.raises(AssertionError, match="a second derivative"):
        value(True)


@pytest.mark.parametrize("way", [by_training, by_problems])
def test_reversible_refuses(way):
    optimizer = lstm(False)
    with pytest.raises(ValueError, match=r"Reversible.*Momentum"):
        jax.grad(lambda w: way(optimizer, w, hg.Reversible()))(weights_of(optimizer))


def test_is_tuned_like_any_hyperparameters():
    """The same Training, Objective and outer loop as for rates and penalties."""
    optimizer = lstm(False)
    training = hg.Training(
        lambda params, hyper, batch: loss(params),
        optimizer=optimizer,
        batches=lambda t: None,
        steps=STEPS,
    )
    objective = hg.Objective(training, init=start(), score=lambda params, hyper, key: loss(params))
    result = hg.tune(
        objective, weights_of(optimizer), optax.adam(0.03), steps=25, progress=False, diagnose=False
    )
    begin, least = result.history[0].value, 2.2
    assert result.value - least < 0.5 * (begin - least)


def test_weights_of_another_optimizer_are_refused():
    weights = weights_of(lstm(False))
    with pytest.raises(ValueError, match="These weights are of the shapes"):
        hg.learned.CoordinateLSTM((3,)).as_optax(weights)
    with pytest.raises(ValueError, match="Give it its own"):
        hg.learned.MomentumMLP().as_optax(weights)

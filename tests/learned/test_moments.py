"""What the networks on running averages see, and that their derivatives are finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hindgrad.learned import MomentumMLP, RNNProp, problems
from hindgrad.learned.moments import SPANS, Moments, Normalized

GRADS = [jax.random.normal(jax.random.key(i), (6,)) * 10.0 ** jnp.arange(-2, 4) for i in range(4)]
OPTIMIZERS = [RNNProp, MomentumMLP]


def seen(view, grads):
    """The features at each of some gradients."""
    memory, features = view.begin(grads[0]), []
    for g in grads:
        now, _, memory = view.see(g, memory)
        features.append(now)
    return features


def test_the_normalised_features_are_adams():
    """m̂/√v̂ is the step of Adam, and g/√v̂ that of RMSprop with Adam's correction (which is Adam
    without momentum)."""
    found = seen(Normalized((0.9, 0.95)), GRADS)
    for row, decay in enumerate((0.9, 0.0)):
        adam = optax.scale_by_adam(decay, 0.95, eps=0)
        state = adam.init(GRADS[0])
        for g, features in zip(GRADS, found, strict=True):
            expected, state = adam.update(g, state)
            np.testing.assert_allclose(features[row], expected, rtol=1e-5)


def test_rnnprop_does_not_see_the_units_of_coordinates():
    optimizer = RNNProp(hidden=(4,))
    weights = optimizer.weights(jax.random.key(0))
    units = jnp.exp(jnp.array([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]))
    states = {1: optimizer.begin(GRADS[0][None]), 2: optimizer.begin(GRADS[0][None])}
    for g in GRADS:
        ones, states[1] = optimizer.step(weights, g[None], states[1])
        others, states[2] = optimizer.step(weights, (units * g)[None], states[2])
        np.testing.assert_allclose(ones, others, rtol=1e-3)
    assert len(np.unique(ones)) == 6


def test_rnnprops_steps_are_bounded():
    optimizer = RNNProp(hidden=(4,), scale=0.1)
    weights = jax.tree.map(lambda w: 1e3 * w, optimizer.weights(jax.random.key(0)))
    updates, _ = optimizer.step(weights, GRADS[0][None], optimizer.begin(GRADS[0][None]))
    assert float(jnp.abs(updates).max()) == pytest.approx(0.1)


def test_averages_relative_to_the_array_and_to_the_coordinate():
    decays = (0.5, 0.9)
    found = seen(Moments(decays), GRADS)
    gs = np.stack(GRADS).astype(np.float64)
    for t, features in enumerate(found):
        ages = np.arange(t, -1, -1.0)
        mean = lambda values, decay, ages=ages: np.average(values, axis=0, weights=decay**ages)
        averages = np.stack([mean(gs[: t + 1], decay) for decay in decays])
        own, whole = np.sqrt(mean(gs[: t + 1] ** 2, 0.95)), np.sqrt(np.mean(gs[t] ** 2))
        expected = [averages / whole, averages / own]
        length = np.full(6, np.log(6) / 5 - 1)
        expected += [[gs[t] / whole, gs[t] / own, np.log(own / whole), length]]
        expected += [np.repeat(np.tanh((t + 1) / SPANS - 1)[:, None], 6, axis=1)]
        np.testing.assert_allclose(
            features, np.clip(np.concatenate(expected), -10, 10), rtol=1e-4, atol=1e-6
        )


def test_momentum_mlp_begins_as_adam():
    view, memory = Moments(), Moments().begin(GRADS[0])
    adam = optax.scale_by_adam(0.9, 0.95, eps=0)
    state = adam.init(GRADS[0])
    for g in GRADS:
        expected, state = adam.update(g, state)
        _, unit, memory = view.see(g, memory)
        np.testing.assert_allclose(view.say(jnp.zeros((2, 6)), unit), -expected, rtol=1e-4)


def test_momentum_mlp_does_not_see_the_units_of_the_loss():
    optimizer = MomentumMLP(hidden=(4,))
    weights = optimizer.weights(jax.random.key(0))
    step = lambda g: optimizer.step(weights, g[None], optimizer.begin(g[None]))[0]
    np.testing.assert_allclose(step(GRADS[1]), step(1000 * GRADS[1]), rtol=1e-4)


def with_a_dead_coordinate(key):
    """The loss does not depend on one coordinate, as on the weights of a pixel always black: its
    gradient is 0 throughout."""
    return jax.random.normal(key, (3,)), lambda params, _: jnp.sum(params[:2] ** 2)


def total(weights, optimizer):
    """The sum of the losses of two problems over five steps."""
    drawn = problems.draw(with_a_dead_coordinate, jax.random.key(1), 2)
    return problems.run(optimizer, weights, drawn, problems.begin(optimizer, drawn), 5)[1].sum()


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_derivatives_at_a_gradient_of_zero_are_finite(make):
    optimizer = make(hidden=(3,))
    grads = jax.grad(total)(optimizer.weights(jax.random.key(0)), optimizer)
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(grads))
    assert any((g != 0).any() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_the_derivative_is_that_of_finite_differences(make):
    """With the gradient's own dependence on the parameters; the features are in float32."""
    optimizer = make(hidden=(3,), scale=0.05, second_derivatives=True)
    weights = optimizer.weights(jax.random.key(0))
    value = jax.jit(lambda weights: total(weights, optimizer))
    grads = jax.grad(value)(weights)
    size = optax.tree.norm(grads)
    move = lambda step: jax.tree.map(lambda w, g: w + step * g / size, weights, grads)
    difference = (value(move(1e-2)) - value(move(-1e-2))) / 2e-2
    np.testing.assert_allclose(size, difference, rtol=0.02)

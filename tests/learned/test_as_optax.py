"""A learned optimizer as an optax transformation: in a loop, in `optax.chain`, under jit, vmap and
grad, on parameters of any shape and dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
from tests.learned.small import OPTIMIZERS

LSTM = OPTIMIZERS["LSTM"]


def weights_of(optimizer):
    return optimizer.weights(jax.random.key(4))


def dtypes(tree):
    return jax.tree.map(lambda x: x.dtype, tree)


def tree():
    """Gradients of every kind of shape and dtype, with nothing in one place."""
    return {
        "matrix": jnp.array([[0.5, -1.0], [2.0, 0.1]]),
        "half": jnp.array([1.0, -3.0], jnp.bfloat16),
        "scalar": jnp.array(0.2),
        "empty": jnp.zeros((0, 3)),
        "nothing": None,
    }


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_keeps_structure_shapes_and_dtypes(optimizer):
    """And a coordinate gets the same wherever it is, but for rounding."""
    transformation = optimizer.as_optax(weights_of(optimizer))
    update, state = jax.jit(transformation.update), transformation.init(tree())
    for _ in range(2):
        updates, after = update(tree(), state, tree())
        assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, tree())
        assert dtypes(updates) == dtypes(tree())
        assert jax.tree.structure(after) == jax.tree.structure(state)
        assert all(np.all(np.isfinite(u.astype(float))) for u in jax.tree.leaves(updates))
        assert np.any(updates["matrix"] != 0)
        state = after


def test_in_float64_it_computes_in_float64(x64):
    transformation = LSTM.as_optax(weights_of(LSTM))
    grads = jnp.array([0.3, 0.3 + 1e-12])
    updates, _ = jax.jit(transformation.update)(grads, transformation.init(grads))
    assert updates.dtype == jnp.float64
    assert 0 < abs(updates[0] - updates[1]) < 1e-11


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("empty", [{}, {"none": None}, ()], ids=str)
def test_nothing_to_optimize(optimizer, empty):
    transformation = optimizer.as_optax(weights_of(optimizer))
    updates, _ = transformation.update(empty, transformation.init(empty))
    assert updates == empty


def first_updates(transformation, grads):
    """Those of the first step."""
    return jax.jit(lambda g: transformation.update(g, transformation.init(g), g)[0])(grads)


def test_in_a_chain():
    """What is before it changes what it sees, what is behind it what it says."""
    transformation = LSTM.as_optax(weights_of(LSTM))
    grads = {"a": jnp.array([3.0, -4.0]), "b": jnp.array(0.0)}
    chain = optax.chain(optax.clip_by_global_norm(1.0), transformation, optax.scale(0.5))
    by_hand = first_updates(transformation, jax.tree.map(lambda g: g / 5, grads))
    close = lambda a, b: np.testing.assert_allclose(a, b / 2, rtol=1e-5)
    jax.tree.map(close, first_updates(chain, grads), by_hand)


def test_for_some_of_the_parameters():
    """`optax.masked` leaves the rest as they are; `optax.partition` gives them another one."""
    transformation = LSTM.as_optax(weights_of(LSTM))
    grads = {"a": jnp.array([3.0, -4.0]), "b": jnp.array(1.0)}
    alone = first_updates(transformation, {"a": grads["a"]})
    updates = first_updates(optax.masked(transformation, {"a": True, "b": False}), grads)
    np.testing.assert_allclose(updates["a"], alone["a"], rtol=1e-6)
    assert updates["b"] == 1
    parts = {"learned": transformation, "sgd": optax.sgd(0.1)}
    updates = first_updates(optax.partition(parts, {"a": "learned", "b": "sgd"}), grads)
    np.testing.assert_allclose(updates["a"], alone["a"], rtol=1e-6)
    assert updates["b"] == pytest.approx(-0.1)


@pytest.mark.parametrize("name", ["LSTM", "partitioned"])
def test_under_vmap(name):
    """Several runs at once, each with its own state."""
    transformation = OPTIMIZERS[name].as_optax(weights_of(OPTIMIZERS[name]))
    grads = {"a": jnp.array([[3.0, -4.0], [0.1, 2.0]]), "b": jnp.array([[[1.0]], [[-2.0]]])}

    def two(grads):
        state = transformation.init(grads)
        _, state = transformation.update(grads, state)
        return transformation.update(jax.tree.map(jnp.sin, grads), state)[0]

    second = lambda grads: two(jax.tree.map(lambda g: g[1], grads))
    together, alone = jax.jit(lambda g: (jax.vmap(two)(g), second(g)))(grads)
    close = lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-5)
    jax.tree.map(close, together, alone)


def test_other_weights_do_not_compile_again():
    """With the weights an argument of the jitted step; and the derivative with respect to them is
    that of `Training`."""
    traces = []
    steps, loss = 3, lambda p: jnp.sum(jnp.cosh(p))

    @jax.jit
    @jax.value_and_grad
    def by_hand(weights):
        traces.append(None)
        transformation = LSTM.as_optax(weights)
        params = jnp.array([1.0, -0.5])
        state = transformation.init(params)
        for _ in range(steps):
            grads = jax.lax.stop_gradient(jax.grad(loss)(params))
            updates, state = transformation.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return loss(params)

    training = hg.Training(
        lambda params, hyper, batch: loss(params),
        optimizer=LSTM,
        batches=lambda t: None,
        steps=steps,
    )
    by_training = jax.jit(
        jax.value_and_grad(lambda w: loss(training(jnp.array([1.0, -0.5]), w).params))
    )
    for seed in (1, 2):
        weights = LSTM.weights(jax.random.key(seed))
        close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        jax.tree.map(close, by_hand(weights), by_training(weights))
    assert len(traces) == 1


def test_training_with_optax_is_training_with_it():
    """`from_optax` around it gives the same run as the optimizer itself."""
    weights = weights_of(LSTM)
    run = lambda optimizer: hg.Training(
        lambda params, hyper, batch: jnp.sum((params["x"] - 1) ** 2),
        optimizer=optimizer,
        batches=lambda t: None,
        steps=5,
    )({"x": jnp.zeros(2)}, weights)
    losses = run(hg.from_optax(LSTM.as_optax)).losses
    np.testing.assert_allclose(run(LSTM).losses, losses, rtol=1e-6)
    assert losses[-1] != losses[0]

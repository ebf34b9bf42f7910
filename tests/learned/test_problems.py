"""Problems side by side: each gets what it gets alone, and what they share is there once."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hindgrad as hg
from hindgrad.learned import CoordinateLSTM, problems
from tests.learned import small

PLAIN = {"LSTM on plain gradients": CoordinateLSTM((2,), preprocess=None)}
OPTIMIZERS = small.OPTIMIZERS | PLAIN
SHARED = np.arange(6.0, dtype=np.float32).reshape(2, 3)


def nested(key):
    """Parameters in a tree, data of all problems, a target of each, and noise in every step."""
    a, b = jax.random.split(key)
    start = {"w": jax.random.normal(a, (3, 2)), "more": [0.5, jnp.ones(2)], "none": None}
    target = jax.random.normal(b, (2, 2))
    shared = jnp.asarray(SHARED)

    def loss(params, key):
        out = jnp.tanh(shared @ params["w"]) + params["more"][1][None] * params["more"][0]
        return jnp.sum((out - target - 0.1 * jax.random.normal(key, (2, 2))) ** 2)

    return start, loss


@eqx.filter_jit
def drawn_from(family, key, count, first=0):
    return problems.draw(family, key, count, first)


def test_side_by_side_is_one_by_one(key):
    """Three problems at once, against a loop with optax on one of them."""
    optimizer, steps = CoordinateLSTM((2,)), 4
    weights = optimizer.weights(jax.random.key(3))

    @eqx.filter_jit
    def run(drawn):
        begin = problems.begin(optimizer, drawn)
        after, losses = problems.run(optimizer, weights, drawn, begin, steps, adjoint=hg.Stored())
        return after.params, losses

    params_together, losses = run(drawn_from(nested, key, 3))
    own = jax.random.fold_in(key, 2)

    @jax.jit
    def by_hand():
        params, loss = nested(jax.random.fold_in(own, 0))
        params = jax.tree.map(jnp.asarray, params)
        transformation, found = optimizer.as_optax(weights), []
        state = transformation.init(params)
        for t in range(steps):
            step_key = jax.random.fold_in(jax.random.fold_in(own, 1), t)
            value, grads = jax.value_and_grad(loss)(params, step_key)
            updates, state = transformation.update(grads, state)
            params = optax.apply_updates(params, updates)
            found.append(value)
        return params, jnp.stack(found)

    params, found = by_hand()
    np.testing.assert_allclose(losses[:, 2], found, rtol=1e-5)
    close = lambda a, b: np.testing.assert_allclose(a[2], b, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, params_together, params)


def two_steps(optimizer, weights, grads):
    memory = optimizer.begin(grads)
    first, memory = optimizer.step(weights, grads, memory)
    second, _ = optimizer.step(weights, jax.tree.map(lambda g: 2 * g, grads), memory)
    return first, second


def two_steps_of_each(optimizer, weights, grads):
    def one(grads):
        transformation = optimizer.as_optax(weights)
        first, state = transformation.update(grads, transformation.init(grads))
        second, _ = transformation.update(jax.tree.map(lambda g: 2 * g, grads), state)
        return first, second

    return jax.lax.map(one, grads)


def assert_same_steps(optimizer, grads):
    weights = optimizer.weights(jax.random.key(0))
    both = lambda g: (two_steps(optimizer, weights, g), two_steps_of_each(optimizer, weights, g))
    together, alone = jax.jit(both)(grads)
    assert jax.tree.map(jnp.shape, together[0]) == jax.tree.map(jnp.shape, grads)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, together, alone)


def gradients(shapes, count):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(count, *shape)), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_mixes_problems(name):
    """Two steps on three problems at once are two steps on each."""
    a, b, c = gradients([(2, 2), (), (3,)], 3)
    assert_same_steps(OPTIMIZERS[name], {"a": a, "b": [b, c], "none": None})


SHAPES = st.lists(st.sampled_from([(), (1,), (3,), (2, 2), (0,), (2, 0, 3)]), max_size=3)


@settings(max_examples=3, deadline=None)
@given(SHAPES, st.sampled_from(["MLP", "LSTM"]), st.integers(1, 3))
def test_any_shapes(shapes, name, count):
    assert_same_steps(OPTIMIZERS[name], gradients([(2,), *shapes], count))


def test_what_does_not_depend_on_the_key_is_not_copied(key):
    drawn = drawn_from(nested, key, 5)
    shapes = sorted(x.shape for x in jax.tree.leaves(drawn.loss) if hasattr(x, "shape"))
    assert shapes == [SHARED.shape, (5, 2, 2)]
    assert drawn.params["w"].shape == (5, 3, 2)
    assert drawn.params["more"][0].shape == (5,)


def test_every_problem_has_a_number(key):
    """Problems are the same ones however many are drawn at a time; others are others."""
    drawn, again = drawn_from(nested, key, 4), drawn_from(nested, key, 2, 2)
    later = lambda tree: jax.tree.map(lambda x: x[2:], tree)
    assert jax.tree.all(jax.tree.map(np.array_equal, later(drawn.params), again.params))
    np.testing.assert_array_equal(*(jax.random.key_data(k) for k in (drawn.keys[2:], again.keys)))
    assert len(np.unique(drawn.params["w"][:, 0, 0])) == 4


def test_noise_is_each_steps_own(key):
    """The same step draws the same; another step and another problem draw something else."""
    family = lambda key: (jnp.zeros(2), lambda params, key: jax.random.normal(key) + 0 * params[0])
    losses = eqx.filter_jit(lambda drawn, t: drawn.losses(drawn.params, t))
    drawn = drawn_from(family, key, 2)
    found = [losses(drawn, jnp.int32(t)) for t in (0, 1, 0)]
    np.testing.assert_array_equal(found[0], found[2])
    assert len(np.unique(found[:2])) == 4


def square(params, key):
    return jnp.sum(params**2)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (lambda key: jnp.ones(2), r"a pair \(params, loss\) is needed"),
        (lambda key: (jnp.ones(2), 3.0), r"a pair \(params, loss\) is needed"),
        (lambda key: ({}, square), "arrays of floats are needed"),
        (lambda key: (jnp.arange(2), square), "arrays of floats are needed"),
        (lambda key: ((jnp.ones(2), jnp.tanh), square), "arrays of floats are needed"),
        (lambda key: (jnp.ones(2) * 1j, square), "arrays of floats are needed"),
        (lambda key: (jnp.ones(2), lambda params: params[0]), r"called as loss\(params, key\)"),
        (lambda key: (jnp.ones(2), lambda params, key: params), r"f32\[2\]; a scalar float"),
        (lambda key: (jnp.ones(2), lambda params, key: jnp.int32(0)), "a scalar float"),
        (lambda key: (jnp.ones(2), lambda params, key: 0.0), "a scalar float"),
    ],
)
def test_families_that_cannot_be_drawn_from(family, message, key):
    with pytest.raises(ValueError, match=message):
        problems.draw(family, key, 2)


def test_python_floats_are_parameters(key):
    drawn = drawn_from(lambda key: ({"x": 1.5}, lambda p, key: p["x"] ** 2), key, 3)
    losses, grads = eqx.filter_jit(drawn.gradients)(drawn.params, jnp.int32(0))
    np.testing.assert_allclose(losses, [2.25] * 3)
    np.testing.assert_allclose(grads["x"], [3.0] * 3)

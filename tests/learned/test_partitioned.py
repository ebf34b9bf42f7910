"""Several learned optimizers, each for some of the parameters: every part does what it would do
alone, wherever the whole is used."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
from hindgrad.learned import CoordinateLSTM, LogSign, Partitioned, by_kind, fit

LSTM = CoordinateLSTM(hidden=(2,), preprocess=LogSign(5.0))
PARTS = {"conv": LSTM, "dense": CoordinateLSTM(hidden=(1,), preprocess=None), "bias": LSTM}


@pytest.fixture
def params():
    return {
        "kernel": jnp.ones((2, 1, 3, 3)),
        "w": jnp.ones((2, 3)),
        "b": jnp.ones(2),
        "scale": jnp.ones(()),
    }


def grads_of(params, seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)


def two_updates(transformation, params):
    """What two steps add for two problems side by side, as in anybody's loop."""

    def run(first, second):
        one, state = transformation.update(first, transformation.init(params), params)
        two, _ = transformation.update(second, state, params)
        return one, two

    first, second = (
        jax.tree.map(lambda a, b: jnp.stack([a, b]), grads_of(params, i), grads_of(params, i + 1))
        for i in (1, 2)
    )
    return jax.jit(jax.vmap(run))(first, second)


def test_every_part_does_what_it_does_alone(key, params):
    """In a chain, compiled, for several problems."""
    optimizer = Partitioned(PARTS)
    weights = optimizer.weights(key)
    chain = optax.chain(optimizer.as_optax(weights), optax.scale(2.0))
    apart = {n: optax.chain(p.as_optax(weights[n]), optax.scale(2.0)) for n, p in PARTS.items()}
    found = two_updates(chain, params)
    expected = two_updates(optax.partition(apart, by_kind), params)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
        assert jnp.abs(a).max() > 0


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (None, ["bias", "conv", "bias", "dense"]),
        (by_kind, ["bias", "conv", "bias", "dense"]),
        ("dense", ["dense"] * 4),
        ({"kernel": "conv", "w": "dense", "b": "dense", "scale": "bias"}, None),
        (lambda tree: dict.fromkeys(tree, "conv"), ["conv"] * 4),
    ],
    ids=["default", "by kind", "one for all", "tree", "function"],
)
def test_labels(params, labels, expected):
    """A parameter is moved by the part of its label: only that part's memory knows of it."""
    optimizer = Partitioned(PARTS, labels)
    memory = optimizer.begin(jax.tree.map(lambda x: x[None], params))
    expected = expected or ["dense", "conv", "bias", "dense"]
    sizes = dict.fromkeys(expected, 0)
    for name, leaf in zip(expected, jax.tree.leaves(params), strict=True):
        sizes[name] += leaf.size
    assert sizes == coordinates(memory)


def coordinates(memory):
    """How many each part's memory is of."""
    return {name: jax.tree.leaves(part)[0].shape[-1] for name, part in memory.items()}


def test_labels_may_be_a_prefix():
    params = {"body": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}, "head": [jnp.ones(3)]}
    optimizer = Partitioned({"slow": LSTM, "fast": LSTM}, {"body": "slow", "head": "fast"})
    memory = optimizer.begin(jax.tree.map(lambda x: x[None], params))
    assert coordinates(memory) == {"slow": 6, "fast": 3}


def test_parameters_that_are_not_there_are_left_out(key, params):
    """None, as `eqx.filter` leaves it, and no parameters at all."""
    optimizer = Partitioned(PARTS)
    transformation = optimizer.as_optax(optimizer.weights(key))
    update = lambda grads: transformation.update(grads, transformation.init(grads))[0]
    some = params | {"w": None, "scale": None}
    updates = jax.eval_shape(update, some)
    assert jax.tree.map(lambda u: u.shape, updates) == jax.tree.map(lambda p: p.shape, some)
    assert update({}) == {}


def loss(params):
    return jnp.sum((params["w"] @ jnp.array([1.0, -2.0]) - params["b"]) ** 2)


def start():
    return {"w": jnp.array([[0.5, -1.0], [0.2, 0.1]]), "b": jnp.array([0.3, -0.4])}


@pytest.mark.parametrize("second", [False, True])
def test_the_parts_say_whether_second_derivatives_are_kept(second):
    part = CoordinateLSTM(hidden=(2,), second_derivatives=second)
    optimizer = Partitioned({"dense": part, "bias": part})
    assert optimizer.second_derivatives is second
    assert optimizer.gradient_is_constant is not second


def test_the_hypergradient_of_a_training(x64):
    """Of every part's weights, by finite differences."""
    part = CoordinateLSTM(hidden=(2,), preprocess=None, second_derivatives=True)
    optimizer = Partitioned({"dense": part, "bias": part})
    weights = jax.tree.map(lambda w: w.astype(jnp.float64), optimizer.weights(jax.random.key(1)))
    training = hg.Training(
        lambda params, hyper, batch: loss(params),
        optimizer=optimizer,
        batches=lambda t: None,
        steps=2,
    )
    value = jax.jit(lambda w: loss(training(start(), w).params))
    gradient = jax.jit(jax.grad(value))(weights)
    rng = np.random.default_rng(2)
    for name in ("dense", "bias"):
        part = weights[name]
        along = jax.tree.map(lambda w: rng.normal(size=w.shape), part)
        ends = [
            value(weights | {name: jax.tree.map(lambda w, d, e=e: w + e * d, part, along)})
            for e in (EPSILON, -EPSILON)
        ]
        slope = (ends[0] - ends[1]) / (2 * EPSILON)
        products = jax.tree.map(lambda g, d: jnp.sum(g * d), gradient[name], along)
        assert abs(slope) > 1e-4
        np.testing.assert_allclose(sum(jax.tree.leaves(products)), slope, rtol=2e-3)


EPSILON = 1e-3
"""Coordinates go through networks in float32."""


def test_fit_lowers_the_loss_with_every_part(key):
    optimizer = Partitioned({"dense": LSTM, "bias": LSTM, "conv": LSTM})
    weights = optimizer.weights(key)
    result = fit(
        optimizer,
        lambda key: (
            jax.tree.map(lambda x: x + jax.random.normal(key, x.shape), start()),
            lambda params, key: loss(params),
        ),
        weights=weights,
        steps=8,
        unroll=8,
        batch=4,
        iterations=60,
        every=60,
        evaluations=4,
        outer=optax.adam(1e-2),
        progress=False,
    )
    assert result.value < 0.8 * result.history[0].value
    for name in ("dense", "bias"):
        assert not eqx.tree_equal(result.weights[name], weights[name])
    # No parameter is a convolution's: nothing is learned there.
    assert eqx.tree_equal(result.weights["conv"], weights["conv"])


@pytest.mark.parametrize(
    ("parts", "labels", "error", "message"),
    [
        ({}, None, ValueError, "at least one learned optimizer is needed"),
        ({"dense": optax.sgd(0.1)}, None, TypeError, "learned"),
        ({0: LSTM}, None, TypeError, "CoordinateLSTM"),
        (
            {"dense": LSTM, "bias": CoordinateLSTM(hidden=(2,), second_derivatives=True)},
            None,
            ValueError,
            "differ in second_derivatives: {'dense': False, 'bias': True}. Give all parts the same",
        ),
        (
            {"dense": LSTM, "conv": LSTM},
            None,
            ValueError,
            r"at \['b'\] have the label 'bias'; "
            "Partitioned has parts for 'conv', 'dense'. Add one",
        ),
        (PARTS, {"w": "dense"}, ValueError, "no prefix of the parameters"),
        (
            PARTS,
            {"w": "dense", "b": None, "kernel": "conv", "scale": "bias"},
            ValueError,
            "no prefix of the parameters",
        ),
        (PARTS, lambda tree: "convolution", ValueError, "have the label 'convolution'"),
    ],
)
def test_what_does_not_fit_is_refused(params, parts, labels, error, message):
    def use():
        optimizer = Partitioned(parts, labels)
        optimizer.as_optax(optimizer.weights(jax.random.key(0))).init(params)

    with pytest.raises(error, match=message):
        use()

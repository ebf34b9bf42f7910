"""The cross-entropy by blocks of the vocabulary: values, derivatives, and what it holds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
from hindgrad import blocked_cross_entropy


def plain(features, embedding, labels):
    logits = features @ embedding.T
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def example(key, rows=(3, 5), width=4, vocabulary=11, dtype=jnp.float32):
    first, second, third = jax.random.split(key, 3)
    features = jax.random.normal(first, (*rows, width), dtype)
    embedding = 3 * jax.random.normal(second, (vocabulary, width), dtype)
    return features, embedding, jax.random.randint(third, rows, 0, vocabulary)


@pytest.mark.parametrize("block", [1, 4, 10, 11, 4096])
def test_same_values_and_derivatives_as_of_all_logits(x64, key, block):
    features, embedding, labels = example(key, dtype=jnp.float64)
    blocked = functools.partial(blocked_cross_entropy, block=block)
    total = lambda ce: lambda *args: jnp.sum(jnp.sin(ce(*args, labels)))
    np.testing.assert_allclose(
        blocked(features, embedding, labels), plain(features, embedding, labels), rtol=1e-12
    )
    gradients = [jax.grad(total(ce), (0, 1))(features, embedding) for ce in (blocked, plain)]
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9), *gradients)
    alone = blocked(features[0, 0], embedding, labels[0, 0])
    np.testing.assert_allclose(alone, blocked(features, embedding, labels)[0, 0], rtol=1e-12)


def test_large_logits_neither_overflow_nor_vanish(key):
    features, embedding, labels = example(key)
    for scale in (1e4, 1e-4):
        found = blocked_cross_entropy(scale * features, embedding, labels, block=3)
        np.testing.assert_allclose(found, plain(scale * features, embedding, labels), rtol=1e-5)


def test_half_precision_is_summed_in_float32(key):
    features, embedding, labels = example(key, vocabulary=300)
    half = [x.astype(jnp.bfloat16) for x in (features, embedding)]
    found = blocked_cross_entropy(*half, labels, block=64)
    assert found.dtype == jnp.float32
    wide = [x.astype(jnp.float32) for x in half]
    np.testing.assert_allclose(found, plain(*wide, labels), rtol=1e-5)


def test_labels_outside_of_the_vocabulary_are_not_a_number(key):
    features, embedding, labels = example(key)
    found = blocked_cross_entropy(features, embedding, labels.at[0, 0].set(11), block=4)
    assert np.isnan(found).sum() == np.isnan(found[0, 0]) == 1
    assert np.isnan(blocked_cross_entropy(features, embedding, labels - 99, block=4)).all()


def test_a_block_without_words_is_refused(key):
    with pytest.raises(ValueError, match="block=0"):
        blocked_cross_entropy(*example(key), block=0)


def objective(cross_entropy, key):
    """A linear model of words, each row with a weight of its own."""
    features, embedding, labels = example(key, rows=(40,), width=8, vocabulary=50)

    def loss(params, hyper, rows):
        each = cross_entropy(jnp.tanh(features @ params["in"]), params["out"], labels)
        return jnp.mean(jnp.exp(hyper["weight"]) * each)[None][rows.data[0]]

    score = lambda params, hyper, key: jnp.mean(
        cross_entropy(jnp.tanh(features @ params["in"]), params["out"], labels)[:10]
    )
    optimizer = hg.Momentum(lambda hyper, t: hyper["rate"], decay=0.9)
    batches = hg.full_batch(jnp.zeros(1, int))
    training = hg.Training(loss, optimizer=optimizer, batches=batches, steps=6)
    return hg.Objective(training, init={"in": jnp.eye(8), "out": 0.1 * embedding}, score=score)


@pytest.mark.parametrize("adjoint", [hg.Stored(), hg.Reversible()], ids=["Stored", "Reversible"])
def test_same_hypergradient_as_of_all_logits(key, adjoint):
    hyper = {"weight": jnp.zeros(40), "rate": jnp.float32(0.3)}
    blocked = functools.partial(blocked_cross_entropy, block=16)
    found, wanted = (
        jax.grad(functools.partial(objective(ce, key), adjoint=adjoint))(hyper)
        for ce in (blocked, plain)
    )
    np.testing.assert_allclose(found["weight"], wanted["weight"], rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(found["rate"], wanted["rate"], rtol=1e-3)


def test_all_logits_are_never_held(key):
    """A gradient's program has room for less than one array of them; the plain one for more."""
    features, embedding, labels = example(key, rows=(256,), width=8, vocabulary=8192)
    blocked = functools.partial(blocked_cross_entropy, block=512)

    def held(cross_entropy):
        total = lambda *args: jnp.sum(cross_entropy(*args, labels))
        program = jax.jit(jax.grad(total)).lower(features, embedding).compile()
        return program.memory_analysis().temp_size_in_bytes

    logits = 4 * 256 * 8192
    assert held(blocked) < logits / 2
    assert held(plain) > logits

"""A transformer's run: layers in a scan, remat, bfloat16, dropout, AdamW on a schedule."""

from pydoc_data.topics import topics

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
from benchmarks import transformer
from experiments.text import gpt

LETTERS = list("".join(topics.values())[:40_000])
_, TEXT = np.unique(LETTERS, return_inverse=True)
"""Of Python's own manual, as numbers."""


@pytest.mark.parametrize(("dtype", "near"), [("float32", 1e-3), ("bfloat16", 0.1)])
def test_it_comes_home_and_agrees(dtype, near):
    """`Reversible` refuses a run that does not lead back to the bit. Half precision has three
    digits."""
    objective, hyper, by_hand = transformer.make(12, width=32, layers=2, text=TEXT, dtype=dtype)
    adjoint = hg.Reversible(min_decay=0.85)
    value, found = jax.value_and_grad(lambda h: objective(h, adjoint=adjoint))(hyper)
    hand, right = jax.jit(jax.value_and_grad(by_hand))(hyper)
    np.testing.assert_allclose(value, hand, rtol=near / 100)
    for name, leaf in right.items():
        assert np.linalg.norm(found[name] - leaf) < near * np.linalg.norm(leaf), name


@pytest.fixture
def model(key):
    model = gpt.GPT(11, context=8, width=16, layers=2, key=key, dtype="float32")
    return eqx.tree_at(lambda m: m.out, model, jax.random.normal(key, model.out.shape))


def test_no_letter_sees_those_after_it(model, key):
    text = jax.random.randint(key, (3, 8), 0, 11)
    changed = text.at[:, 5].set((text[:, 5] + 1) % 11)
    before, after = model(text), model(changed)
    np.testing.assert_allclose(before[:, :5], after[:, :5], rtol=1e-5)
    assert not np.allclose(before[:, 5:], after[:, 5:])


def test_the_loss_of_a_uniform_guess(model):
    text = jnp.zeros((2, 8), jnp.int32)
    model = eqx.tree_at(lambda m: m.out, model, jnp.zeros_like(model.out))
    np.testing.assert_allclose(gpt.cross_entropy(model(text), text), np.log(11), rtol=1e-6)


def test_dropout_needs_a_key(model, key):
    text = jnp.arange(8, dtype=jnp.int32)[None]
    np.testing.assert_array_equal(model(text, 0.5), model(text))
    assert not np.allclose(model(text, 0.5, key), model(text))

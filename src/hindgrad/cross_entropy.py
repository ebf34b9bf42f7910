"""The cross-entropy over a large vocabulary, without all its logits at once."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from hindgrad import trees
from hindgrad.arguments import as_whole


def blocked_cross_entropy(
    features: Float[Array, "*rows width"],
    embedding: Float[Array, "vocabulary width"],
    labels: Int[Array, "*rows"],
    block: int = 4096,
) -> Float[Array, "*rows"]:
    """The cross-entropy (nats) of each row's label, for the logits `features @ embedding.T`.

    The logits of a training step are often its largest array, and hypergradients hold several of
    that size. Here those of `block` words at a time are computed, and again for each derivative,
    for one further product a derivative: memory falls from `rows · vocabulary` to `rows · block`.
    Logits and sums are float32, or float64 where an argument is. A label outside of the vocabulary
    gives NaN.

    The sums over blocks are those of Milakov and Gimelshein
    ([2018](https://arxiv.org/abs/1805.02867)).
    """
    block = as_whole("blocked_cross_entropy", "block", block)
    vocabulary, width = embedding.shape
    block = min(block, vocabulary)
    padded = jnp.pad(embedding, ((0, -vocabulary % block), (0, 0)))
    blocks = padded.reshape(-1, block, width)
    dtype = trees.common(features, embedding, jnp.float32)

    @jax.checkpoint
    def add(sums, rows_and_first):
        largest, total, right = sums
        rows, first = rows_and_first
        logits = jnp.matmul(features, rows.T, preferred_element_type=dtype)
        is_word = first + jnp.arange(block) < vocabulary
        logits = jnp.where(jnp.broadcast_to(is_word, logits.shape), logits, -jnp.inf)
        new = jnp.maximum(largest, jax.lax.stop_gradient(logits.max(-1)))
        total = total * jnp.exp(largest - new) + jnp.exp(logits - new[..., None]).sum(-1)
        place = labels - first
        found = jnp.take_along_axis(logits, jnp.clip(place, 0, block - 1)[..., None], -1)[..., 0]
        is_here = (place >= 0) & (place < block) & (labels < vocabulary)
        return (new, total, jnp.where(is_here, found, right)), None

    rows = jnp.zeros(labels.shape, dtype)
    start = (rows - jnp.inf, rows, rows + jnp.nan)
    firsts = block * jnp.arange(len(blocks))
    (largest, total, right), _ = jax.lax.scan(add, start, (blocks, firsts))
    return largest + jnp.log(total) - right

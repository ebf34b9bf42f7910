"""A small GPT (Equinox) on characters: scan over layers, remat, bfloat16 compute, dropout."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

HEAD = 16
"""The width of an attention head."""


class Layer(eqx.Module):
    """Attention and a multilayer perceptron, each normalised before and added."""

    attention_norm: eqx.nn.LayerNorm
    attention_in: Float[Array, "width 3*width"]
    attention_out: Float[Array, "width width"]
    mlp_norm: eqx.nn.LayerNorm
    mlp_in: Float[Array, "width 4*width"]
    mlp_out: Float[Array, "4*width width"]

    def __init__(self, width: int, key: PRNGKeyArray):
        keys = jax.random.split(key, 4)
        draw = lambda key, n, m: jax.random.normal(key, (n, m)) / n**0.5
        self.attention_norm, self.mlp_norm = eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width)
        self.attention_in = draw(keys[0], width, 3 * width)
        self.attention_out = draw(keys[1], width, width)
        self.mlp_in = draw(keys[2], width, 4 * width)
        self.mlp_out = draw(keys[3], 4 * width, width)

    def __call__(self, x: Array, dropout: float, key: PRNGKeyArray | None) -> Array:
        """The activations [rows, context, width] after the layer."""
        rows, context, width = x.shape
        first, second = (None, None) if key is None else jax.random.split(key)
        each = lambda norm, x: jax.vmap(jax.vmap(norm))(x).astype(x.dtype)
        qkv = each(self.attention_norm, x) @ self.attention_in.astype(x.dtype)
        q, k, v = jnp.split(qkv.reshape(rows, context, -1, 3 * HEAD), 3, axis=-1)
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        mixed = mixed.reshape(rows, context, width) @ self.attention_out.astype(x.dtype)
        x = x + _dropped(mixed, dropout, first)
        hidden = jax.nn.gelu(each(self.mlp_norm, x) @ self.mlp_in.astype(x.dtype))
        return x + _dropped(hidden @ self.mlp_out.astype(x.dtype), dropout, second)


class GPT(eqx.Module):
    """Characters to the logits of the next ones."""

    embedding: Float[Array, "vocabulary width"]
    position: Float[Array, "context width"]
    layers: Layer
    """All of them, stacked."""
    norm: eqx.nn.LayerNorm
    out: Float[Array, "width vocabulary"]
    dtype: str = eqx.field(static=True)

    def __init__(
        self,
        vocabulary: int,
        *,
        context: int,
        width: int,
        layers: int,
        key: PRNGKeyArray,
        dtype: str = "bfloat16",
    ):
        first, second, third, fourth = jax.random.split(key, 4)
        self.embedding = jax.random.normal(first, (vocabulary, width)) / 4
        self.position = jax.random.normal(second, (context, width)) / 4
        self.layers = eqx.filter_vmap(lambda key: Layer(width, key))(
            jax.random.split(third, layers)
        )
        self.norm = eqx.nn.LayerNorm(width)
        self.out = jax.random.normal(fourth, (width, vocabulary)) / width**0.5
        self.dtype = dtype

    def __call__(
        self,
        text: Int[Array, "rows context"],
        dropout: float = 0.0,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, "rows context vocabulary"]:
        """The logits in float32; without a key nothing is dropped."""
        x = (self.embedding[text] + self.position[None]).astype(self.dtype)
        count = self.layers.mlp_in.shape[0]
        keys = None if key is None else jax.random.split(key, count)

        @jax.checkpoint
        def layer(x, of_layer):
            weights, key = of_layer
            return weights(x, dropout, key), None

        x, _ = jax.lax.scan(layer, x, (self.layers, keys))
        x = jax.vmap(jax.vmap(self.norm))(x.astype(jnp.float32))
        return x @ self.out


def _dropped(x, dropout, key):
    if key is None or dropout == 0.0:
        return x
    kept = jax.random.bernoulli(key, 1 - dropout, x.shape)
    return jnp.where(kept, x / (1 - dropout), 0).astype(x.dtype)


def cross_entropy(
    logits: Float[Array, "rows context vocabulary"], text: Int[Array, "rows context"]
) -> Float[Array, " rows"]:
    """The mean loss of each row's characters."""
    picked = jnp.take_along_axis(logits, text[..., None], -1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, -1) - picked, -1)

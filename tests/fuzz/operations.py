"""The operations of which random losses consist: `(z, p, at) -> z`, with z of shape (rows, D).

`p(*shape)` is a parameter in that shape; `at` is what else a step sees.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

D = 4
"""Columns of z."""


class At(NamedTuple):
    """What an operation sees beside z and its parameter."""

    label: Any
    """An integer below D for each row."""
    key: Any
    """The batch's key."""
    t: Any
    """The step, as the batch tells it."""
    exact: bool
    """Without casts to fewer bits, for the reference in float64."""


OPERATIONS: dict[str, Callable[..., Any]] = {}
"""By name."""


def named(function: Callable[..., Any], table: dict[str, Any] = OPERATIONS) -> Callable[..., Any]:
    """Puts an operation into the table."""
    table[function.__name__.replace("_", " ")] = function
    return function


@named
def matmul(z, p, at):
    return z @ p(D, D) / 2


@named
def einsum(z, p, at):
    return jnp.einsum("bd,de,e->be", z, p(D, D), p(D)) / 2


@named
def outer(z, p, at):
    return lax.dot_general(z[:, :, None] * p(D)[None, None], z, (((2,), (1,)), ((0,), (0,)))) / 2


@named
def tanh(z, p, at):
    return jnp.tanh(z + p(D)[None])


@named
def relu(z, p, at):
    return jax.nn.relu(z + p(D)[None])


@named
def gelu(z, p, at):
    return jax.nn.gelu(z * p(D)[None], approximate=False)


@named
def softplus(z, p, at):
    return jnp.logaddexp(z, p(D)[None])


@named
def softmax(z, p, at):
    return jax.nn.softmax(z + p(D)[None], axis=-1) * 2


@named
def logsumexp(z, p, at):
    return z * 0.5 + jax.nn.logsumexp(z * p(D)[None], axis=-1, keepdims=True) / 2


@named
def gather(z, p, at):
    return z + p(D, D)[at.label]


@named
def scatter(z, p, at):
    return z.at[:, at.label].add(p(at.label.size)[None])


@named
def segment_sum(z, p, at):
    return jnp.tanh(jax.ops.segment_sum(z * p(D)[None], at.label, D)[at.label])


@named
def one_hot(z, p, at):
    return z * p(D)[None] + jax.nn.one_hot(jnp.argmax(z, -1), D, dtype=z.dtype) * z


@named
def sort(z, p, at):
    return jnp.sort(z + p(D)[None], axis=-1)


@named
def top_k(z, p, at):
    return z * 0.5 + lax.top_k(z * p(D)[None], 2)[0].sum(-1, keepdims=True)


@named
def median(z, p, at):
    return z - jnp.median(z * p(D)[None], axis=-1, keepdims=True)


@named
def cumsum(z, p, at):
    return jnp.cumsum(z * p(D)[None], axis=-1) / 2


@named
def cumprod(z, p, at):
    return jnp.cumprod(1 + z * p(D)[None] / 4, axis=-1) - 1


@named
def associative_scan(z, p, at):
    combine = lambda a, b: (a[0] * b[0], a[1] * b[0] + b[1])
    decay = jnp.broadcast_to(jnp.tanh(p(D))[None], z.shape)
    return lax.associative_scan(combine, (decay, z), axis=1)[1] / 2


@named
def scan(z, p, at):
    def cell(carry, column):
        carry = jnp.tanh(carry * p() + column)
        return carry, carry

    return lax.scan(cell, jnp.zeros_like(z[:, 0]), z.T)[1].T


@named
def reverse_scan(z, p, at):
    def cell(carry, xs):
        column, w = xs
        return carry * 0.5 + column * w, jnp.sin(carry)

    last, rest = lax.scan(cell, z[:, 0], (z.T, p(D)), reverse=True, unroll=2)
    return rest.T + last[:, None]


@named
def fori(z, p, at):
    return lax.fori_loop(0, 2, lambda i, z: z + jnp.sin(z * p()) / (2 + i), z)


@named
def fori_of_batch(z, p, at):
    """A loop whose length depends on the data, where no derivative passes."""
    w = lax.stop_gradient(p())
    count = lax.fori_loop(0, at.label[0], lambda i, c: c + w**2, 0.0 * w)
    return z / (1 + count)


@named
def while_loop(z, p, at):
    size = lax.stop_gradient(jnp.max(jnp.abs(z)) + jnp.abs(p()))
    factor = lax.while_loop(
        lambda c: c[0] > 1, lambda c: (c[0] / 2, c[1] * 0.7), (size, jnp.ones_like(size))
    )[1]
    return z * factor


@named
def cond_of_step(z, p, at):
    return lax.cond(at.t % 2 == 0, lambda z: jnp.sin(z * p()), lambda z: z * 0.5, z)


@named
def cond_of_params(z, p, at):
    w = p()
    return lax.cond(w > 0, lambda z, w: z * w, lambda z, w: jnp.tanh(z) - w, z, w)


@named
def switch(z, p, at):
    branches = [lambda z, w: z * w, lambda z, w: jnp.cos(z + w), lambda z, _: -z]
    return lax.switch(at.label[0] % 3, branches, z, p())


@named
def where(z, p, at):
    return jnp.where(z > p(D)[None], z, z * z / 4)


@named
def select_n(z, p, at):
    return lax.select_n(at.label % 2 == 0, z[:, 0], z[:, 1] * p())[:, None] + z * 0.5


@named
def max_pool(z, p, at):
    pooled = lax.reduce_window(z * p(D)[None], -jnp.inf, lax.max, (1, 2), (1, 2), "VALID")
    return jnp.repeat(pooled, 2, axis=1)


@named
def mean_pool(z, p, at):
    return lax.reduce_window(z * p(D)[None], 0.0, lax.add, (1, 3), (1, 1), "SAME") / 3


@named
def maximum(z, p, at):
    return jnp.maximum(z, p(D)[None]) - jnp.max(z, axis=0, keepdims=True) / 2


@named
def clip(z, p, at):
    return jnp.clip(z * p(D)[None], -0.5, 0.7)


@named
def norm(z, p, at):
    return z / (0.5 + jnp.linalg.norm(z + p(D)[None], axis=-1, keepdims=True))


@named
def layer_norm(z, p, at):
    centred = z - z.mean(-1, keepdims=True)
    return centred * lax.rsqrt(z.var(-1, keepdims=True) + 0.1) * p(D)[None]


@named
def batch_norm(z, p, at):
    return (z - z.mean(0, keepdims=True)) / jnp.sqrt(z.var(0, keepdims=True) + 0.1) + p(D)[None]


@named
def attention(z, p, at):
    weights = jax.nn.softmax((z @ p(D, D)) @ z.T / 2, axis=-1)
    return weights @ z


@named
def fused_attention(z, p, at):
    heads = lambda x: x.reshape(1, -1, 2, D // 2)
    return jax.nn.dot_product_attention(
        heads(z @ p(D, D)), heads(z), heads(z * 0.5), is_causal=True
    ).reshape(z.shape)


@named
def dropout(z, p, at):
    return jnp.where(jax.random.bernoulli(at.key, 0.7, z.shape), z / 0.7, 0) + p(D)[None]


@named
def noise(z, p, at):
    # uniform, not normal: `normal` draws other numbers with and without float64's own bits
    return z + p(D)[None] * jax.random.uniform(at.key, z.shape, jnp.float32).astype(z.dtype)


@named
def stopped(z, p, at):
    return z * lax.stop_gradient(jnp.tanh(z + p(D)[None])) + p(D)[None]


@named
def remat(z, p, at):
    return jax.checkpoint(lambda z, w: jnp.tanh(jnp.sin(z) * w))(z, p(D)[None])


@named
def remat_saving_dots(z, p, at):
    layer = lambda z, w: jnp.tanh(jnp.sin(z) @ w)
    return jax.checkpoint(layer, policy=jax.checkpoint_policies.dots_saveable)(z, p(D, D))


@named
def jitted(z, p, at):
    return jax.jit(lambda z, w: z * w + jnp.cos(w))(z, p(D)[None])


@named
def vmapped(z, p, at):
    return jax.vmap(lambda row, w: row * w - row.sum(), in_axes=(0, None))(z, p(D)) / 2


@named
def lax_map(z, p, at):
    return lax.map(lambda row: jnp.tanh(row * p(D)), z)


@named
def inner_gradient(z, p, at):
    return jax.grad(lambda z, w: jnp.sum(jnp.sin(z * w)))(z, p(D)[None])


@named
def inner_tangent(z, p, at):
    return jax.jvp(lambda z: jnp.tanh(z) ** 2, (z,), (jnp.broadcast_to(p(D)[None], z.shape),))[1]


@named
def fourier(z, p, at):
    return jnp.abs(jnp.fft.fft(z + p(D)[None], axis=-1)) ** 2 / 8


@named
def real_fourier(z, p, at):
    spectrum = jnp.fft.rfft(z, axis=-1) * p(D // 2 + 1)[None]
    return jnp.fft.irfft(spectrum, n=D, axis=-1)


@named
def complex_phase(z, p, at):
    wave = jnp.exp(1j * (z + p(D)[None]))
    return (wave * jnp.conj(wave[:, ::-1])).real


@named
def solve(z, p, at):
    matrix = p(D, D)
    return jnp.linalg.solve(4 * jnp.eye(D, dtype=z.dtype) + matrix, z.T).T * 2


@named
def cholesky(z, p, at):
    matrix = p(D, D)
    root = jnp.linalg.cholesky(matrix @ matrix.T + 2 * jnp.eye(D, dtype=z.dtype))
    return lax.linalg.triangular_solve(root, z.T, left_side=True, lower=True).T


@named
def determinant(z, p, at):
    return z * 0.5 + jnp.linalg.slogdet(3 * jnp.eye(D, dtype=z.dtype) + p(D, D))[1]


@named
def convolution(z, p, at):
    return lax.conv_general_dilated(z[:, None], p(1, 1, 3), (1,), "SAME")[:, 0]


@named
def sine(z, p, at):
    return jnp.sin(z * p(D)[None]) + jnp.cos(z) / 2


@named
def arctan2(z, p, at):
    return jnp.arctan2(z, 1.5 + jnp.tanh(p(D))[None])


@named
def divided(z, p, at):
    return jnp.where(jnp.abs(z) > 0.1, p(D)[None] / jnp.where(jnp.abs(z) > 0.1, z + z**3, 1), z)


@named
def power(z, p, at):
    return (1 + z**2) ** (jnp.tanh(p(D))[None] / 2) - 1


@named
def product(z, p, at):
    return z * 0.5 + jnp.prod(1 + z * p(D)[None] / 4, axis=-1, keepdims=True)


@named
def rolled(z, p, at):
    return jnp.roll(z, 1, axis=-1) * p(D)[None] + lax.rev(z, (1,)) / 2


@named
def sliced(z, p, at):
    part = lax.dynamic_slice(p(2 * D), (at.label[0],), (D,))
    return (
        z
        + lax.dynamic_update_slice(z, part[None, :2], (jnp.zeros_like(at.label[0]), at.label[0]))
        / 2
    )


@named
def concatenated(z, p, at):
    return jnp.pad(jnp.concatenate([z[:, 1:], z[:, :1] * p()], axis=1), ((0, 0), (1, 0)))[:, :D]


JUMPING = {"relu", "sort", "top k", "median", "where", "max pool", "maximum", "clip", "divided"}
JUMPING |= {"one hot", "while loop", "cond of params"}
"""Operations with kinks, which rounding may bring to the other side."""

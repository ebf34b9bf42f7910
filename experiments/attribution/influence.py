"""What is used in place of hypergradients: answers from one trained model, or a few checkpoints.

All are of the form `removed` [queries, rows]: by how much a query, the log-odds of a row's own
class, would change without a training row. They cost gradients of single rows and products with
them, and never train.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from experiments.attribution.networks import log_odds, losses
from experiments.models import Examples

Logits = Callable[[PyTree, Float[Array, "rows pixels"]], Float[Array, "rows classes"]]
PerRow = Callable[[Float[Array, "rows classes"], Examples], Float[Array, " rows"]]

CHUNK = 100
"""Rows that are worked on at a time: what memory holds of single gradients."""


def influence_functions(
    logits: Logits,
    params: PyTree,
    train: Examples,
    queries: Examples,
    *,
    damping: float,
    iterations: int,
) -> Float[np.ndarray, "queries rows"]:
    """Influence functions by conjugate gradients (Koh & Liang 2017, arXiv 1703.04730), with the
    generalised Gauss-Newton matrix G of the mean training loss in place of its Hessian, which has
    negative eigenvalues away from a minimum: ∇f(q)ᵀ (G + damping)⁻¹ ∇l(i) / rows."""
    solved = _solved(logits, params, train, queries, damping, iterations)
    return np.asarray(projected(losses, logits, params, train, solved)).T / len(train)


def trak(
    logits: Logits,
    params: PyTree,
    train: Examples,
    queries: Examples,
    *,
    key: PRNGKeyArray,
    dimensions: int,
) -> Float[np.ndarray, "queries rows"]:
    """TRAK on one model (Park et al. 2023, arXiv 2303.14186): the gradients of the log-odds,
    projected at random to Φ, and the scores φ(q)ᵀ (ΦᵀΦ)⁻¹ φ(i) (1 − p(i)), negated."""
    size = ravel_pytree(params)[0].size
    projection = jax.random.normal(key, (size, dimensions)) / dimensions**0.5
    of = partial(projected, log_odds, logits, params)
    features, asked = (np.asarray(of(rows, projection), np.float64) for rows in (train, queries))
    doubt = jax.nn.sigmoid(-log_odds(logits(params, train.x), train))
    kernel = asked @ np.linalg.solve(features.T @ features, features.T)
    return -kernel * np.asarray(doubt)[None]


def tracin(
    logits: Logits, checkpoints: Sequence[PyTree], train: Examples, queries: Examples
) -> Float[np.ndarray, "queries rows"]:
    """TracIn (Pruthi et al. 2020, arXiv 2002.08484) at one constant rate, which no rank depends
    on: the products ∇f(q)ᵀ ∇l(i), summed over checkpoints."""
    products = [
        projected(losses, logits, params, train, gradients(log_odds, logits, params, queries).T)
        for params in checkpoints
    ]
    return np.sum(products, axis=0).T


@eqx.filter_jit
def gradients(
    function: PerRow, logits: Logits, params: PyTree, rows: Examples
) -> Float[Array, "rows params"]:
    """The gradient of each row's own value."""
    return jax.vmap(partial(_gradient, function, logits, params))(rows)


@eqx.filter_jit
def projected(
    function: PerRow,
    logits: Logits,
    params: PyTree,
    rows: Examples,
    matrix: Float[Array, "params dimensions"],
) -> Float[Array, "rows dimensions"]:
    """The gradient of each row's own value times a matrix; never are all gradients held."""
    one = lambda row: _gradient(function, logits, params, row) @ matrix
    return jax.lax.map(one, rows, batch_size=CHUNK)


def _gradient(function, logits, params, row):
    alone = jax.tree.map(lambda x: x[None], row)
    value = lambda params: function(logits(params, alone.x), alone)[0]
    return ravel_pytree(jax.grad(value)(params))[0]


@eqx.filter_jit
def gauss_newton_product(
    logits: Logits, params: PyTree, rows: Examples, vector: Float[Array, " params"]
) -> Float[Array, " params"]:
    """G v for the mean loss over the rows: G = mean Jᵀ (diag p − p pᵀ) J, with J the derivatives
    of a row's scores and p its softmax."""
    flat, unravel = ravel_pytree(params)
    count = math.gcd(len(rows), CHUNK)

    def of_chunk(total, x):
        scores = lambda flat: logits(unravel(flat), x)
        value, tangent = jax.jvp(scores, (flat,), (vector,))
        p = jax.nn.softmax(value)
        curved = p * (tangent - jnp.sum(p * tangent, 1, keepdims=True))
        return total + jax.vjp(scores, flat)[1](curved)[0], None

    chunks = rows.x.reshape(-1, count, rows.x.shape[1])
    total, _ = jax.lax.scan(of_chunk, jnp.zeros_like(flat), chunks)
    return total / len(rows)


@eqx.filter_jit
def _solved(logits, params, train, queries, damping, iterations):
    """(G + damping)⁻¹ times the gradient of each query, [params, queries]."""
    damped = lambda v: gauss_newton_product(logits, params, train, v) + damping * v
    solve = lambda g: cg(damped, g, maxiter=iterations)[0]
    return jax.vmap(solve)(gradients(log_odds, logits, params, queries)).T

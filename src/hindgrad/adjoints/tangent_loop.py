"""`TangentLoop`: the loop itself, for derivatives that go forward."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from hindgrad import trees
from hindgrad.adjoints.base import Adjoint, forward

UNROLLED = 16
"""Up to so many tangents are carried one beside the other; more, as batches. On a CPU a product
with a batch of matrices takes longer than as many products."""


class TangentLoop(Adjoint):
    """The steps as an ordinary loop, whose derivative is JAX's own. What `Forward` runs."""

    def run(self, dynamics, state):
        return _run((dynamics, state))


@eqx.filter_custom_jvp
def _run(inputs: PyTree) -> PyTree:
    return forward(*inputs)


@_run.def_jvp
def _run_jvp(primals, tangents):
    (inputs,), (along,) = primals, tangents
    moves = jax.tree.map(lambda t: t is not None, along, is_leaf=lambda x: x is None)
    moving, fixed = eqx.partition(inputs, moves)
    arrays, static = eqx.partition(fixed, eqx.is_array)

    def whole(moving, arrays):
        return eqx.combine(moving, arrays, static)

    @jax.custom_batching.custom_vmap
    def push(moving, arrays, along):
        value, derivative, rest = jax.jvp(
            lambda moving: _split(forward(*whole(moving, arrays))),
            (moving,),
            (along,),
            has_aux=True,
        )
        return eqx.combine(value, rest), derivative

    @push.def_vmap
    def push_batch(count, batched, moving, arrays, along):
        of_run, of_along = batched[:2], batched[2]
        axes = lambda tree: jax.tree.map(lambda b: 0 if b else None, tree)
        runs = any(jax.tree.leaves(of_run))
        answer = lambda results: tuple(
            jax.tree.map(lambda _, b=b: b, part)
            for part, b in zip(results, (runs, True), strict=True)
        )
        if runs or count > UNROLLED or jax.default_backend() != "cpu":
            in_axes, out_axes = (*map(axes, of_run), axes(of_along)), (0 if runs else None, 0)
            batch = jax.vmap(push.fun, in_axes, out_axes, axis_size=count)
            results = batch(moving, arrays, along)
            return results, answer(results)
        take = lambda i: jax.tree.map(lambda x, b: x[i] if b else x, along, of_along)
        value, derivatives = _beside(whole(moving, arrays), moves, [take(i) for i in range(count)])
        derivative = jax.tree.map(lambda *parts: jnp.stack(parts), *derivatives)
        return (value, derivative), answer((value, derivative))

    return push(moving, arrays, along)


def _beside(inputs, moves, alongs):
    """The run with its derivatives along several directions, each carried for itself."""
    dynamics, state = inputs
    sources, fixed = eqx.partition(dynamics, moves[0])

    def begin(along):
        return trees.zeros_where_none(state, along[1])

    def body(carry, k):
        state, moved = carry
        floats, rest = _split(state)

        def step(sources, floats):
            return _split(eqx.combine(sources, fixed).step(eqx.combine(floats, rest), k))

        value, push, others = jax.linearize(step, sources, floats, has_aux=True)
        pushed = [push(along[0], m) for along, m in zip(alongs, moved, strict=True)]
        after, output = eqx.combine(value, others)
        return (after, [p[0] for p in pushed]), (output, [p[1] for p in pushed])

    ks = jnp.arange(dynamics.steps, dtype=jnp.int32)
    carry = state, [begin(along) for along in alongs]
    (final, moved), (outputs, heard) = jax.lax.scan(body, carry, ks)
    return (final, outputs), list(zip(moved, heard, strict=True))


def _split(tree):
    return eqx.partition(tree, eqx.is_inexact_array)

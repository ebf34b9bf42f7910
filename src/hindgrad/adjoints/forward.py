"""`Forward`: tangents carried along with the state."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from hindgrad import trees
from hindgrad.adjoints import tangents
from hindgrad.adjoints.base import Adjoint, Traits, forward
from hindgrad.adjoints.tangent_loop import TangentLoop
from hindgrad.arguments import whole, whole_or_none


class Forward(Adjoint):
    """Carries the state's derivative with respect to every hyperparameter along with the state:
    `Z_{k+1} = A_k Z_k + B_k` (Franceschi et al. 2017, Alg. 2).

    Exact. Memory does not depend on the number of steps; time grows with the number of
    hyperparameters. It is for few of them (up to about ten) and long runs, of any dynamics. What
    is not differentiated (integers, keys, hyperparameters held fixed) costs nothing.

    In an `Objective` the start and the score are carried through too: an initial scale is one
    tangent. Outside of one, a derivative with respect to the initial state takes a tangent for
    each of its elements.

    **Arguments:**

    - `block`: how many tangents to carry at a time; all unless given. Memory is then `block` + 1
      states, and every block runs the training again. (With it, JAX refuses `jax.jvp`.)
    - `limit`: the most tangents; above, differentiating raises `ValueError`.
    """

    traits = Traits(
        states="none: derivatives go forward with the run",
        memory="a state for each hyperparameter (for `block` of them at a time)",
        replays="none; with `block`, the run for each further block",
        exact="yes",
        optimizers="any",
    )

    block: int | None = eqx.field(default=None, converter=whole_or_none("Forward", "block"))
    limit: int = eqx.field(default=10_000, converter=whole("Forward", "limit"))

    def run(self, dynamics, state):
        if self.block is None:
            return _carried((dynamics, state), _run, self)
        return _in_blocks((dynamics, state), self)

    def evaluate(self, run, hyper):
        closed = trees.close(lambda hyper: run(hyper, TangentLoop()), hyper)
        if self.block is None:
            return _carried((closed, hyper), _call, self)
        return _evaluated_in_blocks((closed, hyper), self)

    def split(self, inputs: PyTree, moves: PyTree) -> tuple[PyTree, PyTree, int]:
        """What is differentiated, the rest, and the number of tangents."""
        moving, fixed = eqx.partition(inputs, moves)
        size = trees.size(moving)
        if any(map(jnp.iscomplexobj, jax.tree.leaves(moving))):
            raise ValueError(
                "Forward carries derivatives along real directions, and was asked for one with "
                "respect to complex numbers. Give their real and imaginary parts, or use Stored()."
            )
        if size > self.limit:
            sizes = ", ".join(f"{x.size:,}" for x in jax.tree.leaves(moving))
            raise ValueError(
                f"Forward was asked for derivatives with respect to {size:,} numbers (arrays of "
                f"{sizes}), each of which takes a tangent; its limit is {self.limit:,}. For many "
                "hyperparameters use Checkpointed(). If the initial parameters are among them "
                "since they depend on hyperparameters, give the function to Objective(init=…). "
                "Forward(limit=…) allows more."
            )
        return moving, fixed, size


def _run(inputs):
    return forward(*inputs)


def _call(inputs):
    function, hyper = inputs
    return function(hyper)


@eqx.filter_custom_jvp
def _carried(inputs: PyTree, function: Callable[[PyTree], PyTree], adjoint: Forward) -> PyTree:
    """`function(inputs)`, with its derivatives computed beside it."""
    del adjoint
    return function(inputs)


@_carried.def_jvp
def _carried_jvp(primals, along):
    inputs, function, adjoint = primals
    moves = jax.tree.map(lambda t: t is not None, along[0], is_leaf=lambda x: x is None)
    moving, fixed, size = adjoint.split(inputs, moves)
    at = lambda moving: function(eqx.combine(moving, fixed))
    value, derivatives = tangents.jacobian(at, moving, size, block=None)
    return value, tangents.combine(along[0], derivatives)


@eqx.filter_custom_vjp
def _in_blocks(inputs: PyTree, adjoint: Forward) -> PyTree:
    """A run whose derivatives are computed when their cotangents are known, so that no more than
    a block of them exists at a time."""
    del adjoint
    return forward(*inputs)


@_in_blocks.def_fwd
def _in_blocks_forward(perturbed, inputs, adjoint):
    adjoint.split(inputs, perturbed)
    return forward(*inputs), perturbed


@_in_blocks.def_bwd
def _in_blocks_backward(perturbed, cotangent, _, inputs, adjoint):
    moving, fixed, size = adjoint.split(inputs, perturbed)
    at = lambda moving: forward(*eqx.combine(moving, fixed))
    return tangents.pulled_in_blocks(at, moving, size, adjoint.block, cotangent)


@eqx.filter_custom_vjp
def _evaluated_in_blocks(inputs: PyTree, adjoint: Forward) -> PyTree:
    """A scalar function's value, with its gradient beside it. (A `custom_jvp` would not do: under
    `jax.grad`, JAX takes what the blocks share out of their loop, and stores it for every step.)"""
    del adjoint
    return _call(inputs)


@_evaluated_in_blocks.def_fwd
def _evaluated_in_blocks_forward(perturbed, inputs, adjoint):
    moving, fixed, size = adjoint.split(inputs, perturbed)
    at = lambda moving: _call(eqx.combine(moving, fixed))
    value, gradient = tangents.jacobian(at, moving, size, adjoint.block)
    return value, tangents.unflat(gradient, moving)


@_evaluated_in_blocks.def_bwd
def _evaluated_in_blocks_backward(gradient, cotangent, _, inputs, adjoint):
    del inputs, adjoint
    return jax.tree.map(lambda g: cotangent.astype(g.dtype) * g, gradient)

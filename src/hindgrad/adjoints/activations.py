"""A step taken apart: what the way back keeps of the way forward, and what it computes anew."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from hindgrad.dynamics import Dynamics, Pulled
from hindgrad.jaxprs import inlined, within

KEPT = {"dot_general", "conv_general_dilated", "pure_callback", "io_callback"}
"""The primitives whose results are kept; what is computed from them is computed anew. A callback
may be slow too, and need not give the same again."""


class Linearized(eqx.Module):
    """A step and its pullback, as two programs: the first puts out the activations that the second
    needs, the results of products and convolutions and callbacks, as far as the states do not have
    them."""

    forward_program: Any = eqx.field(static=True)
    backward_program: Any = eqx.field(static=True)
    constants: list[Array]
    forward_results: Any = eqx.field(static=True)
    """The structure of (after, output)."""
    pulled: Any = eqx.field(static=True)
    """The structure of what the pullback gives."""
    activation_bytes: int = eqx.field(static=True)
    """Of one step."""

    @staticmethod
    def of(dynamics: Dynamics, wanted: PyTree, state: PyTree) -> "Linearized":
        """The steps from states like that, for a score that sees no outputs of the steps."""
        k = jnp.int32(0)
        cotangent, _ = eqx.filter_eval_shape(dynamics.step, state, k)
        cotangent = eqx.filter(cotangent, lambda x: jnp.issubdtype(x.dtype, jnp.inexact))

        def step(dynamics, state, k, cotangent):
            after, output, pull = dynamics.linearize(wanted, state, k)
            nothing = jax.tree.map(lambda _: None, output)
            return (after, output), pull((cotangent, nothing))

        program, results, _ = eqx.filter_make_jaxpr(step)(dynamics, state, k, cotangent)
        program = inlined(program)
        of_step, pulled = map(jax.tree.structure, results)
        counts = len(jax.tree.leaves(cotangent)), len(jax.tree.leaves(results[0][0]))
        forward, backward, kept = _taken_apart(program.jaxpr, *counts, of_step.num_leaves)
        size = sum(v.aval.size * v.aval.dtype.itemsize for v in kept)
        constants = [jnp.asarray(x) for x in program.consts]
        return Linearized(forward, backward, constants, of_step, pulled, size)

    def forward(
        self, dynamics: Dynamics, state: PyTree, k: Int[Array, ""]
    ) -> tuple[PyTree, PyTree, list[Array]]:
        """The state after the step, its output, and the activations."""
        found = self._run(self.forward_program, (dynamics, state, k))
        count = self.forward_results.num_leaves
        after, output = jax.tree.unflatten(self.forward_results, found[:count])
        return after, output, found[count:]

    def pullback(
        self,
        dynamics: Dynamics,
        state: PyTree,
        k: Int[Array, ""],
        after: PyTree,
        activations: list[Array],
    ) -> Callable[[PyTree], Pulled]:
        """The pullback of a cotangent of the state after; that of the output is zero."""

        def pull(cotangent):
            given = (dynamics, state, k), after, activations, cotangent[0]
            return jax.tree.unflatten(self.pulled, self._run(self.backward_program, given))

        return pull

    def _run(self, program, given):
        arrays = jax.tree.leaves(eqx.filter(given, eqx.is_array))
        return jex.jaxpr_as_fun(jex.ClosedJaxpr(program, self.constants))(*arrays)


def _taken_apart(jaxpr, cotangents, after, results):
    """The program of a step, whose last inputs are cotangents and whose first results are the state
    after and the output, as one for each direction, and the variables that are kept between."""
    given = jaxpr.invars[: len(jaxpr.invars) - cotangents]
    later, before = set(jaxpr.invars[len(given) :]), []
    for equation in jaxpr.eqns:
        if later.isdisjoint(_variables(equation.invars)):
            before.append(equation)
        else:
            later.update(equation.outvars)
    of_after = _each_once(jaxpr.outvars[:after], set(given))
    at_hand = {*given, *jaxpr.constvars, *of_after}
    to_keep = {v for e in before if _is_kept(e) for v in e.outvars} - at_hand
    needed, kept, again = set(_variables(jaxpr.outvars[results:])), [], []
    for equation in reversed(jaxpr.eqns):
        asked = needed.intersection(equation.outvars) - at_hand
        kept += [v for v in equation.outvars if v in asked and v in to_keep]
        if asked - to_keep:
            again.append(equation)
            needed.update(_variables(equation.invars))
    forward = jaxpr.replace(invars=given, eqns=before, outvars=[*jaxpr.outvars[:results], *kept])
    backward = jaxpr.replace(
        invars=[*given, *of_after, *kept, *jaxpr.invars[len(given) :]],
        eqns=again[::-1],
        outvars=jaxpr.outvars[results:],
    )
    return forward, backward, kept


def _each_once(variables, seen):
    """The variables, with others that nothing uses in place of those seen before."""
    once = []
    for v in variables:
        is_new = not isinstance(v, jex.Literal) and v not in seen
        once.append(v if is_new else jex.gensym()(v.aval))
        seen = seen | {once[-1]}
    return once


def _variables(operands):
    return [v for v in operands if not isinstance(v, jex.Literal)]


def _is_kept(equation):
    return any(map(_is_one_kept, [equation, *within(equation)]))


def _is_one_kept(equation):
    """Whether numbers are multiplied and summed: not of a product of vectors that sums nothing."""
    if equation.primitive.name != "dot_general":
        return equation.primitive.name in KEPT
    (summed, _), _ = equation.params["dimension_numbers"]
    return bool(summed)

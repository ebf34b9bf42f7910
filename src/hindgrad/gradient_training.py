"""Training by gradients: one step, and its pullback by one gradient and one tangent of it."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from hindgrad import errors, numerics, rules, several, sums, trees
from hindgrad.dynamics import Dynamics, Pulled
from hindgrad.jaxprs import rewritten
from hindgrad.optimizers.base import Optimizer
from hindgrad.optimizers.closed import ClosedOptimizer
from hindgrad.reductions import sums_as_products
from hindgrad.transposes import contracted_last, products_transposed

STACK_LIMIT = 2**20
"""A coefficient's cotangents are kept step by step if they are fewer than this over the run."""


class Gradient(NamedTuple):
    """A step's loss and the model's state after it, the loss's gradient with respect to the params
    (first; others follow where they are needed), and the transpose of the derivative of all: from
    the cotangents of the params' gradient, of the loss and of the state after (None for zero) to
    those of (params, sources, the state before)."""

    loss: Array
    model: PyTree
    values: PyTree
    transpose: Callable[..., PyTree]


class GradientTraining(Dynamics):
    """A step that takes one gradient: `g = ∇_θ L(θ, λ, batch_t)`, then `update(g, …)`.

    The state is (params, memory, model): the optimizer's memory, and the model's own state, which
    the loss changes (None if it has none). The output is the loss. The pullback takes one gradient
    and one tangent of it (forward over reverse: the Hessian is symmetric), so that a hypergradient
    costs about four trainings (MixFlow-MG, arXiv 2505.00793, uses the same form); the cotangent
    of the model's state goes back by the same tangent. Where the loss has derivative rules of its
    own, or complex numbers, the gradient is pulled back in reverse.

    All functions are closed: what they close over is part of the pytree.
    """

    loss: Callable[..., tuple[Float[Array, ""], PyTree]]
    """`(params, hyper, batch, model) -> (value, model)`."""
    batches: Callable[[Int[Array, ""]], Any]
    optimizer: ClosedOptimizer
    hyper: PyTree
    start: Int[Array, ""]
    steps: int = eqx.field(static=True)
    own_rules: tuple[str, ...] = eqx.field(static=True)
    """The functions in the loss whose derivative rule need not be the derivative."""

    @staticmethod
    def of(
        loss: Callable[..., tuple[Float[Array, ""], PyTree]],
        batches: Callable[[Int[Array, ""]], Any],
        optimizer: Optimizer,
        hyper: PyTree,
        steps: tuple[Int[Array, ""], int],
        state: tuple[PyTree, PyTree, PyTree],
    ) -> "GradientTraining":
        """The training from a state; `steps` are the first and how many."""
        start, count = steps
        params, memory, model = state
        loss = trees.close(
            rewritten(loss, sums_as_products),
            params,
            hyper,
            eqx.filter_eval_shape(batches, start),
            model,
        )
        batches = trees.close(batches, start)
        program, *_ = eqx.filter_make_jaxpr(lambda p, h, t, model: loss(p, h, batches(t), model))(
            params, hyper, start, model
        )
        several.check_callbacks(program.jaxpr)
        return GradientTraining(
            loss=loss,
            batches=batches,
            optimizer=ClosedOptimizer.of(optimizer, hyper, start, (params, memory)),
            hyper=hyper,
            start=start,
            steps=count,
            own_rules=tuple(rules.own_rules(program.jaxpr)),
        )

    def coefficients(self, t: Int[Array, ""]) -> PyTree:
        """What the optimizer takes from the hyperparameters at step `t`."""
        return self.optimizer.coefficients(self.hyper, t)

    def step(self, state, k):
        params, memory, model = state
        t = self.start + k
        coefficients = self.coefficients(t)
        params = self.optimizer.move(params, memory, coefficients)
        gradient = value_and_grad(self.loss)
        (loss, model), grads = gradient(params, self.hyper, self.batches(t), model)
        updated = self.optimizer.watched_update(grads, memory, params, coefficients)
        return (*updated, model), loss

    def recorded(self, state, k):
        if not self.own_rules or self.optimizer.gradient_is_constant:
            return self.step(state, k)
        # The derivative of what a `custom_vjp` computes is that of its forward rule, and has both
        # modes, once a first derivative has been taken.
        step = lambda given: given[0].step(given[1], k)
        return eqx.filter_vjp(step, (self, state))[0]

    def pullback(self, wanted, state, k, after=None):
        _, pull = self.pulling(
            wanted, state, k, self._gradient_of(wanted, state, k), self._update(after)
        )
        return pull

    def linearize(self, wanted, state, k):
        gradient = self._gradient_of(wanted, state, k)
        after, pull = self.pulling(wanted, state, k, gradient, self._update(None))
        return (*after, gradient.model), gradient.loss, pull

    def _gradient_of(self, wanted, state, k):
        """The gradient that step `k` takes."""
        t = self.start + k
        params, memory, model = state
        params = self.optimizer.move(params, memory, self.coefficients(t))
        return self.gradient(wanted, (params, model), t)

    def _update(self, after):
        """The optimizer's step, whose result may be known."""

        def update(dynamics, *given):
            optimizer = dynamics.optimizer
            if after is None or optimizer.update_to is None:
                return optimizer.update(*given)
            return optimizer.update_to(*given, after[:2])

        return update

    def gradient(
        self,
        wanted: PyTree,
        at: tuple[PyTree, PyTree],
        t: Int[Array, ""],
        evaluate: Callable[..., Any] = lambda function, *args: function(*args),
    ) -> Gradient:
        """The gradient at (params, model), the point where step `t` takes it; `evaluate(function,
        *arguments)` calls what computes it."""
        params, model = at
        sources, rest = eqx.partition(self, wanted)
        floats, others = eqx.partition(model, eqx.is_inexact_array)

        def loss(params, sources, floats):
            whole, model = eqx.combine(sources, rest), eqx.combine(floats, others)
            return whole.loss(params, whole.hyper, whole.batches(t), model)

        def pulled(count, of_model, *inputs):
            """(value, model), and the gradient of the value plus `of_model` times the model, with
            respect to the first `count` inputs."""
            if not jax.tree.leaves(of_model):
                return value_and_grad(loss, argnums=tuple(range(count)))(*inputs)

            def floats_apart(*inputs):
                value, model = loss(*inputs)
                return (value, eqx.filter(model, eqx.is_inexact_array)), model

            def of_sum(*inputs):
                function = lambda *first: floats_apart(*first, *inputs[count:])
                (value, _), pull, model = jax.vjp(function, *inputs[:count], has_aux=True)
                return (value, model), pull((numerics.unseen_one(value), of_model))

            return rewritten(of_sum, contracted_last)(*inputs)

        def gradients(of_model, *inputs):
            value_and_model, values = evaluate(partial(pulled, 3), of_model, *inputs)
            return values, value_and_model

        def of_params_alone(*inputs):
            # A rule that the parameters do not enter is left to the derivative of this.
            (value, model), (values,) = evaluate(partial(pulled, 1), nothing, *inputs)
            return values, value, model

        inputs, nothing = (params, sources, floats), jax.tree.map(jnp.zeros_like, floats)
        if not self.optimizer.gradient_is_constant and not self.is_symmetric(inputs):
            return _pulled_in_reverse(of_params_alone, inputs)

        # What the cotangent of the model adds is linear in it, and so a part of the same tangent.
        def of_params(params, of_model):
            gradient_is_constant = self.optimizer.gradient_is_constant
            params = jax.lax.stop_gradient(params) if gradient_is_constant else params
            return gradients(of_model, params, sources, floats)

        values, tangent, (value, after) = jax.linearize(of_params, params, nothing, has_aux=True)
        values = jax.tree.map(jnp.asarray, values)  # a constant zero comes out as a literal
        tangent = rewritten(tangent, products_transposed, sums_as_products)

        def transpose(of_gradient, of_loss, of_model=nothing):
            moved = tangent(of_gradient, of_model)
            if of_loss is None:
                return moved
            scaled = lambda m, g: m + (of_loss * g).astype(m.dtype)
            return jax.tree.map(scaled, moved, values)

        return Gradient(value, after, values, transpose)

    def is_symmetric(self, inputs: PyTree) -> bool:
        """Whether the derivative of the gradient is known to be its own transpose: not where the
        loss has derivative rules of its own, and not for complex numbers."""
        return not self.own_rules and not any(map(jnp.iscomplexobj, jax.tree.leaves(inputs)))

    def pulling(
        self,
        wanted: PyTree,
        state: PyTree,
        k: Int[Array, ""],
        gradient: Gradient,
        update: Callable[..., tuple[PyTree, PyTree]],
    ) -> tuple[tuple[PyTree, PyTree], Callable[[PyTree], Pulled]]:
        """The (params, memory) after the step, and its pullback, with the gradient at hand;
        `update(dynamics, grads, memory, params, coefficients)` is the optimizer's step."""
        params, memory, _ = state
        t = self.start + k
        sources, rest = eqx.partition(self, wanted)
        coefficients = self.coefficients(t)
        params, pull_move = eqx.filter_vjp(self.optimizer.move, params, memory, coefficients)

        def updated(sources, *given):
            return update(eqx.combine(sources, rest), *given)

        grads = gradient.values[0]
        new, pull_update = eqx.filter_vjp(updated, sources, grads, memory, params, coefficients)
        pull_update = rewritten(pull_update, sums_as_products)
        keep, now = self._destinations(wanted)

        def pull(cotangent):
            (*after, of_model), output = cotangent
            after = trees.zeros_where_none(new, tuple(after))
            pulled = pull_update(after)
            d_sources, d_grads, d_memory, d_params, d_coefficients = pulled
            of_model = trees.zeros_where_none(gradient.model, of_model)
            curvature = gradient.transpose(d_grads, output, of_model)
            d_params = trees.add(d_params, curvature[0])
            d_params, d_memory_move, d_coefficients_move = pull_move(
                trees.zeros_where_none(params, d_params)
            )
            d_coefficients = trees.add(d_coefficients, d_coefficients_move)
            kept, d_now = eqx.filter(d_coefficients, keep), eqx.filter(d_coefficients, now)
            faults = self._faults((grads, params, new[0]), after, (pulled[:4], kept, d_now))
            share = trees.add(d_sources, curvature[1], self._pull_now(wanted, d_now, t))
            d_state = d_params, trees.add(d_memory, d_memory_move), curvature[2]
            return Pulled(d_state, (share, faults), kept, gradient.loss)

        return new, pull

    def losses(self, outputs):
        return outputs

    def no_share(self, wanted):
        return jax.tree.map(jnp.zeros_like, eqx.filter(self, wanted)), jnp.int32(0)

    def finish(self, wanted, share, kept, initial):
        sources, faults = share
        sources = trees.add(sources, self._pull_kept(wanted, kept))
        return self._checked(sources, faults), self._checked(initial, faults)

    def _checked(self, cotangents, faults):
        """The cotangents, which raise if a fault is in them. (One that reaches nothing that is
        asked for is none: at a start held fixed, or where its share is not selected.)"""
        if self.optimizer.fault is None or not jax.tree.leaves(cotangents):
            return cotangents
        failed = (faults > 0) & ~trees.finite(cotangents)
        return errors.raise_if(cotangents, failed, jnp.int32(0), [self.optimizer.fault])

    def _faults(self, entered, cotangent, left):
        """1 if cotangents that are not finite were born in an update in which all else is finite;
        0 if all is well, or the run has diverged, or its cotangents were about to overflow."""
        if self.optimizer.fault is None:
            return jnp.int32(0)
        floats = jax.tree.leaves(cotangent)
        small = [jnp.all(jnp.abs(c) < jnp.sqrt(jnp.finfo(c.dtype).max)) for c in floats]
        fine = trees.finite(entered) & jnp.all(jnp.stack(small))
        return (fine & ~trees.finite(left)).astype(jnp.int32)

    def _destinations(self, wanted):
        """Which coefficients' cotangents are kept for every step and pulled back together at
        the end, and which are pulled back at once. A schedule `hyper["rate"][t]` pulled back at
        once would add T zeros to a sum T times. Those that depend on no source are neither: the
        derivative of a constant decay would cost the gradient's last products."""
        sources, rest = eqx.partition(self, wanted)
        limit = max(STACK_LIMIT, trees.size(sources))

        def coefficients(sources):
            whole = eqx.combine(sources, rest)
            return whole.coefficients(self.start)

        struct, depends = trees.dependence(coefficients, sources)
        small = jax.tree.map(lambda c: self.steps * c.size <= limit, struct)
        keep = jax.tree.map(lambda d, s: d and s, depends, small)
        return keep, jax.tree.map(lambda d, s: d and not s, depends, small)

    def _pull_now(self, wanted, cotangent, t):
        """Pulls coefficients' cotangents at step t back to the sources."""
        sources, rest = eqx.partition(self, wanted)
        if not jax.tree.leaves(cotangent):
            return jax.tree.map(jnp.zeros_like, sources)
        return _pull_coefficients(sources, rest, cotangent, lambda at: at(t))

    def _pull_kept(self, wanted, kept):
        """Pulls the cotangents kept at all steps back to the sources."""
        sources, rest = eqx.partition(self, wanted)
        if not jax.tree.leaves(kept):
            return jax.tree.map(jnp.zeros_like, sources)
        ts = self.start + jnp.arange(self.steps, dtype=jnp.int32)

        def pull(ts, kept):
            return _pull_coefficients(sources, rest, kept, lambda at: jax.vmap(at)(ts))

        return sums.over_blocks(pull, (ts, kept), trees.size(sources))


def value_and_grad(loss: Callable[..., tuple[Array, PyTree]], argnums: Any = 0) -> Callable:
    """`jax.value_and_grad` of a loss that returns the model's state too, with its products in the
    order in which they are fast."""
    gradient = jax.value_and_grad(loss, argnums, has_aux=True)
    return rewritten(gradient, contracted_last)


def value_and_grad_as_pulled(loss: Callable[..., tuple[Array, PyTree]], model: PyTree) -> Callable:
    """The same of `loss(params, model)` with respect to the params, rounded as on the way back:
    there the cotangent of the loss is no constant where the model has floats, which a compiler
    could work into the products."""
    if not jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)):
        return value_and_grad(loss)

    def gradient(params, model):
        value, pull, model = jax.vjp(lambda params: loss(params, model), params, has_aux=True)
        return (value, model), pull(numerics.unseen_one(value))[0]

    return rewritten(gradient, contracted_last)


def _pulled_in_reverse(gradient: Callable, inputs: tuple[PyTree, PyTree, PyTree]) -> Gradient:
    """The gradient whose transpose is reverse over reverse; `gradient` gives that by the params,
    the loss and the model's state after it."""

    def all_(*inputs):
        values, value, model = gradient(*inputs)
        floats, rest = eqx.partition(model, eqx.is_inexact_array)
        return (values, value, floats), rest

    # The loss too: its derivative is not what its rules make of it.
    (values, value, floats), pull, rest = jax.vjp(all_, *inputs, has_aux=True)

    def transpose(of_gradient, of_loss, of_model=None):
        of_loss = jnp.zeros_like(value) if of_loss is None else of_loss
        of_model = jax.tree.map(jnp.zeros_like, floats) if of_model is None else of_model
        return pull((of_gradient, of_loss, of_model))

    return Gradient(value, eqx.combine(floats, rest), (values,), transpose)


def _pull_coefficients(sources: Any, rest: Any, cotangent: PyTree, evaluate: Callable) -> PyTree:
    def coefficients(sources):
        whole = eqx.combine(sources, rest)
        at = lambda t: eqx.filter(whole.coefficients(t), eqx.is_inexact_array)
        values = evaluate(at)
        return jax.tree.map(
            lambda value, c: None if c is None else value,
            values,
            cotangent,
            is_leaf=lambda x: x is None,
        )

    _, pull = eqx.filter_vjp(coefficients, sources)
    (sources,) = pull(cotangent)
    return sources

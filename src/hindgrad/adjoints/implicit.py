"""`Implicit`: the derivative of where training ends, whatever the way there."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
from optax.tree import norm

from hindgrad import trees
from hindgrad.adjoints import purity
from hindgrad.adjoints.base import Adjoint, Hypergradient, Traits, forward
from hindgrad.adjoints.failures import Failure, Raise, reported
from hindgrad.adjoints.solvers import ConjugateGradient, LinearSolver, random_like, residual
from hindgrad.dynamics import Dynamics
from hindgrad.gradient_training import GradientTraining

MOVES, NOT_STATIONARY, NOT_SOLVED, NOT_FINITE, UNKNOWN = range(1, 6)
"""The causes of a failure."""

_TEXTS = {
    MOVES: (
        "the optimizer moves the parameters even where the gradient of the loss is zero (weight "
        "decay?), so training does not end at a minimum of the loss. Write the penalty into the "
        "loss, or use Checkpointed()."
    ),
    NOT_STATIONARY: (
        "training did not end near a stationary point: the gradient there is about {value} of "
        "what it would change by if the parameters were moved by themselves. Train longer, use "
        "all the data in every step, or allow it by Implicit(stationary=…); or use Checkpointed()."
    ),
    NOT_SOLVED: (
        "the linear system was not solved: about {value} of its right-hand side is left. Give "
        "the solver more steps, add a penalty to the loss (the Hessian may be singular), or use "
        "NormalEquations() (it may not be positive definite)."
    ),
    NOT_FINITE: "the end of training, or the solution there, is not finite. Lower the rate.",
    UNKNOWN: (
        "only the derivative through the trained parameters (the final state) is known; the "
        "objective also uses the losses on the way, or the optimizer's state. Use Checkpointed()."
    ),
}
SMALLEST, LARGEST = -12, 6
"""The powers of ten within which messages tell values apart."""


@dataclass(frozen=True)
class Messages(Sequence):
    """Every cause with every value, to one digit; made when asked for."""

    def __len__(self):
        return (UNKNOWN + 1) * 10 * (LARGEST - SMALLEST)

    def __getitem__(self, index):
        rest, digit = divmod(index, 10)
        cause, power = divmod(rest, LARGEST - SMALLEST)
        return f"Implicit: {_text(cause, digit * 10.0 ** (power + SMALLEST))}"

    @staticmethod
    def number(cause, value):
        """The index of a cause with a value."""
        value = jnp.nan_to_num(jnp.clip(value, 10.0**SMALLEST, 9 * 10.0 ** (LARGEST - 1)))
        power = jnp.clip(jnp.floor(jnp.log10(value)), float(SMALLEST), LARGEST - 1.0)
        digit = jnp.clip(jnp.round(value / 10.0**power), 0.0, 9.0)
        place = (power - SMALLEST) * 10 + digit
        return cause * 10 * (LARGEST - SMALLEST) + place.astype(jnp.int32)


class Equilibrium(NamedTuple):
    """What holds at the end: a system `f(params, sources) = 0`."""

    force: PyTree
    """f at the end; zero if it is an equilibrium."""
    matrix: Callable[[PyTree], PyTree]
    """The transpose of ∂f/∂params, applied."""
    pull: Callable[[PyTree], PyTree]
    """The transpose of −∂f/∂sources, applied."""
    symmetric: bool

    def restricted(self, mobile: PyTree) -> "Equilibrium":
        """The system of the elements that can move; the others are constants."""
        return Equilibrium(
            _where(mobile, self.force),
            lambda u: jax.tree.map(jnp.where, mobile, self.matrix(_where(mobile, u)), u),
            self.pull,
            self.symmetric,
        )


class Implicit(Adjoint):
    """Differentiates the stationarity of the end, `∇_θ L(θ_T, λ) = 0`, instead of the way there:
    `dθ/dλ = −(∇²_θθ L)⁻¹ ∇²_λθ L` (Bengio 2000; Pedregosa 2016). For `hg.unroll` it is the fixed
    point of the step, `s = step(s, λ)`.

    Memory: one state. Exact at a minimiser, and only there: L is the loss of the last step's
    batch, so train on all the data, to the end. Rates, decays and initial parameters do not
    change a minimiser: the derivative with respect to the former is zero, with respect to the
    latter refused. How far from stationary the end is, is measured (‖∇L‖ ÷ ‖∇²L·θ‖), and so is
    what the solver left over. Parameters that cannot move (a rate of 0, a mask, a loss that does
    not depend on them) count as constants.

    **Arguments:**

    - `solver`: `ConjugateGradient()`, `NormalEquations()`, `Neumann()` or `FixedPoint()`; for
      `unroll`, whose system is not symmetric, one of the latter three.
    - `stationary`: how large ‖∇L‖ ÷ ‖∇²L·θ‖ may be at the end, where θ are the parameters there or
      the initial ones, whichever gives more (for `unroll`, ‖step(s) − s‖ ÷ ‖s‖).
    - `solved`: how much of the system's right-hand side may be left.
    - `failure`: `Raise()`, `Warn()` or `Report(status)`, if the end is not stationary enough, or
      the system not solved. The derivative with respect to the status of a `Report` is (cause,
      residual, stationarity), also if all is well.
    - `guess`: where the solver starts, a pytree like the parameters; zeros unless given. The
      derivative with respect to it is the solution: the next guess, for a warm start. `tune`
      carries it by itself.

    Raises `ValueError` if the derivative with respect to the initial state is asked for, and
    `RuntimeError` if that through the losses on the way is.
    """

    traits = Traits(
        states="none: the end alone decides",
        memory="one state, and the solver's few",
        replays="none; the solver takes a Hessian product a step",
        exact="at a minimiser",
        optimizers="any that ends where the loss is stationary",
    )

    solver: LinearSolver = ConjugateGradient()
    stationary: float = 1e-2
    solved: float = 1e-2
    failure: Failure = Raise()
    guess: PyTree = None

    def __check_init__(self):
        for name, kind, example in (
            ("solver", LinearSolver, "Neumann"),
            ("failure", Failure, "Warn"),
        ):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(
                    f"Implicit({name}={getattr(self, name)!r}): an object is needed, such as "
                    f"{name}={example}()."
                )

    def run(self, dynamics, state):
        if self.solver.needs_symmetry and not isinstance(dynamics, GradientTraining):
            raise ValueError(
                f"Implicit({type(self.solver).__name__}()) needs a symmetric system, and that of "
                "a general step is not. Use NormalEquations(), FixedPoint() or Neumann()."
            )
        if isinstance(dynamics, GradientTraining) and state[2] is not None:
            raise ValueError(
                "Implicit() knows where the weights come to rest, not a model's state beside them. "
                "Use Stored(), Checkpointed() or Forward()."
            )
        rules = dynamics.own_rules if isinstance(dynamics, GradientTraining) else ()
        if self.solver.needs_symmetry and rules:
            raise ValueError(
                f"Implicit({type(self.solver).__name__}()) needs a symmetric system, which that of "
                f"a loss with derivative rules of its own ({', '.join(rules)}) need not be. Use "
                "NormalEquations(), FixedPoint() or Neumann()."
            )
        handling = eqx.filter(self.failure, False)  # without its status, which is an input
        settings = eqx.tree_at(
            lambda a: (a.failure, a.guess), self, (handling, None), is_leaf=_is_none
        )
        return _run((dynamics, state, self.failure.status, self.guess), settings)

    def hypergradient(self, run, hyper, carry=None):
        guess = self.first_carry(run, hyper) if carry is None else carry

        def warm(inputs, adjoint):
            hyper, guess = inputs
            adjoint = eqx.tree_at(lambda a: a.guess, adjoint, guess, is_leaf=_is_none)
            return run(hyper, adjoint)

        value, (gradient, solution), status = reported(self, warm, (hyper, guess))
        return Hypergradient(value, gradient, solution, status)

    def first_carry(self, run, hyper):
        if self.guess is not None:
            return self.guess
        params, *_ = eqx.filter_eval_shape(run.begin, hyper, run.key)
        is_float = lambda x: hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact)
        zeros = lambda x: jnp.zeros_like(x) if is_float(x) else None
        return jax.tree.map(zeros, params)

    @staticmethod
    def describe(status: Float[Array, " 3"]) -> str:
        """The status of a run that failed, from `Report`, in words; empty if all is well."""
        cause, residual, stationarity = (float(x) for x in status)
        if cause == 0:
            return ""
        return _text(int(cause), residual if cause == NOT_SOLVED else stationarity)


def _text(cause, value):
    return _TEXTS[cause].format(value=f"{value:.1g}") if cause else ""


def _is_none(x):
    return x is None


def _equilibrium(dynamics: Dynamics, wanted: PyTree, state: PyTree) -> Equilibrium:
    """The system that the end of the run solves."""
    last = jnp.int32(dynamics.steps - 1)
    if isinstance(dynamics, GradientTraining):
        gradient = dynamics.gradient(wanted, (state[0], None), dynamics.start + last)
        negative = lambda tree: jax.tree.map(jnp.negative, tree)
        matrix = lambda u: gradient.transpose(u, None)[0]
        pull = lambda u: negative(gradient.transpose(u, None)[1])
        return Equilibrium(gradient.values[0], matrix, pull, True)
    sources, rest = eqx.partition(dynamics, wanted)
    floats, fixed = eqx.partition(state, eqx.is_inexact_array)

    def step(floats, sources):
        after, _ = eqx.combine(sources, rest).step(eqx.combine(floats, fixed), last)
        return eqx.filter(after, eqx.is_inexact_array)

    after, pull = eqx.filter_vjp(step, floats, sources)
    minus = lambda a, b: jax.tree.map(jnp.subtract, a, b)
    return Equilibrium(
        minus(after, floats), lambda v: minus(v, pull(v)[0]), lambda v: pull(v)[1], False
    )


@eqx.filter_custom_vjp
def _run(inputs, adjoint):
    del adjoint
    dynamics, state, _, _ = inputs
    return forward(dynamics, state)


@_run.def_fwd
def _run_forward(perturbed, inputs, adjoint):
    del adjoint
    dynamics, state, _, _ = inputs
    if any(jax.tree.leaves(perturbed[1])):
        raise ValueError(
            "Implicit() was asked for the derivative with respect to the initial state (initial "
            "weights, or hyperparameters that they depend on). A minimum does not depend on "
            "where training began, so it would be zero. Use Checkpointed(), or put "
            "jax.lax.stop_gradient around the initial parameters (and around state=)."
        )
    results = forward(dynamics, state)
    return results, (results[0], _last_loss(dynamics, results[0]), perturbed[0])


@_run.def_bwd
def _run_backward(residuals, cotangents, perturbed, inputs, adjoint):
    del perturbed  # traced here; the residuals hold it as Python booleans
    final, loss, wanted = residuals
    dynamics, state, status, guess = inputs
    vector, unknown = _of_params(dynamics, final, cotangents)
    end = _equilibrium(dynamics, wanted, final)
    mobile = _mobile(dynamics, end, state, final)
    end, vector = end.restricted(mobile), _where(mobile, vector)
    if guess is None:
        guess = jax.tree.map(jnp.zeros_like, vector)
    else:  # after a failure it is NaN, from which no solver would recover
        guess = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0), _where(mobile, guess))
    solution = adjoint.solver.solve(end.matrix, vector, guess)
    left = residual(end.matrix, solution, vector)
    stationarity = _stationarity(end, state, final)
    failed = {
        NOT_FINITE: ~jnp.isfinite(left) | ~jnp.isfinite(stationarity),
        MOVES: _moves(dynamics, state, final),
        NOT_STATIONARY: stationarity > adjoint.stationary,
        NOT_SOLVED: left > adjoint.solved,
    }
    if unknown:  # raised when it runs: an error while tracing a backward pass breaks JAX's cache
        failed = {UNKNOWN: left == left}
        adjoint = eqx.tree_at(lambda a: a.failure, adjoint, Raise())
    cause = jnp.select(list(failed.values()), list(failed), 0).astype(jnp.int32)
    results = (end.pull(solution), solution)
    index = Messages.number(cause, jnp.where(cause == NOT_SOLVED, left, stationarity))
    results = adjoint.failure.handle(results, cause > 0, index, Messages())
    results = _same_batch(results, dynamics, final, loss)
    numbers = jnp.stack([cause.astype(left.dtype), left, stationarity])
    d_status = None if status is None else numbers.astype(status.dtype)
    nothing = jax.tree.map(lambda _: None, eqx.filter(state, eqx.is_inexact_array))
    d_guess = None if inputs[3] is None else results[1]
    return results[0], nothing, d_status, d_guess


def _last_loss(dynamics, state):
    """The loss of the last step's batch at the end; None if there are no losses."""
    if not isinstance(dynamics, GradientTraining):
        return None
    batch = dynamics.batches(dynamics.start + dynamics.steps - 1)
    return dynamics.loss(state[0], dynamics.hyper, batch, None)[0]


def _same_batch(results, dynamics, final, loss):
    """The results, if the last step's batch is the same as on the way forward."""
    if loss is None:
        return results
    other = purity.is_other(loss, _last_loss(dynamics, final), purity.floor(loss[None]))
    step = jnp.int32(dynamics.steps - 1)
    return purity.checked(results, jnp.where(other, dynamics.start + step, -1))


def _mobile(dynamics: Dynamics, end: Equilibrium, start: PyTree, final: PyTree) -> PyTree:
    """Which elements the run can move: all but those that the optimizer holds, whatever their
    gradient, and those that the system does not depend on."""
    if not isinstance(dynamics, GradientTraining):
        floats, fixed = eqx.partition(final, eqx.is_inexact_array)

        def step(floats):
            after, _ = dynamics.step(eqx.combine(floats, fixed), jnp.int32(dynamics.steps - 1))
            return eqx.filter(after, eqx.is_inexact_array)

        along = random_like(floats)
        _, moved = jax.jvp(step, (floats,), (along,))
        return jax.tree.map(lambda a, b: a != b, moved, along)
    params, memory, _ = final
    held = jax.tree.map(lambda p: jnp.zeros_like(p, bool), params)
    for at in {0, dynamics.steps // 2, dynamics.steps - 1}:  # a schedule may begin or end at 0
        responds = _responds(dynamics, params, memory, end.force, at)
        held = jax.tree.map(jnp.logical_or, held, responds)
    flat = jax.tree.map(
        lambda a, b, force, bent: (a == b) & (force == 0) & (bent == 0),
        start[0],
        params,
        end.force,
        end.matrix(random_like(params)),
    )
    return jax.tree.map(lambda responds, flat: responds & ~flat, held, flat)


def _responds(dynamics, params, memory, grads, step):
    """Which parameters the optimizer moves otherwise if the gradient is another."""
    coefficients = dynamics.coefficients(dynamics.start + step)

    def after(grads):
        new = dynamics.optimizer.update(grads, memory, params, coefficients)
        return dynamics.optimizer.move(*new, coefficients)

    ones = jax.tree.map(jnp.ones_like, grads)
    _, tangent = jax.jvp(after, (grads,), (ones,))
    up, down = after(ones), after(jax.tree.map(jnp.negative, ones))  # steps by the sign alone
    return jax.tree.map(lambda t, a, b: (t != 0) | (a != b), tangent, up, down)


def _where(mobile, tree):
    return jax.tree.map(lambda m, x: jnp.where(m, x, 0), mobile, tree)


def _stationarity(end, start, final) -> Float[Array, ""]:
    """How far from equilibrium the end is: the force there, relative to what it would change by if
    the parameters were moved by themselves, or by their initial values."""
    force = norm(end.force)
    if end.symmetric:
        scales = [norm(end.matrix(state[0])) for state in (start, final)]
    else:
        scales = [norm(eqx.filter(state, eqx.is_inexact_array)) for state in (start, final)]
    scale = jnp.maximum(*scales)
    return jnp.where(force == 0, 0, force / jnp.where(scale == 0, 1, scale))


def _of_params(dynamics, final, cotangents) -> tuple[PyTree, bool]:
    """The cotangent of the end's parameters, and whether there is another."""
    d_final, d_outputs = cotangents
    if isinstance(dynamics, GradientTraining):
        d_params, d_memory, _ = d_final
        return trees.zeros_where_none(final[0], d_params), bool(
            jax.tree.leaves((d_memory, d_outputs))
        )
    return trees.zeros_where_none(final, d_final), bool(jax.tree.leaves(d_outputs))


def _moves(dynamics, state, final) -> Float[Array, ""] | Array:
    """Whether the optimizer changes parameters whose gradients are, and were, all zero."""
    if not isinstance(dynamics, GradientTraining):
        return jnp.bool_(False)
    params = final[0]
    # What training changed began as zeros, or as something like a count; a decay is among the rest.
    clear = lambda a, b: jnp.where(jnp.all(a == b), b, jnp.zeros_like(b))
    memory = jax.tree.map(clear, state[1], final[1])
    zeros = jax.tree.map(jnp.zeros_like, params)
    coefficients = dynamics.coefficients(dynamics.start + dynamics.steps - 1)
    after, _ = dynamics.optimizer.update(zeros, memory, params, coefficients)
    change = norm(jax.tree.map(jnp.subtract, after, params))
    return change > math.sqrt(trees.size(params)) * 1e-12 * (1 + norm(params))

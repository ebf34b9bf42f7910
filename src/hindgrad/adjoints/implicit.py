"""`Implicit`: the derivative of where training ends, whatever the way there."""

from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from hindgrad import trees
from hindgrad.adjoints import equilibrium, purity
from hindgrad.adjoints.base import Adjoint, Hypergradient, Traits, forward
from hindgrad.adjoints.failures import Failure, Raise, reported
from hindgrad.adjoints.solvers import ConjugateGradient, LinearSolver, residual
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


class Implicit(Adjoint):
    """Differentiates the stationarity of the end, `∇_θ L(θ_T, λ) = 0`, instead of the way there:
    `dθ/dλ = −(∇²_θθ L)⁻¹ ∇²_λθ L` (Bengio 2000; Pedregosa 2016). For `hg.unroll` it is the fixed
    point of the step, `s = step(s, λ)`; with a model's state beside the weights, both.

    Memory: one state. Exact at a minimiser, and only there: L is the loss of the last step's
    batch, so train on all the data, to the end. Rates, decays and initial parameters do not
    change a minimiser: the derivative with respect to the former is zero, with respect to the
    latter refused. How far from stationary the end is, is measured (‖∇L‖ ÷ ‖∇²L·θ‖), and so is
    what the solver left over. Parameters that cannot move (a rate of 0, a mask, a loss that does
    not depend on them) count as constants.

    **Arguments:**

    - `solver`: `ConjugateGradient()`, `NormalEquations()`, `Neumann()` or `FixedPoint()`; for
      `unroll` and with a model's state, whose systems are not symmetric, one of the latter three.
    - `stationary`: how large ‖∇L‖ ÷ ‖∇²L·θ‖ may be at the end, where θ are the parameters there or
      the initial ones, whichever gives more (for `unroll` and a model's state,
      ‖step(s) − s‖ ÷ ‖s‖).
    - `solved`: how much of the system's right-hand side may be left.
    - `failure`: `Raise()`, `Warn()` or `Report(status)`, if the end is not stationary enough, or
      the system not solved. The derivative with respect to the status of a `Report` is (cause,
      residual, stationarity), also if all is well.
    - `guess`: where the solver starts, a pytree like the parameters (with a model's state that has
      floats, like (parameters, floats)); zeros unless given. The
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
        if self.solver.needs_symmetry and not equilibrium.is_symmetric(dynamics, state):
            is_step = not isinstance(dynamics, GradientTraining)
            of = "a general step" if is_step else "weights with a model's state beside them"
            raise ValueError(
                f"Implicit({type(self.solver).__name__}()) needs a symmetric system, and that of "
                f"{of} is not. Use NormalEquations(), FixedPoint() or Neumann()."
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
        params, _, model = eqx.filter_eval_shape(run.begin, hyper, run.key)
        is_float = lambda x: hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact)
        zeros = lambda x: jnp.zeros_like(x) if is_float(x) else None
        params, model = jax.tree.map(zeros, (params, model))
        return (params, model) if jax.tree.leaves(model) else params

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
    vector, unknown = _of_unknowns(dynamics, final, cotangents)
    end = equilibrium.of(dynamics, wanted, final)
    mobile = equilibrium.mobile(dynamics, end, state, final)
    end, vector = end.restricted(mobile), equilibrium.where(mobile, vector)
    if guess is None:
        guess = jax.tree.map(jnp.zeros_like, vector)
    else:  # after a failure it is NaN, from which no solver would recover
        guess = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0), guess)
        guess = equilibrium.where(mobile, guess)
    solution = adjoint.solver.solve(end.matrix, vector, guess)
    left = residual(end.matrix, solution, vector)
    ends = (equilibrium.unknowns(dynamics, x) for x in (state, final))
    stationarity = end.stationarity(*ends)
    failed = {
        NOT_FINITE: ~jnp.isfinite(left) | ~jnp.isfinite(stationarity),
        MOVES: equilibrium.moves(dynamics, state, final),
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
    return dynamics.loss(state[0], dynamics.hyper, batch, state[2])[0]


def _same_batch(results, dynamics, final, loss):
    """The results, if the last step's batch is the same as on the way forward."""
    if loss is None:
        return results
    other = purity.is_other(loss, _last_loss(dynamics, final), purity.floor(loss[None]))
    step = jnp.int32(dynamics.steps - 1)
    return purity.checked(results, jnp.where(other, dynamics.start + step, -1))


def _of_unknowns(dynamics, final, cotangents) -> tuple[PyTree, bool]:
    """The cotangent of what the system determines at the end, and whether there is another."""
    d_final, d_outputs = cotangents
    found, others = d_final, d_outputs
    if isinstance(dynamics, GradientTraining):
        d_params, d_memory, d_model = d_final
        found, others = (d_params, d_model), (d_memory, d_outputs)
        if equilibrium.is_symmetric(dynamics, final):
            found = d_params
    like = equilibrium.unknowns(dynamics, final)
    return trees.zeros_where_none(like, found), bool(jax.tree.leaves(others))

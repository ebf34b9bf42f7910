"""`Reversible`: training run backwards, to the bit."""

from functools import partial
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from hindgrad import numerics
from hindgrad.adjoints.base import Adjoint, Hypergradient, Traits
from hindgrad.adjoints.failures import Failure, Raise, Warn, reported
from hindgrad.adjoints.reversible import run
from hindgrad.adjoints.reversible.failure import Status, describe
from hindgrad.adjoints.reversible.pieces import ExactPieces
from hindgrad.adjoints.reversible.plan import Plan, plan_for
from hindgrad.adjoints.scores import side_by_side
from hindgrad.arguments import whole


class Reversible(Adjoint):
    """Runs training backwards in exact arithmetic (Maclaurin, Duvenaud & Adams 2015).

    Exact, and verified: the run must come home to the initial state, bit for bit, or an error is
    raised. Memory: one state, and for every step the log2(1/decay) bits of each parameter that
    the multiplication by the decay would lose, and what it reads of a model's state beside the
    weights: not running statistics and averages that it only carries on.

    For `Momentum` (all conventions but Nesterov), `Adam`, and any other `MovingOptimizer` with
    reversible moves. Parameters and moments are fixed-point numbers; a decay is applied to within
    4e-16 of the one asked for (1e-9 relative to 1 − decay, down to 1 − decay = 4e-7), and the
    derivative is that of the run with the decay applied.

    **Arguments:**

    - `min_decay`: the smallest decay of the run, where decays depend on hyperparameters: it
      sets the size of the buffer. A number, or a dictionary by the decays' names (`decay`, or
      `b1` and `b2`; `weight_decay`, for decoupled weight decay, is 1 − rate · strength).
    - `scale`: parameters and velocities lie within ±1,024 · scale. A power of two, or a pytree
      of them that is a prefix of the parameters'.
    - `memory`: where the buffer is, such as `jax.memory.Space.Host`; beside the parameters unless
      given.
    - `budget`: the bytes that what is kept of a model's state may take, over all steps.
    - `failure`: `Raise()`, or `Report(status)` for NaN instead of an error.

    Raises `ValueError` if the optimizer cannot be undone or `min_decay` is missing;
    `RuntimeError` if the run leaves the range of the numbers, a decay is too small, or the run
    does not come home.
    """

    traits = Traits(
        states="the step after, taken back",
        memory="one state; per step log2(1/decay) bits per parameter, and what a step reads of a "
        "model's state",
        replays="none",
        exact="yes, to the bit",
        optimizers="`Momentum` (not `Nesterov`), `Adam`, reversible ones of your own",
    )

    min_decay: Any = None
    scale: PyTree = 1.0
    memory: Any = eqx.field(default=None, static=True)
    budget: int = eqx.field(
        default=2**28, kw_only=True, static=True, converter=whole("Reversible", "budget")
    )
    failure: Failure = Raise()

    def __check_init__(self):
        if isinstance(self.failure, Warn):
            raise ValueError(
                "Reversible(failure=Warn()): the hypergradient of a run that cannot be undone is "
                "wrong, so there is nothing to go on with. Use Raise() or Report(status)."
            )

    @staticmethod
    def describe(status: Float[Array, " 3"]) -> str:
        """The status of a run that failed, from `Report`, in words; empty if all is well."""
        return describe(status)

    def hypergradient(self, run, hyper, carry=None):
        del carry
        value, gradient, status = reported(self, run, hyper)
        return Hypergradient(value, gradient, status=status)

    def pieces(self, total):
        if not isinstance(self.failure, Raise):
            raise ValueError(
                "Reversible(failure=Report(…)) is for jax.grad. In segments, a run that cannot be "
                "undone raises RuntimeError: leave failure= out."
            )
        return ExactPieces(self, total)

    def run(self, dynamics, state):
        plan = plan_for(self, dynamics, state)
        handling = eqx.filter(self.failure, False)  # without its status, which is an input
        return _run((dynamics, state, self.failure.status), (plan, handling))


def _handled(failure: Failure, results: PyTree, status: Status, plan: Plan) -> PyTree:
    number = plan.messages.number(status)
    return failure.handle(results, status.cause > 0, number, plan.messages)


@eqx.filter_custom_vjp
def _once(x):
    """The same. Rounding has the derivative 0, so a second derivative would be wrong."""
    return x


@_once.def_fwd
def _once_forward(perturbed, x):
    del perturbed, x
    raise ValueError(
        "Reversible() gives first derivatives only; a second one was asked for (jax.hessian, or "
        "jax.grad of a jax.grad). Use Checkpointed() or Stored()."
    )


@_once.def_bwd
def _once_backward(residuals, cotangent, perturbed, x):
    del residuals, cotangent, perturbed, x
    raise AssertionError("the forward rule raises")


def _forward(plan, dynamics, state, *, keep):
    position, tape, status = run.forward(plan, dynamics, run.begin(plan, state), keep=keep)
    return (plan.decode(position), tape.losses), tape, status


@eqx.filter_custom_vjp
def _run(inputs, how):
    (dynamics, state, _), (plan, failure) = inputs, how
    with numerics.wide():
        results, _, status = _forward(plan, dynamics, state, keep=False)
        return _handled(failure, results, status, plan)


@_run.def_fwd
def _run_forward(perturbed, inputs, how):
    (dynamics, state, _), (plan, failure) = _once(inputs), how
    with numerics.wide():
        results, tape, status = _forward(plan, dynamics, state, keep=True)
        results = _handled(failure, results, status, plan)
    return results, (tape, status, perturbed[0])


@_run.def_bwd
def _run_backward(residuals, cotangents, perturbed, inputs, how):
    del perturbed  # traced here; the residuals hold it as Python booleans
    tape, status, wanted = residuals
    tape, cotangents, inputs = _once((tape, cotangents, inputs))
    given = inputs, how, tape, status
    return side_by_side(partial(_pulled_back, wanted), inputs[1], given, cotangents)


def _pulled_back(wanted, scores, given, cotangents):
    """The cotangents of the inputs."""
    (dynamics, _, probe), (plan, failure), tape, status = given
    with numerics.wide():
        results, _, later = run.undo(scores, plan, dynamics, wanted, tape, cotangents)
        status = status.before(later)
        results = _handled(failure, results, status, plan)
        numbers = jnp.stack([status.cause, status.leaf, status.step])
        d_probe = None if probe is None else scores.same(numbers.astype(probe.dtype))
    return (*results, d_probe)

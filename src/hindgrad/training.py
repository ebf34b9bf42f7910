"""A training run as a differentiable function."""

import re
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree

from hindgrad import model_state as model_states
from hindgrad import programs, trees
from hindgrad.adjoints import Adjoint, Checkpointed
from hindgrad.arguments import whole_or_none
from hindgrad.dynamics import Recurrence
from hindgrad.gradient_training import GradientTraining
from hindgrad.microbatches import accumulated
from hindgrad.optimizers import Optimizer
from hindgrad.shards import in_shards

LAST = 2**31 - 1
"""The last step: t is an int32."""


def as_steps(steps: Any) -> int:
    """A number of steps; raises `ValueError` for what is none."""
    is_whole = isinstance(steps, (int, np.integer)) and not isinstance(steps, bool)
    if not is_whole or not 1 <= steps <= LAST:
        raise ValueError(f"steps={steps!r}: a whole number from 1 to {LAST} is needed.")
    return int(steps)


def unroll(
    step: Callable[..., Any],
    state: PyTree,
    hyper: PyTree,
    steps: int,
    *,
    adjoint: Adjoint | None = None,
) -> tuple[PyTree, PyTree]:
    """Runs `steps` steps of any dynamics, differentiably.

    **Arguments:**

    - `step`: a function `(state, hyper, t) -> state`, or `-> (state, output)`; t = 0 … steps − 1,
      an int32 scalar. It may close over arrays, traced ones too.
    - `state`: the initial state, any pytree.
    - `hyper`: the hyperparameters, any pytree.
    - `adjoint`: how the derivative is computed; `Checkpointed()` unless given.

    **Returns:**

    The final state and the outputs stacked over the steps (None if there are none), both
    differentiable with respect to the initial state, `hyper` and what `step` closes over.

    Raises `ValueError` if `steps` is below 1 or the step changes the state's structure, shapes or
    dtypes.
    """
    steps = as_steps(steps)
    return _unroll(step, trees.as_hyper(state), trees.as_hyper(hyper), steps, as_adjoint(adjoint))


@programs.compiled
def _unroll(step, state, hyper, steps, adjoint):
    arrays, static = eqx.partition(state, eqx.is_array)
    start = jnp.int32(0)

    def function(arrays, hyper, t):
        state = eqx.combine(arrays, static)
        after, output = _split_output(step(state, hyper, t), state)
        return eqx.filter(after, eqx.is_array), output

    before = eqx.filter_eval_shape(lambda s: s, arrays)
    after, _ = eqx.filter_eval_shape(function, arrays, hyper, start)
    _check_same_state(before, after)
    closed = trees.close(function, arrays, hyper, start)
    dynamics = Recurrence(function=closed, hyper=hyper, start=start, steps=steps)
    final, outputs = trees.unperturbed(adjoint.run(dynamics, arrays))
    return eqx.combine(final, static), outputs


def _split_output(result, state):
    structure = jax.tree.structure(state)
    if jax.tree.structure(result) == structure:
        return result, None
    is_pair = isinstance(result, tuple) and len(result) == 2
    if is_pair and jax.tree.structure(result[0]) == structure:
        return result
    raise ValueError(
        f"The step returned {jax.tree.structure(result)}, neither a state like the one it was "
        f"given, {structure}, nor a pair of such a state and an output."
    )


def _check_same_state(before, after):
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise ValueError(
                f"The step turned the state{jax.tree_util.keystr(path)} from {a.dtype}{a.shape} "
                f"into {b.dtype}{b.shape}; a state keeps its shapes and dtypes."
            )


class Run(eqx.Module):
    """What a training run gives."""

    params: PyTree
    """The trained parameters."""
    state: PyTree
    """The optimizer's memory at the end: what `state=` takes to go on from here."""
    losses: Float[Array, " steps"]
    """The training loss before each step (for `PositionFirst`, where the gradient is taken)."""
    model_state: PyTree = None
    """The model's own state at the end, what the loss returned beside its last value; None if it
    has none."""


class Training(eqx.Module):
    """A training run: `steps` steps of an optimizer on a loss, a function of its hyperparameters.

    Calling it trains. The result is differentiable with respect to `params`, `hyper`, the data
    in `batches` and whatever the functions close over.

    **Arguments:**

    - `loss`: a function `(params, hyper, batch) -> scalar`; or, for a model with a state beside
      its weights (running statistics, counters, keys), `(params, hyper, batch, state) -> (scalar,
      state)`. A fourth argument without a default makes the difference.
    - `optimizer`: `Momentum(…)`, `Adam(…)`, `from_optax(…)`, or another `Optimizer`.
    - `batches`: a pure function of the step, `t -> batch`: `minibatches(…)`, `full_batch(…)` or
      your own. Being pure, it lets a step be run again exactly.
    - `steps`: how many steps (at least 1).
    - `microbatch`: rows of which the gradient is taken at a time: the activations of so many are in
      memory at once, also on the way back, and each is computed once more. It must divide the
      batch's rows, and the loss be a mean over them. All rows unless given.
    - `shards`: into how many parts a batch's rows are cut, whose gradients are taken apart and
      summed as whole numbers: in any order the same sum, so that `Reversible` comes home, and has
      the same bits, on any number of devices that divides it. A device keeps a gradient for each
      of its shards until they are summed. The loss must be a mean over the rows.
    """

    loss: Callable[..., Any]
    optimizer: Optimizer = eqx.field(kw_only=True)
    batches: Callable[[Int[Array, ""]], Any] = eqx.field(kw_only=True)
    steps: int = eqx.field(kw_only=True, static=True, converter=as_steps)
    microbatch: int | None = eqx.field(
        default=None, kw_only=True, static=True, converter=whole_or_none("Training", "microbatch")
    )
    shards: int | None = eqx.field(
        default=None, kw_only=True, static=True, converter=whole_or_none("Training", "shards")
    )

    def __check_init__(self):
        if not isinstance(self.optimizer, Optimizer):
            raise TypeError(
                f"Training(optimizer={self.optimizer!r}) is not an optimizer of hindgrad. Wrap an "
                "optax transformation in from_optax(lambda hyper: …), or use Momentum or Adam."
            )
        for name in ("loss", "batches"):
            if not callable(getattr(self, name)):
                raise TypeError(f"Training({name}={getattr(self, name)!r}) is not a function.")

    def __call__(
        self,
        params: PyTree,
        hyper: PyTree,
        *,
        adjoint: Adjoint | None = None,
        state: PyTree = None,
        model_state: PyTree = None,
        start: int | Int[Array, ""] = 0,
        steps: int | None = None,
    ) -> Run:
        """Trains.

        **Arguments:**

        - `params`: the initial parameters: dictionaries, Equinox modules, Flax parameters, …;
          their inexact JAX arrays are trained, in dictionaries, lists and tuples also NumPy arrays
          and Python floats. Everything else in them stays (a module's slope or dropout rate).
        - `hyper`: the hyperparameters, any pytree; Python floats among them are arrays to the
          functions, other leaves reach them as they are.
        - `adjoint`: how the derivative is computed; `Checkpointed()` unless given.
        - `state`: the optimizer's memory to go on from, another run's `.state`.
        - `model_state`: the model's own state, any pytree, where the loss takes one; another run's
          `.model_state` to go on.
        - `start`: the step to go on from, the first `t` of the functions.
        - `steps`: how many steps, if not the training's own number.
        """
        steps = self.steps if steps is None else as_steps(steps)
        if eqx.is_array(start) or start != 0:
            start = _as_start(start, steps)
        trained, rest = trees.split_trained(params)
        if not jax.tree.leaves(trained):
            raise ValueError(
                "The params hold no floating-point array, so there is nothing to train. (Within a "
                "module, Python floats and NumPy arrays are settings, not parameters.)"
            )
        model_states.check_given(self.loss, model_state)
        hyper, adjoint = trees.as_hyper(hyper), as_adjoint(adjoint)
        memories = state, trees.as_hyper(model_state)
        run = _train(self, trained, rest, hyper, adjoint, memories, start, steps)
        return eqx.tree_at(lambda r: r.params, run, eqx.combine(run.params, rest))


@programs.compiled
def _train(training, params, fixed, hyper, adjoint, memories, start, steps):
    if not eqx.is_array(start):
        with jax.ensure_compile_time_eval():  # known while tracing, and so are schedules of it
            start = jnp.int32(start)

    memory, model = memories
    optimizer = training.optimizer
    if memory is None:
        memory = optimizer.init(params, optimizer.coefficients(hyper, start))
    state, static = eqx.partition((params, memory, model), eqx.is_array)
    fixed = fixed, static[2]
    results = adjoint.run(dynamics_of(training, state, fixed, hyper, (start, steps)), state)
    state, losses = trees.unperturbed(results)
    params, memory, model = eqx.combine(state, static)
    return Run(params, memory, losses, model)


def dynamics_of(
    training: Training,
    state: tuple[PyTree, PyTree, PyTree],
    fixed: tuple[PyTree, PyTree],
    hyper: PyTree,
    steps: tuple[Int[Array, ""], int],
) -> GradientTraining:
    """The steps of a training from a state, the arrays of (trained params, memory, model's state);
    `fixed` is the rest of the params and of the model's state, `steps` the first and how many."""
    fixed_params, fixed_model = fixed

    def loss(params, hyper, batch, model):
        given = eqx.combine(params, fixed_params), hyper, batch
        if not model_states.takes_state(training.loss):
            return as_scalar("loss", training.loss(*given)), None
        before = eqx.combine(model, fixed_model)
        value, after = model_states.value_and_state(training.loss(*given, before), before)
        return as_scalar("loss", value), after

    split = getattr(training.batches, "split", None)
    if training.microbatch is not None:
        of_rows = split if training.shards is None else None
        loss = accumulated(loss, training.microbatch, of_rows)
    if training.shards is not None:
        loss = in_shards(loss, training.shards, split)
    _check_function_of_step(training.batches, steps[0])
    return GradientTraining.of(loss, training.batches, training.optimizer, hyper, steps, state)


def as_scalar(name: str, value: Any) -> Float[Array, ""]:
    """What a loss or a score returned, if it is a real scalar.

    Raises `ValueError` otherwise.
    """
    if isinstance(value, tuple):
        raise ValueError(
            f"The {name} returned {len(value)} values; a scalar is needed. If the others are "
            f"figures beside it (`has_aux`), compute them from the run afterwards, and return the "
            f"first alone. If they are a model's state, take it: (params, hyper, batch, state)."
        )
    if jnp.shape(value) != ():
        several = " For many scores of one run, see hg.jacobian." if name == "score" else ""
        raise ValueError(f"The {name} has shape {jnp.shape(value)}; a scalar is needed.{several}")
    value = jnp.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"The {name} has dtype {value.dtype}; a float is needed: .astype(float).")
    return value


def _check_function_of_step(batches, start):
    """Raises `ValueError` if two calls for the same step differ: what an iterator gives is frozen
    while JAX traces, and every step would see the same batch."""

    def traced():
        program = jax.make_jaxpr(lambda t: eqx.filter(batches(t), eqx.is_array))(start)
        return re.sub("0x[0-9a-f]+", "", str(program.jaxpr)), program.consts

    (first, constants), (second, others) = traced(), traced()
    if first != second or any(map(_is_other, constants, others)):
        raise ValueError(
            "Training(batches=…) gave another batch when it was called again for the same step, as "
            "an iterator or a random generator does. It must be a function of the step, t -> "
            "batch: hg.minibatches(data, size=…, key=…), or data indexed by t."
        )


def _is_other(a, b):
    if a is b or isinstance(a, Tracer) or isinstance(b, Tracer):
        return False
    if a.shape != b.shape or a.dtype != b.dtype:
        return True
    with jax.ensure_compile_time_eval():
        return not bool(jnp.all(jnp.asarray(a) == jnp.asarray(b)))


def as_adjoint(adjoint: Adjoint | None) -> Adjoint:
    """The adjoint, `Checkpointed()` for None; raises `TypeError` for anything else."""
    if adjoint is None:
        return Checkpointed()
    if not isinstance(adjoint, Adjoint):
        raise TypeError(
            f"adjoint={adjoint!r} is not an adjoint. Give an object, such as Stored() or "
            "Checkpointed(slots=100)."
        )
    return adjoint


def _as_start(start, steps):
    if not eqx.is_array(start) and not 0 <= start <= LAST - steps:
        raise ValueError(
            f"start={start!r} with {steps} steps: steps are counted in 32 bits, from 0 to {LAST}."
        )
    return jnp.asarray(start, jnp.int32)

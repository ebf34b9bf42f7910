"""A start, a run and a score put together: what tuning lowers."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from hindgrad import programs, trees
from hindgrad.adjoints import Adjoint
from hindgrad.adjoints.base import Hypergradient, OneStep, ScoredRun
from hindgrad.arguments import as_key
from hindgrad.model_state import arguments, takes_state
from hindgrad.training import Run, Training, as_adjoint, as_scalar, as_steps


def init_key(key: PRNGKeyArray) -> PRNGKeyArray:
    """The key of a run's start, which no batch has: those have their step's number folded in, and
    no run is so long."""
    return jax.random.fold_in(key, np.uint32(2**32 - 1))


def _split(init):
    """The initial parameters, split; a function that makes them as it is (an Equinox module is
    callable too, but holds arrays)."""
    is_function = callable(init) and not any(eqx.is_array(leaf) for leaf in jax.tree.leaves(init))
    return init if is_function else trees.Split(*trees.split_trained(init))


class RunScore(eqx.Module):
    """A score that asks for the whole run, not only the trained parameters.

        hg.Objective(training, init=params, score=hg.RunScore(lambda run, hyper, key: …))

    **Arguments:**

    - `function`: a function `(run, hyper, key) -> scalar` of a `Run`: its parameters, the losses of
      all steps, and the optimizer's memory and the model's state at the end.
    """

    function: Callable[..., Float[Array, ""]]


class Objective(eqx.Module):
    """The score of a training run, as an ordinary function of its hyperparameters.

        objective = hg.Objective(training, init=params, score=score)
        value, hypergradient = jax.value_and_grad(objective)(hyper)

    **Arguments:**

    - `training`: a `Training`, or a function `key -> Training` that draws one (a fresh split of
      the data and a fresh batch order, say).
    - `init`: the initial parameters, or a function `(hyper, key) -> params`; where the loss takes a
      model's state, `(params, state)` in place of the parameters.
    - `score`: a function `(params, hyper, key) -> scalar`, of the trained parameters;
      `(params, hyper, key, state) -> scalar`, of the model's state at the end too; or
      `RunScore(…)` of the whole run; lower is better. It gets the same key as `training`, so that
      both can draw the same split; `init` gets one of its own. None for a run whose score is given
      elsewhere, as the queries of `attribute` are.
    """

    training: Training | Callable[[PRNGKeyArray], Training]
    init: Any = eqx.field(kw_only=True, converter=_split)
    score: Callable[..., Float[Array, ""]] | RunScore | None = eqx.field(kw_only=True, default=None)

    def __call__(
        self,
        hyper: PyTree,
        key: PRNGKeyArray | int | None = None,
        *,
        adjoint: Adjoint | None = None,
        steps: int | None = None,
    ) -> Float[Array, ""]:
        """The score of the run with these hyperparameters.

        **Arguments:**

        - `hyper`: the hyperparameters, any pytree.
        - `key`: the randomness of the run, a key or a seed; seed 0 unless given.
        - `adjoint`: how the derivative is computed; `Checkpointed()` unless given.
        - `steps`: how many steps to train, if not the training's own number.
        """
        key = as_key("Objective", 0 if key is None else key)
        steps = None if steps is None else as_steps(steps)
        return _score(self, trees.as_hyper(hyper), key, adjoint, steps)

    def hypergradient(
        self,
        hyper: PyTree,
        key: PRNGKeyArray | int | None = None,
        *,
        adjoint: Adjoint | None = None,
        carry: PyTree = None,
    ) -> Hypergradient:
        """The score and its hypergradient, with what one hypergradient carries to the next.

            found = objective.hypergradient(hyper, adjoint=hg.Implicit())
            found = objective.hypergradient(hyper, adjoint=hg.Implicit(), carry=found.carry)

        **Arguments:**

        - `hyper`: the hyperparameters; the derivative is by their floats.
        - `key`: the randomness of the run, a key or a seed; seed 0 unless given.
        - `adjoint`: how the derivative is computed; `Checkpointed()` unless given.
        - `carry`: the `carry` of the hypergradient before: the solution where `Implicit` begins,
          the members of `PersistentEvolution` on their way, the number of estimates of `Evolution`.

        **Returns:**

        `Hypergradient(value, gradient, carry, status)`. Where a run cannot be undone (`Reversible`)
        or an end is not stationary (`Implicit`), the gradient is NaN and `str(status)` says why.
        """
        key = as_key("Objective", 0 if key is None else key)
        return _hypergradient(self, trees.as_hyper(hyper), key, as_adjoint(adjoint), carry)

    def run(self, hyper: PyTree, key: PRNGKeyArray | int | None = None, **options: Any):
        """The run whose score this is, with the randomness of a key or a seed, 0 unless given; the
        options are those of calling a `Training`."""
        drawn = as_key("Objective.run", 0 if key is None else key)
        training, params, model = self.start(hyper, drawn)
        return training(params, hyper, model_state=model, **options)

    def scored(self, key: PRNGKeyArray, steps: int | None = None) -> ScoredRun:
        """The run with its start and its score, as adjoints and diagnostics take it apart."""
        return _Scored(objective=self, key=key, length=steps)

    def start(self, hyper: PyTree, key: PRNGKeyArray) -> tuple[Training, Any, PyTree]:
        """The training, the initial parameters (or their `trees.Split`) and the model's state."""
        training = self.training if isinstance(self.training, Training) else self.training(key)
        params = self.init
        if not isinstance(params, trees.Split):
            params = params(hyper, init_key(key))
        if not takes_state(training.loss):
            return training, params, None
        pair = params.trained if isinstance(params, trees.Split) else params
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ValueError(
                "The loss takes a model's state, so Objective(init=…) must be, or return, the pair "
                f"(params, state); it is a {type(pair).__name__}."
            )
        if not isinstance(params, trees.Split):
            return training, *params
        (trained, floats), (rest, others) = params.trained, params.rest
        return training, trees.Split(trained, rest), eqx.combine(floats, others)

    def seen(self, run: Run) -> PyTree:
        """What the score sees of a run."""
        return run if isinstance(self.score, RunScore) else (run.params, run.model_state)

    def returned(self, seen: PyTree, hyper: PyTree, key: PRNGKeyArray) -> Any:
        """What the score makes of that."""
        score: Any = self.score
        if score is None:
            raise ValueError(
                "This Objective has no score: give Objective(…, score=…), a function (params, "
                "hyper, key) -> scalar."
            )
        if isinstance(score, RunScore):
            return score.function(seen, hyper, key)
        params, model = seen
        return score(params, hyper, key, *arguments("score", score, model))


def _as_it_is(x):
    return x


class Reparametrised(eqx.Module):
    """A function of an objective, of hyperparameters that its own follow from:
    `after(objective(before(hyper), key))`. What `hg.tune` is given to tune the logarithm of a rate,
    or what many numbers share, also where a run is so long that it is taken in segments.

        of_logs = hg.Reparametrised(objective, before=lambda h: {"rate": jnp.exp(h["log rate"])})

    **Arguments:**

    - `objective`: an `Objective`.
    - `before`: from the hyperparameters that are tuned to the objective's.
    - `after`: what becomes of the score; itself unless given.
    """

    objective: Objective
    before: Callable[[PyTree], PyTree]
    after: Callable[[Float[Array, ""]], Float[Array, ""]] = _as_it_is

    def __call__(self, hyper: PyTree, key: PRNGKeyArray | int | None = None) -> Float[Array, ""]:
        return self.after(self.objective(self.before(hyper), key))

    def pulled(
        self, hyper: PyTree, hypergradient: Callable[[PyTree], Hypergradient]
    ) -> Hypergradient:
        """The value and its derivative by the floats in `hyper`, from the objective's."""
        inner, pull = eqx.filter_vjp(self.before, hyper)
        found = hypergradient(inner)
        value, slope = jax.value_and_grad(self.after)(found.value)
        scaled = lambda x: slope.astype(x.dtype) * x
        (gradient,) = pull(jax.tree.map(scaled, found.gradient))
        return found._replace(value=value, gradient=gradient)


@programs.compiled
def _score(objective, hyper, key, adjoint, steps):
    return as_adjoint(adjoint).evaluate(objective.scored(key, steps), hyper)


@programs.compiled
def _hypergradient(objective, hyper, key, adjoint, carry):
    return adjoint.hypergradient(objective.scored(key), hyper, carry)


class _Scored(ScoredRun):
    """An objective's run with one key, as adjoints see it."""

    objective: Objective
    key: PRNGKeyArray  # pyright: ignore[reportIncompatibleVariableOverride]
    length: int | None = eqx.field(static=True)

    @property
    def steps(self):
        if self.length is not None:
            return self.length
        training = self.objective.training
        return (training if isinstance(training, Training) else training(self.key)).steps

    def __call__(self, hyper, adjoint):
        run = self.objective.run(hyper, self.key, adjoint=adjoint, steps=self.length)
        seen = self.objective.seen(run)
        return as_scalar("score", self.objective.returned(seen, hyper, self.key))

    def begin(self, hyper, key):
        return eqx.filter(self._begin(hyper, key), eqx.is_array)

    def step(self, hyper, key, state, t):
        training, *_ = self.objective.start(hyper, key)
        params, memory, model = self._whole(hyper, key, state)
        memories = {"state": memory, "model_state": model}
        run = training(params, hyper, adjoint=OneStep(), start=t, steps=1, **memories)
        return eqx.filter((run.params, run.state, run.model_state), eqx.is_array)

    def score(self, hyper, key, state):
        if isinstance(self.objective.score, RunScore):
            raise ValueError(
                "The score is a RunScore, which is known at the end of the run only, and "
                "PersistentEvolution compares scores on the way. Give Objective(score=…) a "
                "function of the parameters, or use Evolution(…)."
            )
        params, _, model = self._whole(hyper, key, state)
        return as_scalar("score", self.objective.returned((params, model), hyper, key))

    def _begin(self, hyper, key):
        training, params, model = self.objective.start(hyper, key)
        trained, rest = trees.split_trained(params)
        coefficients = training.optimizer.coefficients(hyper, jnp.int32(0))
        memory = training.optimizer.init(trained, coefficients)
        return eqx.combine(trained, rest), memory, trees.as_hyper(model)

    def _whole(self, hyper, key, state):
        """A state with what is no array in it."""
        like = eqx.filter_eval_shape(self._begin, hyper, key)
        is_array = lambda x: isinstance(x, jax.ShapeDtypeStruct)
        return eqx.combine(state, eqx.filter(like, is_array, inverse=True))

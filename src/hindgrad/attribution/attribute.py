"""Which examples, labels and settings made a prediction."""

from typing import Any, NamedTuple, cast, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from hindgrad import placement, trees
from hindgrad.adjoints import Adjoint
from hindgrad.arguments import Key, Whole, as_key, as_whole, floats_and_rest
from hindgrad.attribution import certify, retraining
from hindgrad.attribution.certificate import Certificate
from hindgrad.attribution.leaf import Leaf, Where, found, only_row_of_numbers
from hindgrad.attribution.way import differentiated
from hindgrad.diagnostics.say import say
from hindgrad.objective import Objective, RunScore

SHOWN = 8
"""So many queries are named in an error."""


class NothingMattersError(ValueError):
    """No example's weight changes any query."""


class NotFiniteError(RuntimeError):
    """A query, or one of its derivatives, is not finite."""


class Ranking(NamedTuple):
    """Examples in an order."""

    rows: Int[np.ndarray, " k"]
    """Their numbers."""
    effects: Float[np.ndarray, " k"]
    """By how much the query would change without each of them, to first order."""


@final
class Attribution(eqx.Module):
    """What a run's queries owe to everything that went into it; made by `attribute`.

    All predictions are of first order: the derivative times the change. `certify` tells how far
    they hold.
    """

    values: Float[Array, " queries"]
    """The queries."""
    scores: PyTree
    """Their derivatives, like the floats in `hyper`: each [queries, …]; None where `hyper` has
    whole numbers."""
    hyper: PyTree
    """Where they were taken."""
    objective: Objective = eqx.field(repr=False)
    """The run, with the queries as its score."""
    key: PRNGKeyArray = eqx.field(repr=False)
    adjoint: Adjoint
    """By which the scores were computed."""
    examples: Leaf | None = eqx.field(static=True)

    @property
    def elasticities(self) -> PyTree:
        """How much the queries change if a setting grows by its own size, like the floats in
        `hyper`, each [queries, …]: setting times derivative. One percent more of the setting
        changes the query by a hundredth of that. For settings that are logarithms, `scores` are
        that already."""
        by_size = lambda x, d: x[None] * d
        return jax.tree.map(by_size, eqx.filter(self.hyper, eqx.is_inexact_array), self.scores)

    @property
    def removed(self) -> Float[np.ndarray, "queries rows"]:
        """By how much each query would change if an example's weight became zero; above zero, the
        example holds the query down (of a loss: it helps). Where the weights have more axes than
        one, that of all of a row's."""
        return self._removed("removed")

    def replaced(self, where: Where, by: Any) -> Float[Array, "queries ..."]:
        """By how much each query would change if one number of a leaf, each for itself, became
        another.

        **Arguments:**

        - `where`: picks the leaf, `lambda hyper: hyper["pixels"]`.
        - `by`: the new values, a number or an array of the leaf's shape.
        """
        leaf = found("replaced(where)", where, self.hyper)
        old = leaf.of(self.hyper)
        new = _broadcast(by, old, leaf.name)
        return jnp.real((new - old)[None] * leaf.of(self.scores))

    def relabelled(self, where: Where) -> Float[Array, "queries rows classes"]:
        """By how much each query would change if a row had another label: one number for each
        class that it might be given.

        **Arguments:**

        - `where`: picks the leaf of labels [rows, classes], each row the probabilities of the
          classes (`jax.nn.one_hot(y, classes)`), which the loss reads:
          `optax.softmax_cross_entropy(logits, hyper["label"][batch.index])`.
        """
        leaf = found("relabelled(where)", where, self.hyper)
        labels, slopes = leaf.of(self.hyper), leaf.of(self.scores)
        if labels.ndim != 2:
            raise ValueError(
                f"relabelled(where): {leaf.name} has shape {list(labels.shape)}; labels are "
                "[rows, classes], such as jax.nn.one_hot(y, classes)."
            )
        return slopes - jnp.sum(labels[None] * slopes, -1, keepdims=True)

    def predicted(self, hyper: PyTree) -> Float[Array, " queries"]:
        """What the queries would be with other hyperparameters, to first order."""
        old, others = floats_and_rest("predicted", self.hyper)
        new, changed = floats_and_rest("predicted", self._like(hyper, "predicted"))
        if not eqx.tree_equal(others, changed):
            raise ValueError(
                "predicted(hyper): something that is no float is another than it was, and there is "
                "no derivative by it. Use retrained(hyper)."
            )
        summed = lambda x: jnp.sum(jnp.real(x), tuple(range(1, x.ndim)))
        change = lambda d, a, b: summed(d * (b - a)[None])
        return trees.add(self.values, *jax.tree.leaves(jax.tree.map(change, self.scores, old, new)))

    def retrained(self, hyper: PyTree) -> Float[Array, " queries"]:
        """What the queries are after training with other hyperparameters, in the same order of the
        steps."""
        return retraining.values(self.objective, self._like(hyper, "retrained"), self.key)

    def top(self, query: Whole | None, k: Whole = 10) -> Ranking:
        """The `k` examples whose removal would raise a query most: of a loss, those that helped.
        All that have a weight, if they are fewer.

        **Arguments:**

        - `query`: its number; None for the mean of all.
        - `k`: how many.
        """
        return self._ranked("top", query, k, -1)

    def bottom(self, query: Whole | None, k: Whole = 10) -> Ranking:
        """The `k` examples whose removal would lower a query most: of a loss, those that harmed."""
        return self._ranked("bottom", query, k, 1)

    def certify(
        self,
        *,
        runs: Whole = 50,
        drop: float = 0.01,
        bar: float | Whole = 0.9,
        seed: Key = 0,
        side_by_side: Whole | None = None,
        axis: str | None = None,
        progress: bool | None = None,
    ) -> Certificate:
        """Retrains without examples, and tells whether the scores foretold what happens; prints a
        verdict.

        Random sets of examples get the weight zero, and everything else stays: the start, the
        order of the steps, the rows in each batch. The linear datamodelling score is Spearman's
        correlation of the queries that the scores foretell with those that come out (Park et al.
        2023, arXiv 2303.14186, definition 2.1, on one model). Then, for each query, the examples
        that matter most are removed, as many. Costs `runs` trainings, one more for each query, and
        ten; and a hypergradient in float64.

        **Arguments:**

        - `runs`: how many random sets (at least 10).
        - `drop`: the share of the examples that each run does without, above 0 and below 1; at
          least one example.
        - `bar`: the mean score that is asked for, from −1 to 1. Below it the certificate says that
          the scores are not to be trusted, why, and what helps.
        - `seed`: draws the sets.
        - `side_by_side`: how many runs are trained in one program, under `vmap`, of which a CPU
          runs one on each core; by the size of the parameters unless given.
        - `axis`: an automatic axis of the mesh on which the run's arrays are, over which the runs
          side by side are split, as many on each of its devices.
        - `progress`: whether to show a line with the time left; unless given, on a terminal, and
          elsewhere every half minute.

        Raises `ValueError` if an argument is out of its range, or it is not known which leaf
        holds the examples' weights.
        """
        leaf = self._examples("certify")
        if not _is_number(drop) or not 0 < drop < 1:
            raise ValueError(f"certify(drop={drop!r}): a share above 0 and below 1 is needed.")
        if not _is_number(bar) or not -1 <= bar <= 1:
            raise ValueError(f"certify(bar={bar!r}): a correlation from −1 to 1 is needed.")
        block = None
        if side_by_side is not None:
            block = as_whole("certify", "side_by_side", side_by_side)
        lanes = None
        if axis is not None:
            mesh = placement.mesh_of((self.objective, self.hyper))
            lanes = placement.lanes(axis, mesh, f"certify(axis={axis!r}): runs")
        of = certify.Attributed(
            objective=self.objective,
            hyper=self.hyper,
            key=self.key,
            adjoint=self.adjoint,
            examples=leaf,
            scores=np.asarray(leaf.of(self.scores)).astype(np.float64),
            removed=self.removed,
        )
        runs = as_whole("certify", "runs", runs, least=10)
        draw = as_key("certify", seed, name="seed")
        asked = certify.Asked(runs, float(drop), float(bar), draw, block, progress, lanes)
        found = certify.certified(of, asked)
        say(found.message)
        return found

    def _ranked(self, caller, query, k, sign):
        removed, k = self._removed(caller), as_whole(caller, "k", k)
        queries, _ = removed.shape
        if query is not None:
            query = as_whole(caller, "query", query, least=0)
            if query >= queries:
                raise ValueError(f"{caller}(query={query}): there are {queries}, from 0 on.")
        effects = removed.mean(0) if query is None else removed[query]
        present = np.flatnonzero(certify.present(self._examples(caller).of(self.hyper)))
        order = present[np.argsort(sign * effects[present], kind="stable")][:k]
        return Ranking(order, effects[order])

    def _removed(self, caller):
        leaf = self._examples(caller)
        # In float64: NumPy adds up half precision in itself.
        wide = lambda tree: np.asarray(leaf.of(tree)).astype(np.float64)
        effects = -wide(self.hyper)[None] * wide(self.scores)
        return effects.reshape(*effects.shape[:2], -1).sum(-1)

    def _examples(self, caller):
        if self.examples is None:
            raise ValueError(
                f"{caller} must know which leaf of hyper holds the examples' weights, and there is "
                "not just one with a single axis: attribute(…, examples=lambda hyper: "
                'hyper["weight"]).'
            )
        return self.examples

    def _like(self, hyper, caller):
        hyper = trees.as_hyper(hyper)
        given, wanted = _floats(hyper), _floats(self.hyper)
        names = (name for name in {**wanted, **given} if given.get(name) != wanted.get(name))
        if name := next(names, None):
            said = lambda floats: f"{list(floats[name])}" if name in floats else "no float"
            raise ValueError(
                f"{caller}(hyper) is not like the hyperparameters at which the scores were taken: "
                f"hyper{name} has shape {said(wanted)} there, and {said(given)} here."
            )
        return hyper


def attribute(
    objective: Any,
    hyper: PyTree,
    queries: Any,
    *,
    examples: Where | None = None,
    key: Key | None = None,
    adjoint: Adjoint | None = None,
    axis: str | None = None,
) -> Attribution:
    """Attributes queries, numbers that a trained model gives, to everything that went into its
    training: the derivative of each by every example's weight and every other hyperparameter, from
    one run forward and one back (Ilyas & Engstrom 2025, "MAGIC", arXiv 2504.16430).

        queries = lambda params, hyper, key: losses(params, *held_out)
        found = hg.attribute(objective, {"weight": jnp.ones(1000)}, queries)
        found.top(query=3, k=5)
        found.certify(runs=50, drop=0.01)

    Whatever the loss reads from `hyper` is a cause: a weight for each example, document or class
    (`hyper["weight"][batch.index]`), labels as probabilities, what is added to each feature of a
    row, rates and decays.

    **Arguments:**

    - `objective`: the training and its start; a score of its own is not needed.
    - `hyper`: the hyperparameters.
    - `queries`: a function `(params, hyper, key) -> [queries]`, or with the model's state as a
      fourth argument, or a `RunScore`: the loss at each row of interest, its margin, a logit.
    - `examples`: picks the leaf of `hyper` that holds the examples' weights, rows along its
      first axis: `lambda hyper: hyper["weight"]`. Unless given the only leaf with one axis.
    - `key`: the randomness of the run, a key or a seed; seed 0 unless given.
    - `adjoint`: how the derivatives are computed. Unless given `Reversible` for `Momentum` and
      `Adam` where the run can be undone, else `Checkpointed()`.
    - `axis`: an automatic axis of the mesh on which the run's arrays are, over which the queries
      are split: see `jacobian`.

    **Returns:**

    An `Attribution`.

    Raises `ValueError` if the queries are no array of floats, an adjoint has no jacobian, or the
    weights do not matter to any query at all; `RuntimeError` if queries or their derivatives are
    not finite.
    """
    if not isinstance(objective, Objective):
        raise TypeError(f"attribute(objective={objective!r}): an hg.Objective is needed.")
    if not isinstance(queries, RunScore) and not callable(queries):
        raise TypeError(
            f"attribute(queries={type(queries).__name__}): a function (params, hyper, key) -> "
            "[queries] is needed, the losses at rows of interest, say."
        )
    if any(isinstance(x, Tracer) for x in jax.tree.leaves((hyper, objective, key))):
        raise ValueError(
            "attribute checks what it finds, and cannot itself be traced (by jax.jit, jax.grad or "
            "jax.vmap). Within another program, use hg.jacobian."
        )
    hyper = trees.as_hyper(hyper)
    floats_and_rest("attribute", hyper)
    run_key, score = as_key("attribute", 0 if key is None else key), cast(Any, queries)
    asked = Objective(objective.training, init=objective.init, score=score)
    if examples is None:
        leaf = only_row_of_numbers(hyper)
    else:
        leaf = found("attribute(examples)", examples, hyper)
        if not leaf.of(hyper).ndim:
            raise ValueError(
                f"attribute(examples): {leaf.name} is a single number; a weight for each example "
                "is needed, or examples=None for settings alone."
            )
    (values, scores), adjoint = differentiated(asked, hyper, run_key, adjoint, axis)
    axes = values.ndim
    scores = jax.tree.map(lambda x: x.reshape(-1, *x.shape[axes:]), scores)
    result = Attribution(jnp.ravel(values), scores, hyper, asked, run_key, adjoint, leaf)
    _check(result)
    return result


def _floats(hyper: PyTree) -> dict[str, tuple[int, ...]]:
    """The shape of every float, by its place."""
    floats = jax.tree_util.tree_leaves_with_path(eqx.filter(hyper, eqx.is_inexact_array))
    return {jax.tree_util.keystr(place): x.shape for place, x in floats}


def _check(result: Attribution) -> None:
    """Raises an error where nothing can be attributed."""
    bad = np.flatnonzero(~np.isfinite(np.asarray(result.values)))
    if len(bad):
        raise NotFiniteError(
            f"attribute: {_queries(bad)} not finite after training: the run diverges (lower the "
            "rates), or the query itself is not defined there."
        )
    finite = np.ones(len(result.values), bool)
    for leaf in jax.tree.leaves(result.scores):
        finite &= np.isfinite(np.asarray(leaf)).reshape(len(finite), -1).all(1)
    if not finite.all():
        raise NotFiniteError(
            f"attribute: the derivatives of {_queries(np.flatnonzero(~finite), of=True)} not "
            "finite: training is chaotic (lower the rates; hg.diagnose looks for the edge), or a "
            "step is not differentiable (hg.check)."
        )
    leaf = result.examples
    if leaf is not None and not np.any(np.asarray(leaf.of(result.scores))):
        raise NothingMattersError(
            f"attribute: {leaf.name} does not matter to any query. Either the loss never reads it "
            '(hyper["weight"][batch.index] times the losses of the rows), or the queries do not '
            "read the trained parameters, or the network is saturated or dead, so that nothing "
            "matters (lower the rates)."
        )


def _broadcast(by, like, name):
    """What is given for a leaf, in its shape and dtype."""
    try:
        new = jnp.broadcast_to(jnp.asarray(by), like.shape)
        fits = jnp.iscomplexobj(like) or not jnp.iscomplexobj(new)
        fits = fits and bool(jnp.all(jnp.isfinite(new)))
    except (TypeError, ValueError):
        fits, new = False, like
    if not fits:
        raise ValueError(
            f"replaced(by={by!r}): {name} has shape {list(like.shape)} and dtype {like.dtype}; "
            "finite numbers of that kind that broadcast to it are needed."
        )
    return new.astype(like.dtype)


def _is_number(x):
    return isinstance(x, (int, float, np.integer, np.floating)) and not isinstance(x, bool)


def _queries(numbers, *, of=False):
    shown = ", ".join(map(str, numbers[:SHOWN])) + (", …" if len(numbers) > SHOWN else "")
    if len(numbers) == 1:
        return f"query {shown} {'are' if of else 'is'}"
    return f"{len(numbers)} queries ({shown}) are"

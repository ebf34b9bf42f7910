"""Retrains without random examples, and compares what happens with what the scores foretold."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Bool, Float, PRNGKeyArray, PyTree

from hindgrad import programs
from hindgrad.adjoints import Adjoint
from hindgrad.attribution import ranks, retraining
from hindgrad.attribution.certificate import Certificate, Removal, described
from hindgrad.attribution.leaf import Leaf
from hindgrad.diagnostics.float64 import in_float64
from hindgrad.diagnostics.precision import LeafPrecision, compared, widenable
from hindgrad.objective import Objective
from hindgrad.progress import Bar

ROUNDING = 4.0
"""Changes of so many units in the last place are none."""
SMOOTH_RUNS = 3
"""Removals along which metasmoothness is measured, three runs each."""


class Attributed(NamedTuple):
    """What is certified."""

    objective: Objective
    """Whose score is the queries."""
    hyper: PyTree
    key: PRNGKeyArray
    adjoint: Adjoint
    examples: Leaf
    scores: Float[np.ndarray, "queries rows *features"]
    """The derivatives by the examples' weights, in float64."""
    removed: Float[np.ndarray, "queries rows"]
    """By how much the queries change without each row, to first order."""


class Asked(NamedTuple):
    """How thoroughly it is certified."""

    runs: int
    drop: float
    bar: float
    seed: PRNGKeyArray
    block: int | None
    progress: bool | None
    lanes: NamedSharding | None = None
    """How the runs side by side are split over devices."""


def certified(of: Attributed, asked: Asked) -> Certificate:
    """The certificate."""
    gone = _draw(of.examples, of.hyper, asked)
    top = _top(of, int(gone[0].sum()))
    everything = np.concatenate([np.zeros_like(gone[:1]), gone, top])
    runs = len(everything)
    block = asked.block or retraining.together(of.objective, of.hyper, of.key, runs)
    block = min(block, runs)
    with Bar(len(everything) + 3 * SMOOTH_RUNS, "retraining", shown=asked.progress) as bar:
        given = of.objective, of.hyper, of.examples
        how = {"block": block, "lanes": asked.lanes, "bar": bar}
        after = retraining.retrained(*given, everything, of.key, **how)
        bar.stage("metasmoothness")
        smooth = []
        for removal in gone[:SMOOTH_RUNS]:
            smooth.append(retraining.smoothness(*given, removal, of.key))
            bar.done(3)
        bar.stage("precision")
        precise = _precision(of)
    base, random, of_top = after[0], after[1 : len(gone) + 1], after[len(gone) + 1 :]
    found = _compared(of, asked, gone, base, random, of_top, top)
    found = found._replace(metasmoothness=float(np.mean(smooth)), precision=precise)
    return found._replace(message=described(found))


def _draw(examples, hyper, asked) -> Bool[np.ndarray, "runs rows"]:
    """Which rows each run does without: as many of those with a weight in each."""
    there = present(examples.of(hyper))
    rows = np.flatnonzero(there)
    count = max(1, round(asked.drop * len(rows)))
    if count >= len(rows):
        raise ValueError(
            f"certify(drop={asked.drop}): {len(rows)} of the rows of {examples.name} have a "
            f"weight, and {count} would be removed from each run. Some must stay."
        )
    random = _generator(asked.seed)
    gone = np.zeros((asked.runs, len(there)), bool)
    for row in gone:
        row[random.choice(rows, count, replace=False)] = True
    return gone


def present(weights: Any) -> Bool[np.ndarray, " rows"]:
    """Which examples have a weight that is not zero."""
    weights = np.asarray(weights)
    return np.any(weights.reshape(len(weights), -1) != 0, axis=1)


def _top(of, count) -> Bool[np.ndarray, "queries rows"]:
    """For each query the rows whose removal is foretold to raise it most."""
    there = present(of.examples.of(of.hyper))
    rows = np.argsort(np.where(there[None], -of.removed, np.inf), axis=1, kind="stable")[:, :count]
    top = np.zeros(of.removed.shape, bool)
    np.put_along_axis(top, rows, values=True, axis=1)
    return top


def _compared(of, asked, gone, base, random, of_top, top):
    rounding = float(jnp.finfo(base.dtype).eps)
    base, random, of_top = (x.astype(np.float64) for x in (base, random, of_top))
    finite = np.all(np.isfinite(random), axis=1)
    foretold = (gone.astype(np.float64) @ of.removed.T)[finite]
    happened, unit = random[finite] - base[None], rounding * np.abs(base)
    moves = np.max(np.abs(happened), axis=0, initial=0) > ROUNDING * unit
    unscored = ~moves & ~np.any(foretold, axis=0) & np.any(of.removed, axis=1)
    queries = np.flatnonzero(moves)
    foretold, happened = foretold[:, moves], happened[:, moves]
    few = len(queries) == 0 or len(happened) < 2
    spread = happened.std(0) / np.where(unit[moves] > 0, unit[moves], np.inf)
    return Certificate(
        bar=asked.bar,
        runs=len(gone),
        dropped=int(gone[0].sum()),
        examples=gone.shape[1],
        name=of.examples.name,
        lds={} if few else _numbered(queries, ranks.spearman(foretold, happened)),
        interval=None if few else ranks.interval(foretold, happened, _generator(asked.seed)),
        unmoved=[int(q) for q in np.flatnonzero(~moves)],
        unscored=[int(q) for q in np.flatnonzero(unscored)],
        ratio=None if few else float(np.median(_slope(foretold, happened))),
        faintness=None if few else float(np.min(spread[spread > 0], initial=np.inf)),
        top={
            int(q): Removal(
                float(base[q]),
                float(of_top[q, q]),
                float(base[q] + of.removed[q][top[q]].sum()),
                float(random[finite, q].mean()),
                float(random[finite, q].std()),
                float(np.max(random[finite & np.any(gone != top[q], axis=1), q], initial=-np.inf)),
            )
            for q in (() if few else queries)
        },
        diverged=int(np.sum(~finite) + np.sum(~np.isfinite(np.diagonal(of_top)))),
        metasmoothness=1.0,
        precision=None,
    )


def _numbered(queries, values):
    return {int(q): float(x) for q, x in zip(queries, values, strict=True)}


def _slope(foretold, happened):
    """Of what happened on what was foretold, for each query; infinite if nothing was."""
    size = (foretold**2).sum(0)
    return np.where(size > 0, (foretold * happened).sum(0) / np.where(size > 0, size, 1), np.inf)


def _precision(of: Attributed) -> LeafPrecision | None:
    """How the scores compare with float64: all queries in one hypergradient, that of their sum with
    random signs, each divided by the size of its own scores."""
    sizes = np.sqrt((of.scores**2).reshape(len(of.scores), -1).sum(1))
    signs = np.random.default_rng(0).choice([-1.0, 1.0], len(sizes))
    mix = np.where(sizes > 0, signs / np.where(sizes > 0, sizes, 1), 0)
    if not np.any(mix):
        return None
    mix = jnp.asarray(mix, of.examples.of(of.hyper).dtype)
    found = np.tensordot(np.asarray(mix).astype(np.float64), of.scores, 1)
    given = of.objective, of.hyper, of.examples.place, of.key, mix, widenable(of.adjoint)
    try:
        return compared(found, np.asarray(in_float64(_mixed, *given)))
    except NotImplementedError:
        return None


@programs.compiled
def _mixed(objective, hyper, place, key, mix, adjoint):
    """The derivative of a sum of the queries by the examples' weights."""
    leaf = Leaf(place, "")

    def value(weights):
        changed = leaf.put(hyper, weights)
        run = objective.run(changed, key, adjoint=adjoint)
        return jnp.vdot(mix, jnp.ravel(objective.returned(objective.seen(run), changed, key)))

    return jax.grad(value)(leaf.of(hyper))


def _generator(seed: PRNGKeyArray) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(seed)).ravel())

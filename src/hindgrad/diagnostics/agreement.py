"""How close is an approximate hypergradient to the exact one?"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from hindgrad import programs
from hindgrad.adjoints import Adjoint, Checkpointed
from hindgrad.arguments import Key, as_keys, floats_and_rest
from hindgrad.diagnostics.say import say
from hindgrad.objective import Objective


class Likeness(NamedTuple):
    """How an approximate gradient compares with the exact one."""

    cosine: float
    """Of the angle between them: 1 for the same direction. NaN if one of them is 0."""
    norm_ratio: float
    """The approximate one's Euclidean norm ÷ the exact one's."""


class Agreement(NamedTuple):
    """What `agreement` found."""

    whole: Likeness
    leaves: dict[str, Likeness]
    """For each leaf of the hyperparameters, by its path."""
    message: str


def agreement(
    objective: Callable[..., Any],
    hyper: PyTree,
    adjoint: Adjoint,
    *,
    exact: Adjoint | None = None,
    key: Key | None = None,
) -> Agreement:
    """Compares an adjoint's hypergradient with the exact one; prints a table.

        hg.agreement(objective, hyper, hg.Interpolated())

    **Arguments:**

    - `objective`: an `Objective`.
    - `hyper`: where to compare.
    - `adjoint`: the approximate one, such as `Interpolated()` or `Truncated(100)`.
    - `exact`: what to compare with; `Checkpointed()` unless given.
    - `key`: the run's randomness, a key or a seed.
    """
    if not isinstance(objective, Objective):
        raise TypeError(
            f"agreement was given {objective!r}, which is no Objective: a function chooses its "
            "runs' adjoint itself."
        )
    tuned, fixed = floats_and_rest("agreement", hyper)
    args = as_keys("agreement", key)
    exact = Checkpointed() if exact is None else exact
    approximate, right = (
        _gradient(tuned, fixed, objective, args, which) for which in (adjoint, exact)
    )
    paths = [jax.tree_util.keystr(p) or "hyper" for p, _ in jax.tree.leaves_with_path(right)]
    pairs = list(zip(jax.tree.leaves(approximate), jax.tree.leaves(right), strict=True))
    leaves = {path: _compare([a], [b]) for path, (a, b) in zip(paths, pairs, strict=True)}
    whole = _compare(*zip(*pairs, strict=True))
    result = Agreement(whole, leaves, _describe(adjoint, exact, whole, leaves))
    say(result.message)
    return result


@programs.compiled
def _gradient(tuned, fixed, objective, args, adjoint):
    value = lambda tuned: objective(eqx.combine(tuned, fixed), *args, adjoint=adjoint)
    return eqx.filter_grad(value)(tuned)


def _compare(approximate, exact):
    wide = lambda x: np.ravel(x).astype(np.complex128 if np.iscomplexobj(x) else np.float64)
    join = lambda parts: np.concatenate([wide(x).view(np.float64) for x in parts])
    a, b = join(approximate), join(exact)
    norms = np.linalg.norm(a), np.linalg.norm(b)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Scaled first: an approximation may be so far off that products overflow.
        cosine = float((a / norms[0]) @ (b / norms[1]))
        return Likeness(cosine, float(norms[0] / norms[1]))


def _describe(adjoint, exact, whole, leaves):
    rows = [("all", whole), *leaves.items()]
    width = max(len(name) for name, _ in rows)
    lines = [f"{type(adjoint).__name__} against {type(exact).__name__}:"]
    lines += [
        f"  {name:{width}}  cosine {like.cosine: .4f}, norm {like.norm_ratio:.4g} times the exact"
        for name, like in rows
    ]
    return "\n".join(lines)

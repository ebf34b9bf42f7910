"""How many digits of a hypergradient hold? It is compared with the same program in float64."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from hindgrad import programs
from hindgrad.adjoints import Adjoint, Checkpointed, Reversible
from hindgrad.arguments import Key, as_keys, floats_and_rest
from hindgrad.diagnostics.check import AGREES
from hindgrad.diagnostics.float64 import in_float64

PRECISE = 3.0
"""So many digits, and a derivative is called precise."""
TRUSTED = 0.5
"""So many digits (an error of a third) are the least with which it says something."""
REMEDIES = (
    'What helps: float64, jax.config.update("jax_enable_x64", True). With Adam and its kin, a '
    "larger eps (1e-6 for 1e-8), or a start at which no gradient is zero but for rounding (zero "
    "biases and balanced classes make one). Rates that are very low, or near chaos, cost digits."
)


class LeafPrecision(NamedTuple):
    """How one leaf's derivative compares with that in float64."""

    error: float
    """The norm of the difference ÷ the norm in float64. Infinite if either is not finite."""
    cosine: float
    """Of the angle between them. NaN if one of them is 0."""
    norm: float
    """The Euclidean norm in float64."""

    @property
    def digits(self) -> float:
        """How many decimal digits hold, in norm: 3 at an error of 1e-3, at most 16."""
        return float(-np.log10(np.clip(self.error, 1e-16, 1.0)))

    @property
    def verdict(self) -> str:
        """ "precise", "about 1 digit", "about 2 digits" or "not to be trusted"."""
        if self.digits >= PRECISE:
            return "precise"
        if self.digits < TRUSTED:
            return "not to be trusted"
        return _about(self.digits)


class Precision(NamedTuple):
    """What `precision` found."""

    leaves: dict[str, LeafPrecision]
    """For each leaf of the hyperparameters, by its path."""
    message: str

    @property
    def worst(self) -> LeafPrecision:
        """The leaf with the largest error."""
        return max(self.leaves.values(), key=lambda leaf: leaf.error)

    @property
    def ok(self) -> bool:
        """Whether each leaf is within one percent of float64."""
        return self.worst.error <= AGREES


def precision(
    objective: Callable[..., Any],
    hyper: PyTree,
    *,
    key: Key | None = None,
    adjoint: Adjoint | None = None,
) -> Precision:
    """Compares a hypergradient with that of the same program in float64; prints a verdict.

    A derivative can be right and yet hold few digits. Adam divides a gradient by its own size:
    where that is rounding only, the derivative is too. No other adjoint shows it, since all round
    alike.

    The program is traced as it is and evaluated again with its floats widened, so that it has the
    same numbers to begin with, the same data and the same draws. That takes memory twice, and
    about twice the time on a CPU, much more on a GPU without fast float64. A program with a
    callback or a kernel that floats enter is refused. Where training is chaotic, float64 does not
    hold either: `diagnose` tells.

    **Arguments:**

    - `objective`: an `Objective`, or a function of `hyper` (of `(hyper, key)` if a key is given).
    - `hyper`: where to compare.
    - `key`: the run's randomness, the same throughout.
    - `adjoint`: the adjoint whose hypergradient is measured, for an `Objective`. `Reversible`
      computes in exact whole numbers, which cannot be widened; it is compared with `Checkpointed`.
    """
    args = as_keys("precision", key)
    tuned, fixed = floats_and_rest("precision", hyper)
    options = {} if adjoint is None else {"adjoint": adjoint}
    found = _gradient(tuned, fixed, objective, args, options)
    right = in_float64(_gradient, tuned, fixed, objective, args, widenable(options))
    pairs = zip(jax.tree.leaves_with_path(right), jax.tree.leaves(found), strict=True)
    leaves = {
        jax.tree_util.keystr(path) or "hyper": compared(np.asarray(g), np.asarray(g64))
        for (path, g64), g in pairs
    }
    result = Precision(leaves, _describe(leaves))
    print(result.message)
    return result


@programs.compiled
def _gradient(tuned, fixed, objective, args, options):
    value = lambda tuned: objective(eqx.combine(tuned, fixed), *args, **options)
    return eqx.filter_grad(value)(tuned)


def widenable(options: PyTree) -> PyTree:
    """The same, with adjoints that compute in floats."""
    is_exact = lambda adjoint: isinstance(adjoint, Reversible)
    replace = lambda adjoint: Checkpointed() if is_exact(adjoint) else adjoint
    return jax.tree.map(replace, options, is_leaf=is_exact)


def compared(found: np.ndarray, right: np.ndarray) -> LeafPrecision:
    """How a derivative compares with that in float64."""
    wide = np.complex128 if np.iscomplexobj(right) else np.float64
    found, right = (np.ravel(x).astype(wide) for x in (found, right))
    norms = np.linalg.norm(found), np.linalg.norm(right)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.linalg.norm(found - right) / norms[1] if np.any(found != right) else 0.0
        cosine = np.vdot(found / norms[0], right / norms[1]).real
    error = float(error) if np.isfinite(error) and np.isfinite(norms[0]) else np.inf
    return LeafPrecision(error, float(cosine), float(norms[1]))


def _about(digits):
    count = max(1, round(digits))
    return f"about {count} digit{'s' if count > 1 else ''}"


def _describe(leaves):
    width = max(map(len, leaves))
    lines = [
        f"  {name:{width}}  error {leaf.error:.1e}, cosine {leaf.cosine:.4f}, norm "
        f"{leaf.norm:.3g}: {leaf.verdict}"
        for name, leaf in leaves.items()
    ]
    digits = min(leaf.digits for leaf in leaves.values())
    if digits >= PRECISE:
        return "\n".join(["The hypergradient is precise.", *lines])
    if digits >= TRUSTED:
        head = f"The hypergradient holds {_about(digits)}, compared with float64. {REMEDIES}"
    else:
        head = f"The hypergradient is NOT TO BE TRUSTED: float64 gives another. {REMEDIES}"
    return "\n".join([head, *lines])

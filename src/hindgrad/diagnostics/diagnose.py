"""Is a hypergradient meaningful? Three witnesses are heard."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from hindgrad import trees
from hindgrad.adjoints import Adjoint
from hindgrad.arguments import Key, as_keys, floats_and_rest
from hindgrad.diagnostics.check import slope
from hindgrad.diagnostics.edge import find_edge
from hindgrad.diagnostics.foresight import Foresight
from hindgrad.diagnostics.growth import Growth, course
from hindgrad.diagnostics.metasmoothness import metasmoothness
from hindgrad.diagnostics.say import say
from hindgrad.objective import Objective, RunScore
from hindgrad.target import as_target, value_of

ROUGH = 0.5
"""A metasmoothness below this speaks of chaos. Smooth networks have .99 (tanh) or .6 and more
(ReLU), chaotic ones .4 and less."""
MISLEADING = 0.5
"""A hypergradient that is off by more than this share of the slope is misleading."""
REMEDY = (
    "lower the rates, clip the training's own gradients, truncate (hg.Truncated), or use the "
    "smoothed gradient (hg.Evolution, hg.PersistentEvolution)"
)


class Diagnosis(NamedTuple):
    """What `diagnose` found."""

    foresight: Foresight
    """Whether a step does what the hypergradient says."""
    growth: Growth | None
    """How far small changes grow along the run; of the runs at the step's beginning, middle and
    end the one where they grow most. None without an `Objective`."""
    metasmoothness: float | None
    """Of the trained parameters along the step (Engstrom et al. 2025); None without an
    `Objective`."""
    edge: float | None
    """How far along the given direction the hypergradient is meaningful; None if that was not
    asked for, or there is no edge."""
    message: str

    @property
    def against(self) -> list[str]:
        """Which witnesses speak against the hypergradient: "growth", "metasmoothness",
        "foresight"."""
        witnesses = {
            "growth": self.growth is None or not self.growth.magnifies,
            "metasmoothness": self.metasmoothness is None or self.metasmoothness >= ROUGH,
            "foresight": self.foresight.error <= MISLEADING,
        }
        return [name for name, fine in witnesses.items() if not fine]

    @property
    def ok(self) -> bool:
        """Whether the hypergradient is meaningful: at most one of three witnesses speaks against
        it (none, if there is only one)."""
        return len(self.against) < (1 if self.growth is None else 2)


def diagnose(
    objective: Callable[..., Any],
    hyper: PyTree,
    *,
    key: Key | None = None,
    along: PyTree | None = None,
    step: float = 0.05,
    reach: float | None = None,
    adjoint: Adjoint | None = None,
) -> Diagnosis:
    """Tells whether a hypergradient is meaningful; prints it in words.

        hg.diagnose(objective, hyper)
        hg.diagnose(objective, {"log_rate": 0.0}, along={"log_rate": 1.0}, reach=3.0)

    Beyond some learning rate, training is chaotic: the hypergradient is still exact, but says
    nothing about what a step along it would do (Maclaurin et al. 2015, section 4). Three witnesses
    are heard: whether small changes grow along the run (its finite-time Lyapunov exponent),
    whether the trained parameters move on smoothly (metasmoothness, Engstrom et al. 2025), and
    whether a step of the size that a tuner takes changes the objective as foretold. It is
    meaningful unless two of them say otherwise. Costs three runs with a tangent, and one
    hypergradient.

    **Arguments:**

    - `objective`: an `Objective`, or a function of `hyper` (of `(hyper, key)` if a key is given),
      of which only the third witness can tell.
    - `hyper`: where to look.
    - `key`: the run's randomness, the same throughout.
    - `along`: the direction of the step, a pytree like `hyper` with a number (or an array) in place
      of each float, and anything in place of other leaves; against the hypergradient, scaled so
      that its largest element is 1, unless given.
    - `step`: how far along it a tuner would go (above 0).
    - `reach`: looks for the edge too: the farthest place along `along` up to which the
      hypergradient is meaningful, between 0 and `reach`. Up to about 20 times the cost.
    - `adjoint`: how the hypergradient is computed, for an `Objective`.

    Raises `ValueError` if there is nothing to change, if `step` or `reach` is not above 0, or if
    `along` does not fit, is zero, or is missing beside `reach`.
    """
    tuned, fixed = floats_and_rest("diagnose", hyper)
    if not 0 < step < math.inf:
        raise ValueError(f"diagnose(step={step}): a finite number above 0 is needed.")
    if reach is not None and along is None:
        raise ValueError(f"diagnose(reach={reach}): give the direction to look along, along=….")
    if reach is not None and not 0 < reach < math.inf:
        raise ValueError(
            f"diagnose(reach={reach}): a finite number above 0 is needed. To look the other way, "
            "turn `along` round."
        )
    args = as_keys("diagnose", key)
    target, draw = as_target("diagnose", objective, adjoint), args[0] if args else None

    def find(tuned):
        found, _ = target.found(tuned, fixed, draw, None)
        return found.value, found.gradient

    def examine_at(place: float, direction: PyTree, found: Any = None) -> Diagnosis:
        at = _moved(tuned, direction, place)
        stride = jax.tree.map(lambda d: float(step) * d, direction)
        line = Line(lambda tuned: eqx.combine(tuned, fixed), at, stride)
        value = lambda at: value_of(target, at, fixed, draw)
        there, gradient = found or find(at)
        return examine(objective, line, there, gradient, draw, value=value)

    if along is None:
        found = find(tuned)
        result = examine_at(0.0, _downhill(found[1]), found)
    else:
        direction = _direction(along, tuned)
        result = examine_at(0.0, direction)
        if reach is not None:
            fails = lambda place: not examine_at(place, direction).ok
            edge = find_edge(fails, float(reach), finest=float(step))
            edge = None if edge is None else edge + float(step) / 2
            words = _edge_words(edge, tuned, direction, reach)
            result = result._replace(edge=edge, message=f"{result.message}\n{words}")
    say(result.message)
    return result


class Line(NamedTuple):
    """Where to look, and how far a step goes."""

    whole: Callable[[PyTree], PyTree]
    """From the floats to the hyperparameters."""
    at: PyTree
    """The floats."""
    stride: PyTree


def examine(
    objective: Callable[..., Any],
    line: Line,
    value_there: Any,
    gradient: PyTree,
    key: PRNGKeyArray | None,
    *,
    value: Callable[[PyTree], Any],
) -> Diagnosis:
    """The diagnosis on a line, by the objective and the hypergradient at its beginning; `value`
    gives the objective elsewhere, for a function that is no `Objective`."""
    foretold = slope(gradient, line.stride)
    points = [_moved(line.at, line.stride, share) for share in (0.0, 0.5, 1.0)]
    if not isinstance(objective, Objective) or isinstance(objective.score, RunScore):
        values = float(value_there), float(value(points[1])), float(value(points[2]))
        return _worded(Diagnosis(Foresight(foretold, values), None, None, None, ""))
    key = jax.random.key(0) if key is None else key
    first, second, third = (course(objective, line.whole(point), key) for point in points)
    begin, half, end = (float(c.value) for c in (first, second, third))
    growths = [Growth(np.asarray(c.growth)) for c in (first, second, third)]
    worst = max(growths, key=lambda g: np.nan_to_num(g.total, nan=np.inf))
    smoothness = float(metasmoothness(first.params, second.params, third.params))
    foresight = Foresight(foretold, (begin, half, end))
    return _worded(Diagnosis(foresight, worst, smoothness, None, ""))


def in_one_line(found: Diagnosis) -> str:
    """The verdict, and what each witness says."""
    said = [f"a step foretold {found.foresight.foretold:+.3g} does {found.foresight.happened:+.3g}"]
    if found.growth is not None:
        said.insert(0, f"metasmoothness {found.metasmoothness:.2f}")
        said.insert(0, f"growth {_factor(found.growth.total)}")
    return f"{verdict(found)[:-1]} ({', '.join(said)})."


def _worded(found: Diagnosis) -> Diagnosis:
    return found._replace(message="\n".join([verdict(found), *_reasons(found)]))


def verdict(found: Diagnosis) -> str:
    """The diagnosis in one sentence."""
    if not np.isfinite(found.foresight.values[0]):
        return f"The run diverges here: {REMEDY}."
    if found.growth is None:
        if found.ok:
            return "The hypergradient is meaningful here: a step does what it says."
        return f"The hypergradient is misleading here: a step does not do what it says; {REMEDY}."
    if found.ok and found.against:
        return f"Doubtful: {found.against[0]} speaks against the hypergradient here, no more."
    if found.ok:
        return "Smooth: the hypergradient is meaningful here."
    onset = found.growth.onset
    where = "" if onset is None else f" from step {onset} on"
    return f"Chaotic{where}: the hypergradient is not to be trusted here; {REMEDY}."


def _reasons(found: Diagnosis) -> list[str]:
    lines = []
    if found.growth is not None:
        total, exponent = found.growth.total, found.growth.exponent
        lines.append(
            f"  growth {_factor(total)} (small changes are magnified if above 1; "
            f"{exponent:+.3g} nats per step)"
        )
        lines.append(
            f"  metasmoothness {found.metasmoothness:.2f}: 1 is smooth, below {ROUGH:g} is rough"
        )
    else:
        lines.append(
            "  (growth and metasmoothness need an Objective whose score is a function of the "
            "parameters)"
        )
    lines.append(
        f"  foresight: the hypergradient foretells {found.foresight.foretold:+.3g} for the step, "
        f"finite differences {found.foresight.happened:+.3g}"
    )
    return lines


def _factor(total: float) -> str:
    if not np.isfinite(total):
        return "beyond all bounds"
    return f"{math.exp(total):.2g}" if total < 100 else f"1e{total / math.log(10):.0f}"


def _edge_words(edge, tuned, direction, reach):
    if edge is None:
        return f"No edge: the hypergradient is meaningful up to {reach:g} along the direction."
    moving = [
        (jax.tree_util.keystr(path, simple=True, separator="."), x.item() + edge * d.item())
        for (path, x), d in zip(
            jax.tree.leaves_with_path(tuned), jax.tree.leaves(direction), strict=True
        )
        if x.size == 1 and d.item() != 0
    ]
    everything = sum(bool(jnp.any(d != 0)) for d in jax.tree.leaves(direction))
    place = f"{edge:.3g} along the direction"
    if len(moving) == everything == 1:
        place = f"{moving[0][0] or 'hyper'} = {moving[0][1]:.3g}"
    return f"The edge: the hypergradient is not to be trusted beyond {place}; there, {REMEDY}."


def _moved(tuned, direction, share):
    return jax.tree.map(lambda x, d: x + share * d, tuned, direction)


def _downhill(gradient: PyTree) -> PyTree:
    """Against the gradient, the largest element of size 1; if it is not finite, along all."""
    leaves = jax.tree.leaves(gradient)
    largest = max(float(jnp.max(jnp.abs(g))) for g in leaves if g.size)
    if not np.isfinite(largest):
        return jax.tree.map(jnp.ones_like, gradient)
    return jax.tree.map(lambda g: -jnp.conj(g) / (largest or 1.0), gradient)


def _direction(along: PyTree, tuned: PyTree) -> PyTree:
    """`along` with the shapes and dtypes of the hyperparameters' floats."""

    def fit(x, d):
        return None if x is None else jnp.broadcast_to(jnp.asarray(d, x.dtype), x.shape)

    try:
        direction = jax.tree.map(fit, tuned, along, is_leaf=lambda x: x is None)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "diagnose(along=…) has not the structure or shapes of hyper. Give a number (or "
            "an array of its shape) for each float of hyper, and anything for its other leaves."
        ) from error
    if not trees.finite(direction) or not any(map(jnp.any, jax.tree.leaves(direction))):
        raise ValueError("diagnose(along=…): finite numbers are needed, not all of them 0.")
    return direction

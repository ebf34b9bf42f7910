"""What `Attribution.certify` found, and what it says in words."""

from typing import NamedTuple

import numpy as np

from hindgrad.diagnostics.diagnose import ROUGH
from hindgrad.diagnostics.precision import TRUSTED, LeafPrecision

BEYOND = 2.0
"""Changes so many times as large as foretold, or as small, are no longer of first order."""
NOTHING = 0.1
"""Changes of a smaller part of what was foretold, or the other way, were not foretold at all."""
FAINT = 100.0
"""Changes of fewer units in the last place than this are half rounding."""
SHOWN = 8
"""So many queries are named."""


class Removal(NamedTuple):
    """What a query does without the examples that its scores say matter most."""

    before: float
    """The query as it is."""
    after: float
    """Without those whose removal is foretold to raise it most."""
    foretold: float
    """What the scores say that it would be then."""
    random: float
    """Without as many at random: the mean over the runs, and"""
    spread: float
    """their standard deviation."""
    highest: float
    """The highest of them, those without the very same examples aside."""

    @property
    def beats_random(self) -> bool:
        """Whether it is higher than in every one of the random removals."""
        return self.after > self.highest


class Certificate(NamedTuple):
    """How far an attribution foretells what retraining does."""

    bar: float
    """The linear datamodelling score that was asked for."""
    runs: int
    """How many retrainings it rests on."""
    dropped: int
    """How many examples each of them did without."""
    examples: int
    """Of so many, the length of"""
    name: str
    """the leaf of their weights."""
    lds: dict[int, float]
    """The linear datamodelling score of each query that changes, by its number: Spearman's
    correlation, over the retrainings, of what the scores foretell with what happens."""
    interval: tuple[float, float] | None
    """The 95 % bootstrap interval of their mean, over the retrainings; None if no query changes."""
    unmoved: list[int]
    """The queries that no removal changes beyond rounding: of these nothing can be said."""
    unscored: list[int]
    """Those of them that examples matter to, but none of those that were removed."""
    ratio: float | None
    """How many times as large as foretold the changes are: the median over the queries of the slope
    of one on the other."""
    faintness: float | None
    """The changes (standard deviation) of the query that changes least, in units in its last
    place."""
    top: dict[int, Removal]
    """What removing the examples that matter most does to each query, by its number."""
    diverged: int
    """How many retrainings ended without finite queries; they are left out."""
    metasmoothness: float
    """Of the trained parameters towards removals (Engstrom et al. 2025), the mean of some: 1 is
    smooth, about 0 rough."""
    precision: LeafPrecision | None
    """How the scores compare with those of the same program in float64; None if it cannot be
    evaluated so."""
    message: str = ""

    def __repr__(self) -> str:
        lds = "" if self.mean is None else f", LDS {self.mean:.3f}"
        return f"<Certificate: {self.verdict}{lds}, {self.runs} runs>"

    @property
    def mean(self) -> float | None:
        """The mean linear datamodelling score; None if no query changes."""
        return float(np.mean(list(self.lds.values()))) if self.lds else None

    @property
    def verdict(self) -> str:
        """ "certified" if the whole interval reaches the bar and nothing diverged, "undecided" if
        the mean does and the interval does not, else "not to be trusted"."""
        if self.mean is None or self.interval is None or self.mean < self.bar or self.diverged:
            return "not to be trusted"
        return "certified" if self.interval[0] >= self.bar else "undecided"

    @property
    def ok(self) -> bool:
        """Whether the scores are certified."""
        return self.verdict == "certified"

    @property
    def reasons(self) -> list[str]:
        """What speaks against the scores, and what helps."""
        found = [*self._of_queries(), *self._of_training()]
        if self.verdict == "not to be trusted" and not found:
            found.append(
                "No single cause shows: remove fewer at a time, lower the rates, or take a smaller "
                "model."
            )
        if self.verdict == "undecided":
            found.append(f"{self.runs} retrainings do not decide: give more runs.")
        return found

    def _of_queries(self):
        if self.unscored:
            yield (
                f"{_queries(self.unscored)} not change, as the scores say: nothing that was "
                "removed was trained on. Drop more, or give more runs."
            )
        if dead := [query for query in self.unmoved if query not in self.unscored]:
            yield (
                f"{_queries(dead)} not change at all, whatever is removed: the network is "
                "saturated or dead there, or a loss is rounded to 0. Lower the rates, or ask for a "
                "margin or a logit in place of a loss."
            )
        if self.faintness is not None and self.faintness < FAINT:
            yield (
                f"A query changes by {self.faintness:.0f} units in the last place only: compute "
                "it in float64, or ask for a margin in place of a loss."
            )

    def _of_training(self):
        if self.diverged:
            yield (
                f"{self.diverged} of the retrainings diverge, or end without finite queries: lower "
                "the rates; or the loss divides by the weights of its batch, which may all be 0: "
                "divide by its size."
            )
        chaotic = self.metasmoothness < ROUGH
        if chaotic:
            yield (
                f"Training is chaotic (metasmoothness {self.metasmoothness:.2f}, below {ROUGH:g}): "
                "lower the rates, train fewer steps or on larger batches, take a larger eps in "
                "Adam, a smaller model or a smoother activation. hg.Evolution estimates the slope "
                "over a neighbourhood instead, of one query at a time."
            )
        if self.precision is not None and self.precision.digits < TRUSTED:
            yield (
                f"The scores are rounding (off by {self.precision.error:.1g} of float64): take a "
                "larger eps in Adam, other initial weights, or float64."
            )
        elif chaotic or self.ratio is None or 1 / BEYOND <= self.ratio <= BEYOND:
            return
        elif self.ratio < NOTHING and self.verdict == "not to be trusted":
            yield (
                "The scores foretell nothing of what happens: the slope that they are is not that "
                "of the changes. Lower the rates, train fewer steps, or remove fewer at a time; or "
                "the adjoint saw a part of the run only (Truncated)."
            )
        else:
            yield (
                f"Changes are {self.ratio:.2g} times as large as foretold, beyond the first order: "
                "remove fewer at a time, train fewer steps (what is memorised hangs on few rows), "
                "or lower the rates; or the adjoint saw a part of the run only (Truncated)."
            )


def described(found: Certificate) -> str:
    """A certificate in words."""
    heads = {
        "certified": "CERTIFIED: the scores foretell what retraining does.",
        "undecided": "UNDECIDED: the scores may foretell what retraining does.",
        "not to be trusted": "These scores are NOT TO BE TRUSTED.",
    }
    lines = [heads[found.verdict]]
    if found.unmoved and found.lds:
        whole = len(found.unmoved) + len(found.lds)
        lines[0] += f" (Of {_of(len(found.lds), whole)} queries: the others do not change.)"
    if found.interval is not None:
        low, high = found.interval
        worst = min(found.lds, key=found.lds.__getitem__)
        lines.append(
            f"  LDS {found.mean:.3f} [{low:.3f}, {high:.3f}] over {len(found.lds)} queries, the "
            f"worst {found.lds[worst]:.3f} (query {worst}); asked for {found.bar:g}"
        )
    lines.append(
        f"  {found.runs} retrainings without {_of(found.dropped, found.examples)} examples "
        f"({found.name}), in the same order of steps"
    )
    if found.top:
        beaten = sum(removal.beats_random for removal in found.top.values())
        rises = [np.mean([f(r) for r in found.top.values()]) for f in (_by_top, _by_random)]
        lines.append(
            f"  without the top {found.dropped} a query changes by {rises[0]:+.3g}, without as "
            f"many at random by {rises[1]:+.3g} (means); by more than any random one for "
            f"{_of(beaten, len(found.top))}"
        )
    digits = "not measured" if found.precision is None else found.precision.verdict
    error = "" if found.precision is None else f" (error {found.precision.error:.1e} of float64)"
    lines.append(f"  metasmoothness {found.metasmoothness:.2f}; precision: {digits}{error}")
    return "\n".join([*lines, *(f"  {reason}" for reason in found.reasons)])


def _by_top(removal):
    return removal.after - removal.before


def _by_random(removal):
    return removal.random - removal.before


def _of(count, whole):
    return f"{count} of {whole}"


def _queries(numbers):
    shown = ", ".join(map(str, numbers[:SHOWN]))
    if len(numbers) == 1:
        return f"Query {shown} does"
    return f"{len(numbers)} queries ({shown}{', …' if len(numbers) > SHOWN else ''}) do"

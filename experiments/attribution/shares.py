"""Ways to tell what rows are worth, judged for several shares of wrong labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.attribution.rows import Draw, Sizes
from experiments.runner import Results
from hindgrad.progress import Bar as Line


@dataclass(frozen=True)
class Shares(Sizes):
    """Sizes, and"""

    flipped: tuple[float, ...]
    """the shares of training labels turned into another class; each is a condition."""
    judges: int
    """Trainings that judge each answer."""


def each(settings: Shares, one_seed: Callable[[float, int], list[dict[str, Any]]]) -> Results:
    """What is found for every share and seed."""
    pairs = [(flipped, seed) for flipped in settings.flipped for seed in settings.each_seed()]
    return {"found": [one for pair in pairs for one in one_seed(*pair)]}


def in_turn(
    ways: Mapping[str, Callable[[], dict[str, float]]],
    about: dict[str, Any],
    kept: Any,
    line: Line,
) -> list[dict[str, Any]]:
    """How each way of one seed and share does, a piece for each; `about` is said of them all."""
    found = []
    for place, (name, way) in enumerate(ways.items()):
        one = kept(f"seed-{about['seed']}/{place}-{about['share']}", way)
        found.append({"way": name, **about, **one})
        line.done(1)
    return found


def redrawn(rows: Draw) -> float:
    """The size of the test part in that of the others, from which it was drawn with them."""
    return len(rows.test) / (len(rows.train) + len(rows.valid))

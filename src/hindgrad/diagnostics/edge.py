"""Where along a line does something begin to fail?"""

from collections.abc import Callable

PROBES = 20
"""Places that are looked at along the whole line, at most, before the edge is looked at closer."""
HALVINGS = 3
"""How often the stretch that holds the edge is then halved."""


def find_edge(fails: Callable[[float], bool], reach: float, finest: float) -> float | None:
    """The first place between 0 and `reach` from which on `fails(place)`; None if there is none.

    Beyond the edge it may hold again here and there, and far beyond (where a network is dead, say)
    for good. So the line is gone along from 0, to the first place that fails together with one of
    the two after it; the stretch before that is halved. Places are at least `finest` apart, but
    for the halving.
    """
    count = max(1, min(PROBES, int(abs(reach) / finest)))
    places = [reach * i / count for i in range(count + 1)]
    known: dict[int, bool] = {}

    def failed(i):
        if i not in known:
            known[i] = fails(places[i])
        return known[i]

    for i in range(len(places)):
        later = range(i + 1, min(i + 3, len(places)))
        if failed(i) and (not later or any(map(failed, later))):
            break
    else:
        return None
    if i == 0:
        return 0.0
    good, bad = places[i - 1], places[i]
    for _ in range(HALVINGS):
        middle = (good + bad) / 2
        good, bad = (good, middle) if fails(middle) else (middle, bad)
    return (good + bad) / 2

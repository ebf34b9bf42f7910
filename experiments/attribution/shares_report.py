"""The table of what rows are worth, for several shares of wrong labels."""

from collections.abc import Callable, Sequence

from experiments import reporting
from experiments.reporting import different, picked
from experiments.runner import Results


def rows(
    results: Results, ways: Sequence[str], last: Callable[[float, str], str]
) -> list[tuple[str, ...]]:
    """For each share and way the test loss and error, and what `last` says of them."""
    percent = lambda values: reporting.mean_sd([100 * value for value in values], 2)
    return [
        (
            f"{100 * share:g} %",
            way,
            reporting.mean_sd(picked(results["found"], "loss", share=share, way=way), 4),
            percent(picked(results["found"], "error", share=share, way=way)),
            last(share, way),
        )
        for share in different(results["found"], "share")
        for way in ways
    ]

"""What of a table's numbers a network takes: as they are, or bent beside that."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from jaxtyping import PRNGKeyArray

from hindgrad.apps.model import Hyper, Network, Problem
from hindgrad.apps.table import Table
from hindgrad.apps.tune.trials import mean_valid_loss
from hindgrad.apps.tune.tuning import DRAWS


def bending(network: Network, table: Table) -> Network:
    """The network that also takes the table's numbers bent."""
    return replace(network, sizes=(table.inputs, *network.sizes[1:]), bent=table.bendable)


def choosing(table: Table) -> int:
    """How many trainings `suited` takes on as many draws as a choice is made by."""
    return 2 * DRAWS if table.bendable else 0


def suited(
    network: Network,
    table: Table,
    hyper: Hyper,
    draws: Sequence[PRNGKeyArray],
    problem: Callable[[Network], Problem],
) -> Network:
    """The network with the inputs with which it validates better before it is tuned; `problem`
    makes that of a network.

    Ranks and waves help where a quantity changes quickly or has outliers, and hurt where there are
    few rows: no rule tells which it is.
    """
    if not table.bendable:
        return network
    ways = network, bending(network, table)
    losses = [mean_valid_loss(problem(way), hyper, draws) for way in ways]
    return ways[losses[1] < losses[0]]

"""Who judges the labels of a table, networks or a random forest or both, and how many are wrong."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import average_precision_score

from hindgrad.apps.clean.suspicion import Cleaning, folds, opinion
from hindgrad.cores import cores

PLANTED = 0.1
"""The share of the labels that are made wrong to see who finds them."""

FEWEST = 30
"""So many are made wrong at least, if there are twice as many."""

TREE_ROWS = 20_000
"""A tree grows from so many rows at most, drawn anew for each."""

PROBABLE = np.linspace(0.2, 0.9, 15)
"""The shares of the planted labels by which wrong labels are counted."""

BOTH = "networks and a random forest"
SHARES = {BOTH: 0.5, "networks": 0.0, "a random forest": 1.0}
"""What a random forest's opinion counts for, by the name of who judges."""

BETTER = 0.05
"""By so much one alone must be better than both, which are seldom much worse."""


class Outside(NamedTuple):
    """What others say of each row, which have not trained on it; [rows, classes]."""

    networks: Float[np.ndarray, "rows classes"]
    forest: Float[np.ndarray, "rows classes"]

    def of(self, judge: str) -> Float[np.ndarray, "rows classes"]:
        """The probabilities that a judge gives."""
        share = SHARES[judge]
        return (1 - share) * self.networks + share * self.forest


@dataclass(frozen=True)
class Evidence:
    """What planting wrong labels has shown."""

    judge: str
    """Who found them best."""
    precision: dict[str, float]
    """How well each did: the average precision of the planted labels' ranking."""
    wrong: int
    """How many of the labels as they are seem wrong."""


def outside(problem: Cleaning, key: jax.Array) -> Outside:
    """The opinions of networks and of a random forest trained on other folds."""
    networks, trees = jax.random.split(key)
    return Outside(opinion(problem, np.ones(len(problem.y)), networks, 1), forest(problem, trees))


def forest(problem: Cleaning, key: jax.Array) -> Float[np.ndarray, "rows classes"]:
    """The probabilities that random forests give to the classes of rows in folds that they have
    not trained on."""
    x, y = np.asarray(problem.x), np.asarray(problem.y)
    found = np.zeros((len(y), problem.learner.sizes[-1]))
    for number, rows in enumerate(folds(problem, key)):
        inside = np.setdiff1d(np.arange(len(y)), rows)
        seed = int(jax.random.randint(jax.random.fold_in(key, number), (), 0, 2**31 - 1))
        most = TREE_ROWS if len(inside) > TREE_ROWS else None
        trees = RandomForestClassifier(random_state=seed, n_jobs=cores(), max_samples=most)
        trees.fit(x[inside], y[inside])
        found[np.ix_(rows, trees.classes_)] = trees.predict_proba(x[rows])
    return found


def planted(
    problem: Cleaning, count: int, key: jax.Array
) -> tuple[Cleaning, Bool[np.ndarray, " rows"]]:
    """The same rows, so many of those not trusted with another class, and which these are."""
    rng = np.random.default_rng(jax.random.key_data(key).tolist())
    y, classes = np.array(problem.y), problem.learner.sizes[-1]
    doubted = np.flatnonzero(~np.asarray(problem.trusted))
    chosen = rng.permutation(doubted)[:count]
    y[chosen] = (y[chosen] + rng.integers(1, classes, len(chosen))) % classes
    mask = np.zeros(len(y), bool)
    mask[chosen] = True
    return problem.labelled(jnp.asarray(y)), mask


def evidence(problem: Cleaning, given: Outside, key: jax.Array) -> Evidence:
    """Who judges, and how many labels are wrong, from what was said of the labels as they are and
    what is said of a copy with some made wrong.

    Wrong labels change what others think of the right ones. Where far fewer seem wrong than were
    planted, they are counted again with as many planted.
    """
    doubted = int(np.sum(~np.asarray(problem.trusted)))
    least = min(FEWEST, doubted // 2)
    if not least:
        return Evidence(BOTH, {}, 0)
    found = _evidence(problem, given, max(least, round(PLANTED * doubted)), key)
    if found.wrong < PLANTED * doubted / 2:
        again = max(least, found.wrong)
        found = _evidence(problem, given, again, jax.random.fold_in(key, 1))
    return found


def _evidence(problem: Cleaning, given: Outside, count: int, key: jax.Array) -> Evidence:
    draw, asked = jax.random.split(key)
    other, mask = planted(problem, count, draw)
    said = outside(other, asked)
    doubted = ~np.asarray(problem.trusted)
    precision, wrong = {}, {}
    for judge in SHARES:
        own = own_label(given.of(judge), np.asarray(problem.y))
        copied = own_label(said.of(judge), np.asarray(other.y))
        precision[judge] = float(average_precision_score(mask[doubted], -copied[doubted]))
        share = share_of_wrong(own[doubted], copied[mask], problem.learner.sizes[-1])
        wrong[judge] = round(share * int(doubted.sum()))
    judge = max(SHARES, key=lambda name: precision[name] + (BETTER if name == BOTH else 0.0))
    return Evidence(judge, precision, wrong[judge])


def own_label(
    probabilities: Float[np.ndarray, "rows classes"], y: Int[np.ndarray, " rows"]
) -> Float[np.ndarray, " rows"]:
    """The probability of each row's own label."""
    return probabilities[np.arange(len(y)), y]


def share_of_wrong(
    own: Float[np.ndarray, " rows"], planted: Float[np.ndarray, " planted"], classes: int
) -> float:
    """The share of wrong labels among rows, by the confidence in their labels and in those of
    planted ones.

    Of a mixture of right and wrong labels, at most `F(c)/F_wrong(c)` are wrong, for each
    confidence c: `F` is the share of the rows with no more confidence, `F_wrong` that of the wrong
    ones. Where no right label has so little confidence it is their share (the proportion of a
    mixture; Blanchard, Lee & Scott 2010). Planted labels stand for the wrong ones; where a row was
    wrong before, one change of `classes − 1` makes it right.
    """
    limits = np.quantile(planted, PROBABLE)
    share = lambda values: np.searchsorted(np.sort(values), limits, side="right") / len(values)
    ratio = float(np.min(share(own) / share(planted)))
    return min(1.0, ratio / (1 + ratio / (classes - 1)))

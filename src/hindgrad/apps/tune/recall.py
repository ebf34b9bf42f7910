"""How well each class is found, where some are rare: an error rate hides a class that is missed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

IMBALANCED = 0.5
"""A class is rare if it has less than this part of the rows of a mean class."""

SHOWN = 8
"""Of more classes, only the rarest are shown."""

Recalls = tuple[dict[str, list[float]], list[str]]


def of(results: Mapping[str, Any], arms: Sequence[str]) -> Recalls | None:
    """The mean recalls of these arms and of all rivals, and the names of the classes, the rarest
    first; None where no class is rare."""
    runs, data = results["runs"], results["data"]
    counts = np.asarray(data["counts"])
    if not len(counts) or counts.min() >= IMBALANCED * counts.mean():
        return None
    shown = np.argsort(counts, kind="stable")[:SHOWN]
    every = {name: [run["arms"][name] for run in runs] for name in arms}
    every |= {name: [run["rivals"][name] for run in runs] for name in runs[0]["rivals"]}
    trained = {name: [one for one in found if one["recall"]] for name, found in every.items()}
    recalls = {n: _means(found)[shown].tolist() for n, found in trained.items() if found}
    return recalls, [data["classes"][i] for i in shown]


def _means(found):
    """Over the runs in which a class is tested; NaN if there is none."""
    values = np.array([one["recall"] for one in found], float)
    tested = np.isfinite(values)
    sums, counts = np.where(tested, values, 0).sum(axis=0), tested.sum(axis=0)
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)

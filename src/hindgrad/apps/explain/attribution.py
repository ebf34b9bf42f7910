"""What each asked prediction owes to the rows, labels and settings of the training, in numbers; and
whether retraining bears it out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

import hindgrad as hg
from hindgrad.apps.explain.causes import Trained, outputs_over_time
from hindgrad.apps.settings import ArgumentError
from hindgrad.attribution import certify, leaf
from hindgrad.attribution.attribute import NotFiniteError, NothingMattersError
from hindgrad.attribution.certificate import Certificate
from hindgrad.files import read_arrays, write_arrays

ADJOINT = hg.Checkpointed()

FAR = 3.0
"""Labels of a quantity look wrong so many standard deviations from what the network learns."""


@dataclass(frozen=True)
class Found:
    """What was found, of [queries] and training [rows]."""

    values: np.ndarray
    """What is asked: losses, or standardised answers, [queries]."""
    removed: np.ndarray
    """How each changes if a row is left out, [queries, rows], to first order."""
    suspicious: np.ndarray
    """Which rows have a label that the network, over its training, did not find the likeliest; of a
    quantity, those far from its answers: [rows]."""
    likelier: np.ndarray
    """The class or the (standardised) value that it found likelier, [rows]."""
    relabelled: np.ndarray
    """How what is asked changes if a row has that label, [queries, rows]."""
    rate: np.ndarray
    """How it changes if the rate of a layer at a step doubled, to first order, [queries, steps,
    layers];"""
    memory: np.ndarray
    """if the momentum reached back twice as far,"""
    weight_decay: np.ndarray
    """if the weight decay doubled, and"""
    scale: np.ndarray
    """if the initial weights were e times as large: [queries, layers]."""
    times: np.ndarray
    """Steps, and"""
    outputs: np.ndarray
    """what the network gave for the queries after them, [times, queries, outputs]."""

    def save(self, path: Path) -> None:
        """Writes all arrays."""
        write_arrays(path, vars(self))

    @classmethod
    def load(cls, path: Path) -> "Found":
        """The inverse of `save`."""
        return cls(**read_arrays(path)[0])


def explained(trained: Trained, key: PRNGKeyArray) -> Found:
    """Follows all queries back through the training.

    Raises `ArgumentError` if that cannot be done, or there is nothing to be found.
    """
    causes = trained.causes()
    try:
        found = hg.attribute(
            trained.objective,
            causes,
            trained.queries,
            examples=_weight,
            key=key,
            adjoint=ADJOINT,
        )
    except NothingMattersError as error:
        raise ArgumentError(
            "no training row matters to any of these predictions (all scores are zero): the "
            "network learns nothing, since its rates are next to zero or it is saturated. Leave "
            "--from out, or give the folder of a tuning whose network learns."
        ) from error
    except NotFiniteError as error:
        raise ArgumentError(diverges()) from error
    scores = jax.tree.map(np.asarray, found.scores)
    many = len(trained.asked.x)
    x = jnp.concatenate([trained.asked.x, trained.problem.pool.x])
    times, outputs = map(np.asarray, outputs_over_time(trained, x, key))
    suspicious, likelier, relabelled = _labels(trained, scores["label"], outputs[:, many:])
    return Found(
        np.asarray(found.values, np.float64),
        found.removed,
        suspicious,
        likelier,
        relabelled,
        scores["rate"],
        scores["memory"],
        scores["weight_decay"],
        scores["scale"],
        times,
        outputs[:, :many],
    )


def certified(
    trained: Trained,
    found: Found,
    key: PRNGKeyArray,
    *,
    runs: int,
    without: float,
    shown: bool | None,
) -> Certificate:
    """Trains again without random rows, and compares."""
    causes = trained.causes()
    of = certify.Attributed(
        objective=trained.objective,
        hyper=causes,
        key=key,
        adjoint=ADJOINT,
        examples=leaf.found("explain", _weight, causes),
        scores=-found.removed,
        removed=found.removed,
    )
    asked = certify.Asked(runs, without, BAR, jax.random.key(0), None, shown)
    return certify.certified(of, asked)


BAR = 0.9
"""The rank correlation that is asked for."""


def diverges() -> str:
    """What to do about a training that ends in nothing, or in chaos."""
    return (
        "training diverges or is chaotic with these settings, so that nothing can be said of its "
        "causes. Tune it first (hindgrad tune), and give its folder by --from; or give fewer "
        "--steps, or a smaller network by --hidden."
    )


def _weight(causes: Any) -> Any:
    return causes["weight"]


def _labels(
    trained: Trained, slopes: np.ndarray, outputs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which labels are suspicious, what is likelier, and what that would change: by what the
    network gave for the rows it was trained on, in the mean over the training (Pleiss et al. 2020,
    arXiv 2001.10528)."""
    y = np.asarray(trained.problem.pool.y)
    if trained.network.kind == "classification":
        likelier = np.asarray(jax.nn.softmax(outputs[1:], axis=-1)).mean(0).argmax(-1)
        rows = np.arange(len(y))
        change = slopes[:, rows, likelier] - slopes[:, rows, y]
        return likelier != y, likelier.astype(np.int32), change.astype(np.float64)
    likelier = outputs[len(outputs) // 2 :, :, 0].mean(0)
    apart = likelier - y
    spread = 1.4826 * np.median(np.abs(apart - np.median(apart)))
    change = slopes * apart[None]
    return np.abs(apart) > FAR * spread, likelier, change.astype(np.float64)

"""The model that is kept: what the table recommends, trained again on all rows but those to test
on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from hindgrad.apps.model import Hyper, Problem, Standard
from hindgrad.apps.saved import Model, network_of
from hindgrad.apps.splits import Whole
from hindgrad.apps.table import Table
from hindgrad.apps.tune.trials import Trial, trials
from hindgrad.apps.work import finite

TRIES = 3
"""Trainings of which the one that fits its rows best is kept: one may diverge."""


def refit(problem: Problem, hyper: Hyper, key: PRNGKeyArray) -> Trial:
    """Trains on the rows to train on and those to validate on."""
    return refit_with_key(problem, hyper, key)[0]


def refit_with_key(problem: Problem, hyper: Hyper, key: PRNGKeyArray) -> tuple[Trial, PRNGKeyArray]:
    """The same, with the key of the training that is kept."""
    whole = replace(problem, division=Whole.of(len(problem.pool.y)))
    keys = list(jax.random.split(key, TRIES))
    tried = trials(whole, [hyper] * TRIES, keys)
    return min(zip(tried, keys, strict=True), key=lambda pair: pair[0].valid_loss)


def key_of(seed: int) -> PRNGKeyArray:
    """The randomness of the model that is kept of a seed."""
    return jax.random.fold_in(jax.random.key(seed), 4)


def model_of(table: Table, standard: Standard, trial: Trial, about: dict[str, Any]) -> Model:
    """A trained network with all that is needed to use it on raw rows."""
    return Model(
        standard.columns,
        np.asarray(standard.mean, np.float64),
        np.asarray(standard.std, np.float64),
        network_of(trial.params),
        table.label,
        table.classes,
        standard.target_mean,
        standard.target_std,
        about,
    )


def keep(
    folder: Path, table: Table, problem: Problem, standard: Standard, hyper: Hyper, **about: Any
) -> dict[str, Any]:
    """Trains the model and writes it into a folder.

    Returns where it comes from, `about`, and how it does on the rows to test on.
    """
    trial = refit(problem, hyper, key_of(about["seed"]))
    told = {
        **about,
        "rows": len(problem.pool.y),
        "test_rows": len(problem.test.y),
        "test_loss": finite(trial.metrics.test_loss),
        "test_error": finite(trial.metrics.test_error),
        "notes": list(table.notes),
    }
    model_of(table, standard, trial, told).save(folder)
    return told

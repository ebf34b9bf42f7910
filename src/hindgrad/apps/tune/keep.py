"""The model that is kept: what the table recommends, trained again on all rows but those to test
on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from hindgrad.apps.model import Hyper, Problem, Rows, Standard, predict
from hindgrad.apps.saved import Model, mean_answer, network_of
from hindgrad.apps.splits import Fixed, Whole
from hindgrad.apps.table import Table
from hindgrad.apps.tune.trials import Trial, trials
from hindgrad.apps.work import finite

TRIES = 4
"""Trainings whose networks are kept, if they fit their rows: one may diverge."""

WORSE = 2.0
"""A network whose loss is so many times that of the best is left out, with"""
LITTLE = 0.1
"""so much granted."""


LONGER = 3
"""How many times as long the networks that are kept may train."""

SURER = 1.1
"""How many times the loss may be if the error is lower: answers are surer after more steps, and
the wrong ones too."""

SPLITS = 2
"""Draws of rows to validate on by which that is decided."""


def keeping(steps: int | None) -> int:
    """How many trainings it takes to keep a model, each counted by how long it is; `steps` is None
    if they may be longer."""
    return TRIES if steps else TRIES * (SPLITS * (1 + LONGER) + LONGER)


def lasting(problem: Problem, hyper: Hyper, key: PRNGKeyArray) -> Problem:
    """The problem with the training steps that suit the mean of several networks: those that it
    has, or three times as many, with the schedules stretched, if the mean errs less then.
    (One network's loss says otherwise: it grows surer, which the mean mends.)
    """
    steps = LONGER * problem.network.steps
    ways = problem, replace(problem, network=replace(problem.network, steps=steps))
    keys = jax.random.split(key, SPLITS)
    found = [np.mean([_validated(way, hyper, key) for key in keys], axis=0) for way in ways]
    (loss, error), (later_loss, later_error) = found
    return ways[bool(later_error < error and later_loss <= SURER * loss)]


def _validated(problem: Problem, hyper: Hyper, key: PRNGKeyArray) -> tuple[float, float]:
    """The loss and the error of several networks' mean answer on the rows to validate on of one
    draw."""
    rows, (train, valid) = problem.pool, problem.division.draw(key)
    fixed = replace(problem, division=Fixed(train, valid, len(rows.y)))
    kept = [trial for trial, _ in _tried(fixed, hyper, jax.random.fold_in(key, 1))]
    return of_all(problem, kept, Rows(rows.x[valid], rows.y[valid]))


def refits(problem: Problem, hyper: Hyper, key: PRNGKeyArray) -> list[Trial]:
    """Trains several times on the rows to train on and those to validate on; the networks that fit
    these, the best first. Their mean answers better than one of them."""
    return [trial for trial, _ in refits_with_keys(problem, hyper, key)]


def refits_with_keys(
    problem: Problem, hyper: Hyper, key: PRNGKeyArray
) -> list[tuple[Trial, PRNGKeyArray]]:
    """The same, with the keys of the trainings."""
    whole = replace(problem, division=Whole.of(len(problem.pool.y)))
    return _tried(whole, hyper, key)


def _tried(problem: Problem, hyper: Hyper, key: PRNGKeyArray) -> list[tuple[Trial, PRNGKeyArray]]:
    """Trainings that fit the rows to validate on, the best first."""
    keys = list(jax.random.split(key, TRIES))
    tried = zip(trials(problem, [hyper] * TRIES, keys), keys, strict=True)
    best, *others = sorted(tried, key=lambda pair: pair[0].valid_loss)
    most = WORSE * best[0].valid_loss + LITTLE
    return [best, *(pair for pair in others if pair[0].valid_loss <= most)]


def key_of(seed: int) -> PRNGKeyArray:
    """The randomness of the model that is kept of a seed."""
    return jax.random.fold_in(jax.random.key(seed), 4)


def model_of(
    table: Table, standard: Standard, kept: Sequence[Trial], about: dict[str, Any]
) -> Model:
    """Trained networks with all that is needed to use them on raw rows."""
    return Model(
        standard.columns,
        np.asarray(standard.mean, np.float64),
        np.asarray(standard.std, np.float64),
        tuple(network_of(trial.params) for trial in kept),
        table.label,
        table.classes,
        standard.target_mean,
        standard.target_std,
        about,
        standard.bends,
    )


def keep(
    folder: Path, table: Table, problem: Problem, standard: Standard, hyper: Hyper, **about: Any
) -> dict[str, Any]:
    """Trains the model and writes it into a folder.

    Returns where it comes from, `about`, and how it does on the rows to test on.
    """
    kept = refits(problem, hyper, key_of(about["seed"]))
    loss, error = of_all(problem, kept, problem.test)
    told = {
        **about,
        "networks": len(kept),
        "steps": problem.network.steps,
        "bent": bool(problem.network.bent),
        "rows": len(problem.pool.y),
        "test_rows": len(problem.test.y),
        "test_loss": finite(loss),
        "test_error": finite(error),
        "notes": list(table.notes),
    }
    model_of(table, standard, kept, told).save(folder)
    return told


def of_all(problem: Problem, kept: Sequence[Trial], rows: Rows) -> tuple[float, float]:
    """The loss and the error of the networks' mean answer on some rows."""
    y = np.asarray(rows.y)
    answers = mean_answer([np.asarray(predict(trial.params, rows.x), float) for trial in kept])
    if problem.network.kind == "regression":
        square = float(np.mean((answers[:, 0] - y) ** 2))
        return square, float(problem.target_scale) * square**0.5
    right = answers[np.arange(len(y)), y]
    return float(-right.mean()), float((answers.argmax(axis=1) != y).mean())

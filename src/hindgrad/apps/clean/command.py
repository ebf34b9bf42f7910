"""`hindgrad clean`: finds the rows whose labels are wrong."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from rich.console import Console

from hindgrad import cost
from hindgrad.apps.clean import outputs as clean_outputs
from hindgrad.apps.clean.settings import Clean
from hindgrad.apps.clean.suspicion import (
    DIVISIONS,
    FOLDS,
    Cleaning,
    Learner,
    cleaning,
    learn,
    opinion,
)
from hindgrad.apps.console import say
from hindgrad.apps.datasets import NAMES
from hindgrad.apps.model import CLIP, center_and_scale, weights
from hindgrad.apps.settings import ArgumentError, check_positions, check_room, identity
from hindgrad.apps.table import DataError, Table, check_classes, read_any, read_as_asked
from hindgrad.apps.work import Work
from hindgrad.progress import Bar
from hindgrad.tuning.tune import HELD_OUT_DRAWS


@dataclass(frozen=True)
class Rows:
    """A table's rows, and those of a trusted file after them."""

    x: np.ndarray
    """Features as a network takes them, [rows, features]."""
    y: np.ndarray
    trusted: np.ndarray
    """Which labels are known to be right."""


def run(settings: Clean, console: Console) -> None:
    """Runs the command: prints what was found, and where everything is."""
    work = Work.of(settings)
    table = read_as_asked(settings)
    check_classes(table, "clean")
    trusted = _trusted_file(settings, table)
    rows = _rows(settings, table, trusted)
    check_positions(settings.steps, _learner(settings, table).batch(len(rows.y)))
    call = identity(settings) | {"fingerprint": _fingerprint(table, trusted)}
    results = work.results(
        call,
        lambda: _results(settings, call, table, rows, work),
        lambda folder, results: clean_outputs.write(folder, results, table, settings.data),
        report=partial(say, console),
    )
    clean_outputs.show(results, settings.out, console)


def suspicion(rows: Rows, learner: Learner, settings: Clean, work: Work) -> dict[str, list]:
    """For each row the learned weight, the confidence of networks trained with the weights, and
    the class that they find likeliest.

    How many labels are right, the sum that the weights may have, is counted by networks trained
    on all rows alike: as many as agree with them.
    """
    problem = cleaning(rows.x, rows.y, rows.trusted, learner)
    key = jax.random.key(settings.seed)
    tune_cost = cost.tuning(settings.steps_outer, HELD_OUT_DRAWS)
    total = (1 + DIVISIONS) * FOLDS + settings.repeats * tune_cost
    with Bar(total) as bar:
        bar.stage("a first opinion")
        budget = work.kept("budget", lambda: _budget(problem, rows, jax.random.fold_in(key, 0)))
        bar.done(FOLDS)
        learned = []
        for i in range(settings.repeats):
            bar.stage(f"learning weights, {i + 1} of {settings.repeats}")

            def weights(i=i):
                with bar.paused():
                    return learn(
                        problem,
                        budget=budget,
                        steps=settings.steps_outer,
                        key=jax.random.fold_in(key, 2 + i),
                        checkpoint=work.folder / f"tuning-{i}",
                        progress=bar.shown,
                    ).tolist()

            learned.append(work.kept(f"weights-{i}", weights))
            bar.done(tune_cost)
        mean = np.mean(learned, axis=0)
        bar.stage("a second opinion")
        draw = jax.random.fold_in(key, 1)
        asked = work.kept("opinion", lambda: _asked(problem, mean, draw))
        bar.done(DIVISIONS * FOLDS)
    return {"learned": mean.tolist(), **asked}


def _budget(problem: Cleaning, rows: Rows, key: jax.Array) -> float:
    likelier = opinion(problem, np.ones(len(rows.y)), key, 1).argmax(axis=1)
    return float(np.sum(rows.trusted | (likelier == rows.y)))


def _asked(problem: Cleaning, weights: np.ndarray, key: jax.Array) -> dict[str, list]:
    probabilities = opinion(problem, weights, key, DIVISIONS)
    own = probabilities[np.arange(len(probabilities)), np.asarray(problem.y)]
    return {"confidence": own.tolist(), "likelier": probabilities.argmax(axis=1).tolist()}


def _results(settings: Clean, call: dict, table: Table, rows: Rows, work: Work) -> dict[str, Any]:
    """Everything that the outputs are made of."""
    found = suspicion(rows, _learner(settings, table), settings, work)
    count = len(table.y)
    weights = (np.array(found["learned"]) + np.array(found["confidence"])) / 2
    weights = np.where(rows.trusted, 1.0, weights)[:count]
    likelier = np.where(rows.trusted, rows.y, found["likelier"])[:count]
    order = np.lexsort((np.arange(count), weights))
    suspicious = int(np.sum(weights < 0.5))
    removed = suspicious if settings.remove is None else round(settings.remove * count)
    return {
        "call": call,
        "data": {
            "name": table.name,
            "rows": count,
            "features": len(table.features),
            "classes": list(table.classes),
            "label": table.label,
            "trusted": int(rows.trusted.sum()),
        },
        "suspicious": suspicious,
        "removed": sorted(order[:removed].tolist()),
        "order": order.tolist(),
        "weight": weights.tolist(),
        "learned": found["learned"][:count],
        "confidence": found["confidence"][:count],
        "label": table.y.tolist(),
        "likelier": likelier.tolist(),
    }


def _learner(settings: Clean, table: Table) -> Learner:
    sizes = (table.x.shape[1], *settings.layers, len(table.classes))
    check_room(4 * weights(sizes), "--hidden")
    return Learner(sizes, settings.steps)


def _trusted_file(settings: Clean, table: Table) -> Table | None:
    """The rows of a trusted file, with the classes and in the order of columns of the table."""
    if settings.trusted is None or settings.fraction is not None:
        return None
    where = f"--trusted {settings.trusted}"
    label = None if settings.data in NAMES else table.label
    try:
        trusted = read_any(settings.trusted, label=label, task="classification", drop=settings.drop)
    except DataError as error:
        raise DataError(f"--trusted: {error}") from error
    if set(trusted.features) != set(table.features):
        raise ArgumentError(
            f"{where} has other columns than {settings.data}; give a file with the same ones."
        )
    unknown = sorted(set(trusted.classes) - set(table.classes))
    if unknown:
        raise ArgumentError(
            f"{where} has the class '{unknown[0]}', which {settings.data} does not have."
        )
    columns = [trusted.features.index(name) for name in table.features]
    y = np.array([table.classes.index(name) for name in trusted.classes])[trusted.y]
    return replace(trusted, x=trusted.x[:, columns], y=y.astype(np.int32), classes=table.classes)


def _rows(settings: Clean, table: Table, trusted: Table | None) -> Rows:
    """All rows, standardised."""
    count = len(table.y)
    known = np.zeros(count, bool)
    if settings.fraction is not None:
        drawn = np.random.default_rng(settings.seed).permutation(count)
        known[drawn[: max(1, round(settings.fraction * count))]] = True
    mean, scale = center_and_scale(table, np.arange(count))
    parts = [table] if trusted is None else [table, trusted]
    x = np.concatenate([np.clip((part.x - mean) / scale, -CLIP, CLIP) for part in parts])
    y = np.concatenate([part.y for part in parts])
    outside = np.ones(len(y) - count, bool)
    return Rows(x.astype(np.float32), y, np.concatenate([known, outside]))


def _fingerprint(table: Table, trusted: Table | None) -> str:
    return table.fingerprint() + ("" if trusted is None else trusted.fingerprint())

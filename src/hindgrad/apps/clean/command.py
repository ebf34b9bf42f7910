"""`hindgrad clean`: finds the rows whose labels are wrong."""

from functools import partial
from typing import Any

import numpy as np
from rich.console import Console

from hindgrad.apps.clean import outputs as clean_outputs
from hindgrad.apps.clean.settings import Clean
from hindgrad.apps.clean.suspicion import Learner
from hindgrad.apps.clean.weighing import Rows, suspicion, trust
from hindgrad.apps.console import say
from hindgrad.apps.datasets import NAMES
from hindgrad.apps.engine import Engine
from hindgrad.apps.model import center_and_scale, weights
from hindgrad.apps.settings import check_positions, check_room, identity
from hindgrad.apps.table import DataError, Table, check_classes, read_as_asked, read_like
from hindgrad.apps.work import Work


def run(settings: Clean, console: Console) -> None:
    """Runs the command: prints what was found, and where everything is."""
    work = Work.of(settings)
    table = read_as_asked(settings)
    check_classes(table, "clean")
    trusted = _trusted_file(settings, table)
    rows = rows_of(settings, table, trusted)
    check_positions(settings.steps, _learner(settings, table).batch(len(rows.y)))
    call = identity(settings) | {"fingerprint": _fingerprint(table, trusted)}

    def compute() -> dict[str, Any]:
        say(console, table.notes)
        return _results(settings, call, table, rows, work)

    results = work.results(
        call,
        compute,
        lambda folder, results: clean_outputs.write(folder, results, table),
        report=partial(say, console),
    )
    clean_outputs.show(results, settings.out, console)


def _results(settings: Clean, call: dict, table: Table, rows: Rows, work: Work) -> dict[str, Any]:
    """Everything that the outputs are made of."""
    found = suspicion(
        rows,
        _learner(settings, table),
        steps_outer=settings.steps_outer,
        repeats=settings.repeats,
        seed=settings.seed,
        work=work,
        engine=Engine(settings.engine, settings.address),
    )
    count = len(table.y)
    weights = trust(rows, found)[:count]
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
            "notes": list(table.notes),
            "trusted": int(rows.trusted.sum()),
        },
        "judge": found["judge"],
        "precision": found["precision"],
        "suspicious": suspicious,
        "removed": sorted(table.numbers[order[:removed]].tolist()),
        "rows": table.numbers.tolist(),
        "order": order.tolist(),
        "weight": weights.tolist(),
        "learned": found["learned"][:count].tolist(),
        "confidence": found["confidence"][:count].tolist(),
        "label": table.y.tolist(),
        "likelier": likelier.tolist(),
    }


def _learner(settings: Clean, table: Table) -> Learner:
    sizes = (table.encoder.width, *settings.layers, len(table.classes))
    check_room(4 * weights(sizes), "--hidden")
    return Learner(sizes, settings.steps)


def _trusted_file(settings: Clean, table: Table) -> Table | None:
    """The rows of a trusted file, with the classes and the columns of the table."""
    if settings.trusted is None or settings.fraction is not None:
        return None
    label = None if settings.data in NAMES else table.label
    try:
        return read_like(settings.trusted, table, label=label)
    except DataError as error:
        raise DataError(f"--trusted: {error}") from error


def rows_of(settings: Clean, table: Table, trusted: Table | None) -> Rows:
    """All rows, standardised."""
    count = len(table.y)
    known = np.zeros(count, bool)
    if settings.fraction is not None:
        drawn = np.random.default_rng(settings.seed).permutation(count)
        known[drawn[: max(1, round(settings.fraction * count))]] = True
    numbers, standard = center_and_scale(table, np.arange(count))
    x, y, groups = [standard.features(numbers)], [table.y], table.groups
    if trusted is not None:
        x.append(standard.features(standard.columns.transform(trusted.coded)))
        y.append(trusted.y)
        if groups is not None:  # each trusted row is a group of its own
            groups = np.concatenate([groups, groups.max() + 1 + np.arange(len(trusted.y))])
    labels = np.concatenate(y)
    outside = np.ones(len(labels) - count, bool)
    return Rows(np.concatenate(x), labels, np.concatenate([known, outside]), groups)


def _fingerprint(table: Table, trusted: Table | None) -> str:
    return table.fingerprint() + ("" if trusted is None else trusted.fingerprint())

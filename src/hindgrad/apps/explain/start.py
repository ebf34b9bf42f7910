"""What an explanation begins with: the table, the network and its settings, given or as a tuning
left them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hindgrad.apps.explain.settings import Explain
from hindgrad.apps.model import Form, Hyper, Network, weights
from hindgrad.apps.settings import ArgumentError, check_positions, check_room
from hindgrad.apps.splits import set_aside
from hindgrad.apps.table import Table, read
from hindgrad.apps.tune.hyperfile import load_form, read_hyper
from hindgrad.apps.tune.inputs import bending
from hindgrad.apps.tune.settings import BATCH, LEAST_STEPS, Tune
from hindgrad.apps.work import RESULTS

HYPER = "hyperparameters.json"
DEFAULTS = {
    name: getattr(Tune, name) for name in ("label", "task", "drop", "keep", "group", "test")
}


@dataclass(frozen=True)
class Start:
    """What is trained, on what."""

    table: Table
    network: Network
    settings: Hyper
    """Rates, decays, weight decays and scales."""
    pool: np.ndarray
    """The rows that are trained on, and"""
    tested: np.ndarray
    """those to test on, numbers among the table's."""
    seed: int
    notes: tuple[str, ...] = ()
    """What is to be said of where it comes from."""


def begin(asked: Explain) -> Start:
    """Reads the table and the settings.

    Raises `ArgumentError` or `DataError` if they cannot be read, or do not fit each other.
    """
    path, file, tuning = _tuned(asked)
    given = {name: getattr(asked, name) for name in DEFAULTS}
    call = tuning.get("call", {})
    options = {
        name: _first(value if value != DEFAULTS[name] else None, call.get(name), DEFAULTS[name])
        for name, value in given.items()
    }
    for name in ("drop", "keep"):
        options[name] = tuple(options[name])
    test = options.pop("test")
    seed = _first(asked.seed, file.get("seed"), 0)
    drawn = {"rows": asked.sample, "seed": seed}
    if asked.sample is None and call.get("rows") is not None:
        drawn = {"rows": call["rows"], "seed": call["seed"]}
    table = read(asked.data, **options, **drawn)
    pool, tested = set_aside(table, test, seed)
    network = _network(asked, table, len(pool), path, file)
    settings = network.defaults() if path is None else read_hyper(path, network)
    notes = (*_differences(table, call), *_among(tuning.get("kept", {})))
    return Start(table, network, settings, pool, tested, seed, notes)


def _tuned(asked: Explain) -> tuple[Path | None, dict[str, Any], dict[str, Any]]:
    """The file of hyperparameters, what is in it, and the results of the tuning that are beside it,
    if they are."""
    if asked.start is None:
        return None, {}, {}
    folder = asked.start.is_dir()
    path = asked.start / HYPER if folder else asked.start
    if folder and not path.is_file():
        raise ArgumentError(
            f"--from {asked.start}: there is no {HYPER} in this folder; name the --out of "
            "hindgrad tune."
        )
    file = _read(path)
    if not isinstance(file.get("hyper"), dict) or not isinstance(file.get("sizes"), list):
        raise ArgumentError(f"--from {path} does not hold hyperparameters of hindgrad tune.")
    results = path.with_name(RESULTS)
    return path, file, _read(results) if results.is_file() else {}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else None
        first = what or (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArgumentError(f"--from {path}: {first}; name the --out of hindgrad tune.") from error
    return content if isinstance(content, dict) else {}


def _network(
    asked: Explain, table: Table, rows: int, path: Path | None, file: dict[str, Any]
) -> Network:
    outputs = len(table.classes) if table.kind == "classification" else 1
    sizes = file.get("sizes")
    hidden = tuple(sizes[1:-1]) if sizes else Tune.hidden
    hidden = _first(asked.layers, hidden)
    network = Network(
        (table.encoder.width, *hidden, outputs),
        table.kind,
        _first(asked.steps, file.get("steps"), LEAST_STEPS),
        _first(asked.batch, file.get("batch"), min(BATCH, rows)),
        load_form(file["schedule"]) if "schedule" in file else Form(),
    )
    if sizes and sizes[0] == table.inputs:
        network = bending(network, table)
    if sizes and [*network.sizes] != sizes:
        raise ArgumentError(
            f"--from {path}: it was tuned for {sizes[0]} inputs, hidden layers {sizes[1:-1]} and "
            f"{sizes[-1]} outputs; this table, label and --hidden make {network.sizes[0]}, "
            f"{list(network.sizes[1:-1])} and {network.sizes[-1]}. Give the table, --label, --drop "
            "and --hidden that it was tuned with."
        )
    if network.batch > rows:
        raise ArgumentError(
            f"--batch {network.batch} is more than the {rows} rows to train on; lower it."
        )
    check_positions(network.steps, network.batch)
    check_room(4 * weights(network.sizes), "--hidden")
    return network


def _differences(table: Table, call: dict[str, Any]):
    if call.get("fingerprint") not in (None, table.fingerprint()):
        yield (
            "This table is not the one that was tuned on (or other columns or rows of it): the "
            "network is trained on it with the tuned settings."
        )


def _among(kept: dict[str, Any]):
    count = kept.get("networks", 1)
    if count > 1:
        yield (
            f"hindgrad predict answers with the mean of {count} networks, which were trained alike "
            "from other starts; explained is the one of them that fits its rows best."
        )


def _first(*values: Any) -> Any:
    """The first that is given; None if none is."""
    return next((value for value in values if value is not None), None)

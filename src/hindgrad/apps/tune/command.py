"""`hindgrad tune`: whole tunings over several seeds, beside the searches."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from rich.console import Console

from hindgrad.apps.console import say
from hindgrad.apps.engine import Engine
from hindgrad.apps.model import KNOTS, Form, Network, Problem, draw_problem, weights
from hindgrad.apps.saved import ARRAYS
from hindgrad.apps.settings import ArgumentError, check_room, identity
from hindgrad.apps.splits import set_aside, split_of
from hindgrad.apps.table import Table, read_as_asked
from hindgrad.apps.tune import outputs
from hindgrad.apps.tune.hyperfile import dump_form, read_hyper
from hindgrad.apps.tune.keep import keep, keeping, lasting
from hindgrad.apps.tune.seeds import JUDGES, LOOKS, Comparison
from hindgrad.apps.tune.settings import BATCH, Tune, steps_for
from hindgrad.apps.tune.studies import Studies
from hindgrad.apps.tune.trials import learning_curve, load_hyper
from hindgrad.apps.work import Work, finite
from hindgrad.progress import Bar

MODEL = outputs.MODEL


def run(settings: Tune, console: Console) -> None:
    """Runs the command: prints the table and where everything is."""
    work = Work.of(settings)
    table = read_as_asked(settings)
    network = _network(settings, table)
    start = None if settings.start is None else read_hyper(settings.start, network)
    call = identity(settings, {"start": "from"})
    call |= {"batch": network.batch, "steps": network.steps, "fingerprint": table.fingerprint()}
    compared = Comparison(settings, table, network, start, table.fingerprint())
    studies = Studies(settings.storage)
    _ = compared.rivals  # a library that is not there is named before anything begins

    def compute() -> dict[str, Any]:
        say(console, table.notes)
        return _results(settings, call, compared, studies, work)

    results = work.results(
        call,
        compute,
        lambda folder, results: outputs.write(folder, results, work.folder / MODEL),
        report=partial(say, console),
    )
    outputs.show(results, settings.out, console)


def _network(settings: Tune, table: Table) -> Network:
    outputs_ = len(table.classes) if table.kind == "classification" else 1
    sizes = (table.encoder.width, *settings.hidden, outputs_)
    form = Form(settings.schedule, settings.knots or KNOTS[settings.schedule])
    layers = len(sizes) - 1
    # Without groups, the numbers of rows in the parts are the same for every seed.
    rows = min(
        _rows_to_train_on(settings, table, seed)
        for seed in range(settings.seed, settings.seed + settings.seeds)[: _distinct(table)]
    )
    steps = settings.steps or steps_for(rows)
    largest = weights((table.inputs, *sizes[1:]))
    check_room(4 * largest + (steps + 8 * form.knots) * layers, "--hidden, --knots and --steps")
    if settings.batch is not None and settings.batch > rows:
        raise ArgumentError(
            f"--batch {settings.batch} is more than the {rows} rows to train on; lower it."
        )
    return Network(sizes, table.kind, steps, settings.batch or min(BATCH, rows), form)


def _rows_to_train_on(settings: Tune, table: Table, seed: int) -> int:
    pool, _ = set_aside(table, settings.test, seed)
    return len(split_of(table, pool, settings.valid / (1 - settings.test)).train_slots)


def _distinct(table: Table) -> int | None:
    return 1 if table.groups is None else None


def _results(
    settings: Tune, call: dict, compared: Comparison, studies: Studies, work: Work
) -> dict[str, Any]:
    """Everything that the outputs are made of."""
    table = compared.table
    seeds = list(range(settings.seed, settings.seed + settings.seeds))
    parts = [partial(compared.elsewhere, seed) for seed in seeds]
    Engine(settings.engine, settings.address).compute(parts, work)
    with Bar(len(seeds) * compared.trainings + keeping(settings.steps)) as bar:
        runs = [compared.on(seed, work, bar, studies) for seed in seeds]
        networks = {run["seed"]: compared.bent(run["bent"]) for run in runs}
        bar.stage("learning curves")
        best = outputs.best_seed(runs)
        problem = compared.problem(networks[best], best)
        curves = _curves(problem, runs[seeds.index(best)], outputs.compared(runs), best)
        bar.stage("the model that is kept")
        kept = work.kept(
            "model",
            lambda: _keep(settings, table, networks, runs, work),
            arrays=work.folder / MODEL / ARRAYS,
        )
        bar.done(keeping(settings.steps))
    return {
        "call": call,
        "data": {
            "name": table.name,
            "rows": len(table.y),
            "features": len(table.features),
            "kind": table.kind,
            "classes": list(table.classes),
            "counts": table.counts,
            "label": table.label,
            "notes": list(table.notes),
        },
        "sizes": list(networks[kept["seed"]].sizes),
        "schedule": dump_form(compared.network.form),
        "best_seed": best,
        "kept": kept,
        "curves": curves,
        "runs": runs,
    }


def _keep(
    settings: Tune,
    table: Table,
    networks: Mapping[int, Network],
    runs: list[dict[str, Any]],
    work: Work,
) -> dict[str, Any]:
    """Trains and writes the model of the arm and the seed that validate best."""
    arm = outputs.recommended(runs)
    seed = outputs.best_seed(runs, arm)
    hyper = load_hyper(next(run for run in runs if run["seed"] == seed)["arms"][arm]["hyper"])
    problem, standard = draw_problem(table, networks[seed], **settings.shares, seed=seed)
    if settings.steps is None:
        problem = lasting(problem, hyper, jax.random.fold_in(jax.random.key(seed), 6))
    return keep(work.folder / MODEL, table, problem, standard, hyper, arm=arm, seed=seed)


def _curves(problem: Problem, run: dict, names: Sequence[str], seed: int) -> dict[str, Any]:
    """Learning curves of the compared arms on one seed's judging draws."""
    job_key = jax.random.fold_in(jax.random.key(seed), 2)
    keys = jax.random.split(job_key, JUDGES)[:LOOKS]
    curves = {}
    for name in names:
        hyper = load_hyper(run["arms"][name]["hyper"])
        drawn = [learning_curve(problem, hyper, key) for key in keys]
        curves[name] = {
            "steps": np.asarray(drawn[0][0]).tolist(),
            "train": [[finite(v) for v in train] for _, train, _ in drawn],
            "valid": [[finite(v) for v in valid] for _, _, valid in drawn],
        }
    return curves

"""`hindgrad tune`: whole tunings over several seeds, beside the searches."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from rich.console import Console

from hindgrad import cost
from hindgrad.apps.console import say
from hindgrad.apps.model import (
    KNOTS,
    Form,
    Hyper,
    Metrics,
    Network,
    Params,
    Problem,
    draw_problem,
    predict,
    weights,
)
from hindgrad.apps.saved import ARRAYS
from hindgrad.apps.settings import ArgumentError, check_room, identity
from hindgrad.apps.splits import set_aside, split_of
from hindgrad.apps.table import Table, read_as_asked
from hindgrad.apps.tables.words import first_line
from hindgrad.apps.tune import outputs, rivals
from hindgrad.apps.tune.hyperfile import dump_form, read_hyper
from hindgrad.apps.tune.inputs import bending, choosing, suited
from hindgrad.apps.tune.keep import keep, keeping, lasting
from hindgrad.apps.tune.parts import Parts, together
from hindgrad.apps.tune.search import Sampler, Space, search
from hindgrad.apps.tune.settings import BATCH, Tune, steps_for
from hindgrad.apps.tune.studies import Studies, distributions
from hindgrad.apps.tune.trials import (
    dump_hyper,
    learning_curve,
    load_hyper,
    mean_valid_loss,
    trials,
)
from hindgrad.apps.tune.tuning import DRAWS, tune_network
from hindgrad.apps.work import Work, finite
from hindgrad.progress import Bar
from hindgrad.tuning.state import Record

JUDGES = 10
"""Other fresh draws, over which every arm is judged in the end."""

FAILED = Metrics(*np.full(len(Metrics._fields), np.inf))
"""Of what could not be trained."""

LOOKS = 3
"""Draws over which a search's candidate is judged for the picture of the progress (not charged)."""

MODEL = outputs.MODEL

SEARCHES: dict[str, tuple[Sampler, bool]] = {
    "random, global": ("random", False),
    "random, per layer": ("random", True),
    "TPE, global": ("TPE", False),
    "TPE, per layer": ("TPE", True),
}


def run(settings: Tune, console: Console) -> None:
    """Runs the command: prints the table and where everything is."""
    work = Work.of(settings)
    table = read_as_asked(settings)
    network = _network(settings, table)
    start = None if settings.start is None else read_hyper(settings.start, network)
    call = identity(settings, {"start": "from"})
    call |= {"batch": network.batch, "steps": network.steps, "fingerprint": table.fingerprint()}
    makes = rivals.rivals(table.kind, settings.also) if settings.rivals else {}
    studies = Studies(settings.storage)

    def compute() -> dict[str, Any]:
        say(console, table.notes)
        return _results(settings, call, table, network, start, makes, studies, work)

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


@dataclass
class _Job:
    """One whole tuning, and its rivals, on one seed."""

    problem: Problem
    begin: Hyper
    steps_outer: int
    key: jax.Array
    work: Work
    seed: int
    bar: Bar
    studies: Studies
    data: str
    """What the studies' names begin with."""

    def draws(self, purpose: str, count: int) -> list[jax.Array]:
        """Keys that are kept apart by their purpose."""
        number = ["tune", "choose", "judge", "look"].index(purpose)
        return list(jax.random.split(jax.random.fold_in(self.key, number), count))

    def kept(self, name: str, compute: Callable[[], Any]) -> Any:
        return self.work.kept(f"seed-{self.seed}/{name}", compute)

    def study(self, arm: str) -> str:
        """The name of an arm's study."""
        return f"{self.data}, seed {self.seed}, {arm}"


def _results(
    settings: Tune,
    call: dict,
    table: Table,
    network: Network,
    start: Hyper | None,
    makes: Mapping[str, rivals.Make],
    studies: Studies,
    work: Work,
) -> dict[str, Any]:
    """Everything that the outputs are made of."""
    begin = network.defaults() if start is None else start
    seeds = list(range(settings.seed, settings.seed + settings.seeds))
    searches = list(SEARCHES) if settings.searches and settings.steps_outer else []
    runs, data = [], f"{table.name} {call['fingerprint'][:6]}"
    shares, networks = settings.shares, {}
    with Bar(_total(settings, table, len(searches), len(makes))) as bar:
        for seed in seeds:
            networks[seed] = _suited(table, network, begin, seed, work, bar, shares)
            problem, _ = draw_problem(table, networks[seed], **shares, seed=seed)
            key = jax.random.key(seed)
            counts = settings.steps_outer, key, work, seed
            job = _Job(problem, begin, *counts, bar, studies, data)
            run = _seed(job, searches, settings.start is not None)
            beside = {name: _rival(job, name, make) for name, make in makes.items()}
            bent = bool(networks[seed].bent)
            runs.append({"seed": seed, "bent": bent, **run, "rivals": beside})
        bar.stage("learning curves")
        best = outputs.best_seed(runs)
        problem, _ = draw_problem(table, networks[best], **shares, seed=best)
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
        "schedule": dump_form(network.form),
        "best_seed": best,
        "kept": kept,
        "curves": curves,
        "runs": runs,
    }


def _suited(
    table: Table, network: Network, hyper: Hyper, seed: int, work: Work, bar: Bar, shares: dict
) -> Network:
    """The network with the inputs that suit this seed's rows."""

    def bent() -> bool:
        bar.stage(f"seed {seed}: inputs")
        draws = list(jax.random.split(jax.random.fold_in(jax.random.key(seed), 5), DRAWS))
        problem = lambda network: draw_problem(table, network, **shares, seed=seed)[0]
        return bool(suited(network, table, hyper, draws, problem).bent)

    is_bent = work.kept(f"seed-{seed}/bent", bent)
    bar.done(choosing(table))
    return bending(network, table) if is_bent else network


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


def _seed(job: _Job, searches: Sequence[str], given: bool) -> dict[str, Any]:
    """One seed's arms, each with its hyperparameters, its cost and how it did."""
    arms, traces = {}, {}
    arms["defaults"] = _judged(job, "defaults", job.problem.network.defaults(), 0)
    if job.steps_outer == 0:
        if given:
            arms["given"] = _judged(job, "given", job.begin, 0)
        return {"arms": arms, "traces": traces, "history": []}
    tuned = job.kept("tuned", lambda: _tune(job))
    job.bar.done(cost.tuning(job.steps_outer, DRAWS))
    for name in searches:
        found = job.kept(_file(name), lambda name=name: _search(job, name, tuned["trainings"]))
        arms[name] = _judged(job, name, load_hyper(found["hyper"]), found["trainings"])
        traces[name] = found["trace"]
    arms["tuned"] = _judged(job, "tuned", load_hyper(tuned["hyper"]), tuned["trainings"])
    return {"arms": arms, "traces": traces, "history": tuned["history"], "how": tuned["how"]}


def _tune(job: _Job) -> dict[str, Any]:
    job.bar.stage(f"seed {job.seed}: hypergradients")
    (key,) = job.draws("tune", 1)
    with job.bar.paused():
        hyper, result, among = tune_network(
            job.problem,
            job.begin,
            steps=job.steps_outer,
            key=key,
            draws=job.draws("choose", DRAWS),
            checkpoint=job.work.folder / f"seed-{job.seed}" / "tuning",
            progress=job.bar.shown,
            on_step=_recorder(job),
        )
    return {
        "hyper": dump_hyper(hyper),
        "trainings": cost.tuning(len(result.history), DRAWS, candidates=among),
        "history": [finite(np.exp(record.value)) for record in result.history],
        "how": result.message,
    }


def _recorder(job: _Job) -> Callable[[Record, Parts], None]:
    """Enters the tuning's steps beside the trials of the searches, by the same coordinates."""
    network = job.problem.network
    space = Space(True, len(network.sizes) - 1, network.form.knots)
    params = lambda parts: space.point(together(parts))
    limits = distributions(space.names)
    return job.studies.recorder(job.study("tuned"), params, limits, anew=not job.work.resume)


def _search(job: _Job, name: str, budget: int) -> dict[str, Any]:
    sampler, per_layer = SEARCHES[name]
    job.bar.stage(f"seed {job.seed}: {name}")
    network = job.problem.network
    space = Space(per_layer, len(network.sizes) - 1, network.form.knots)
    found = search(
        sampler,
        space,
        job.problem,
        job.begin,
        budget=budget,
        draws=job.draws("choose", DRAWS),
        key=jax.random.fold_in(job.key, 100 + list(SEARCHES).index(name)),
        advance=job.bar.done,
        begin=lambda make: job.studies.begin(job.study(name), make()),
    )
    looks = job.draws("look", LOOKS)
    trace = [
        [spent, finite(mean_valid_loss(job.problem, hyper, looks))]
        for spent, hyper in found.incumbents
    ]
    return {"hyper": dump_hyper(found.hyper), "trainings": found.trainings, "trace": trace}


def _judged(job: _Job, name: str, hyper: Hyper, trainings: int) -> dict[str, Any]:
    """Trains on the judging draws."""

    def judge():
        job.bar.stage(f"seed {job.seed}: judging {name}")
        keys = job.draws("judge", JUDGES)
        results = trials(job.problem, [hyper] * JUDGES, keys)
        means = Metrics(*np.mean([trial.metrics for trial in results], axis=0))
        recalls = [_recall(job.problem, trial.params) for trial in results]
        return {
            "hyper": dump_hyper(hyper),
            "evaluations": trainings * job.problem.network.steps,
            **_as_results(means, rivals.mean_recall(recalls)),
        }

    judged = job.kept(f"{_file(name)}-judged", judge)
    job.bar.done(JUDGES)
    return judged


def _rival(job: _Job, name: str, make: rivals.Make) -> dict[str, Any]:
    """How a rival does on the first of the judging draws."""
    first, *_ = job.draws("judge", JUDGES)

    def judge():
        job.bar.stage(f"seed {job.seed}: {name}")
        try:
            means, recall = rivals.judged(job.problem, make(job.seed), first)
        except ValueError as error:  # a class of one row, say
            return {**_as_results(FAILED, None), "failed": first_line(error)}
        return _as_results(means, rivals.mean_recall([recall]))

    judged = job.kept(f"{_file(name)}-rival", judge)
    job.bar.done(1)
    return judged


def _as_results(means: Metrics, recall: list[float | None] | None) -> dict[str, Any]:
    return {m: finite(value) for m, value in means._asdict().items()} | {"recall": recall}


def _recall(problem: Problem, params: Params) -> np.ndarray | None:
    """Of each class, on the rows to test on."""
    if problem.network.kind == "regression":
        return None
    test = problem.test
    predicted = np.asarray(predict(params, test.x)).argmax(axis=1)
    return rivals.recall(predicted, np.asarray(test.y), problem.network.sizes[-1])


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


def _total(settings: Tune, table: Table, searches: int, others: int) -> int:
    """The whole work, in trainings."""
    tuning = cost.tuning(settings.steps_outer, DRAWS) if settings.steps_outer else 0
    each = tuning * (1 + searches) + (searches + 2) * JUDGES + others + choosing(table)
    return settings.seeds * each + keeping(settings.steps)


def _file(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.lower())

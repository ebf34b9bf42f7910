"""One whole tuning on one seed, beside the searches and what else one might use."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from hindgrad import cost
from hindgrad.apps.model import Hyper, Metrics, Network, Params, Problem, draw_problem, predict
from hindgrad.apps.table import Table
from hindgrad.apps.tables.words import first_line
from hindgrad.apps.tune import rivals
from hindgrad.apps.tune.inputs import bending, choosing, suited
from hindgrad.apps.tune.parts import Parts, together
from hindgrad.apps.tune.search import Sampler, Space, search
from hindgrad.apps.tune.settings import Tune
from hindgrad.apps.tune.studies import Studies, distributions
from hindgrad.apps.tune.trials import dump_hyper, load_hyper, mean_valid_loss, trials
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

SEARCHES: dict[str, tuple[Sampler, bool]] = {
    "random, global": ("random", False),
    "random, per layer": ("random", True),
    "TPE, global": ("TPE", False),
    "TPE, per layer": ("TPE", True),
}


@dataclass(frozen=True)
class Comparison:
    """What is compared on every seed."""

    settings: Tune
    table: Table
    network: Network
    start: Hyper | None
    """The hyperparameters that were given."""
    fingerprint: str
    """Of the table."""

    @property
    def begin(self) -> Hyper:
        """Where the tunings begin."""
        return self.network.defaults() if self.start is None else self.start

    @property
    def searches(self) -> list[str]:
        """The names of the searches."""
        return list(SEARCHES) if self.settings.searches and self.settings.steps_outer else []

    @property
    def rivals(self) -> dict[str, rivals.Make]:
        """The makers of other models."""
        given = self.settings
        return rivals.rivals(self.table.kind, given.also) if given.rivals else {}

    @property
    def trainings(self) -> int:
        """The work on a seed."""
        outer, searches = self.settings.steps_outer, len(self.searches)
        tuning = cost.tuning(outer, DRAWS) if outer else 0
        judged = (searches + 2) * JUDGES + len(self.rivals)
        return tuning * (1 + searches) + judged + choosing(self.table)

    def problem(self, network: Network, seed: int) -> Problem:
        """The rows as a seed divides them, with the inputs of a network."""
        return draw_problem(self.table, network, **self.settings.shares, seed=seed)[0]

    def on(self, seed: int, work: Work, bar: Bar, studies: Studies) -> dict[str, Any]:
        """All arms and rivals on one seed, and whether its inputs are bent."""
        network = self._suited(seed, work, bar)
        job = _Job(
            problem=self.problem(network, seed),
            begin=self.begin,
            steps_outer=self.settings.steps_outer,
            key=jax.random.key(seed),
            work=work,
            seed=seed,
            bar=bar,
            studies=studies,
            data=f"{self.table.name} {self.fingerprint[:6]}",
        )
        run = _seed(job, self.searches, self.start is not None)
        beside = {name: _rival(job, name, make) for name, make in self.rivals.items()}
        return {"seed": seed, "bent": bool(network.bent), **run, "rivals": beside}

    def elsewhere(self, seed: int, work: Work) -> None:
        """All pieces of one seed, in another process."""
        quiet = Bar(self.trainings, shown=False)
        self.on(seed, work, quiet, Studies(self.settings.storage))

    def bent(self, is_bent: bool) -> Network:
        """The network with plain or with bent inputs."""
        return bending(self.network, self.table) if is_bent else self.network

    def _suited(self, seed: int, work: Work, bar: Bar) -> Network:
        """The network with the inputs that suit this seed's rows."""

        def bent() -> bool:
            bar.stage(f"seed {seed}: inputs")
            draws = list(jax.random.split(jax.random.fold_in(jax.random.key(seed), 5), DRAWS))
            problem = lambda network: self.problem(network, seed)
            return bool(suited(self.network, self.table, self.begin, draws, problem).bent)

        is_bent = work.kept(f"seed-{seed}/bent", bent)
        bar.done(choosing(self.table))
        return self.bent(is_bent)


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


def _file(name: str) -> str:
    return re.sub("[^a-z0-9]+", "-", name.lower())

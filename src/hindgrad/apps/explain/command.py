"""`hindgrad explain`: which rows, labels and settings made predictions."""

import hashlib
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from hindgrad.apps.console import say
from hindgrad.apps.explain import asked, outputs
from hindgrad.apps.explain.asked import Questions
from hindgrad.apps.explain.attribution import Found, certified, diverges, explained
from hindgrad.apps.explain.causes import Asked, Trained, losses_of
from hindgrad.apps.explain.settings import WORST, Explain
from hindgrad.apps.explain.start import Start, begin
from hindgrad.apps.explain.words import dump
from hindgrad.apps.model import Params, Problem, Standard, predict, problem_of
from hindgrad.apps.settings import ArgumentError, identity
from hindgrad.apps.splits import Whole
from hindgrad.apps.tune.keep import TRIES, key_of, refits_with_keys
from hindgrad.apps.work import Work, finite
from hindgrad.attribution.certify import SMOOTH_RUNS
from hindgrad.progress import Bar

ARRAYS = "attribution.safetensors"
BACK = 5
"""A hypergradient, in trainings, and as much for each query."""


def run(settings: Explain, console: Console) -> None:
    """Runs the command: prints what was found, and where everything is."""
    work = Work.of(settings)
    start = begin(settings)
    whole = Whole.of(len(start.pool))
    problem, standard = problem_of(start.table, start.network, start.pool, start.tested, whole)
    questions = _questions(settings, start, problem, standard)
    call = identity(settings, {"start": "from"}) | {"fingerprint": _fingerprint(start, questions)}
    worst = settings.worst or WORST if not settings.rows and settings.new is None else None
    if worst is not None and worst > len(questions.queries):
        raise ArgumentError(
            f"--worst {worst} is more than the {len(questions.queries)} rows to test on; lower it."
        )

    def compute() -> dict[str, Any]:
        say(console, [*start.table.notes, *start.notes])
        return _results(settings, call, start, (problem, standard), questions, worst, work)

    results = work.results(
        call,
        compute,
        lambda folder, results: outputs.write(
            folder, results, Found.load(work.folder / ARRAYS), start, _chosen(questions, results)
        ),
        report=partial(say, console),
    )
    outputs.show(results, settings.out, console)


def _questions(settings: Explain, start: Start, problem: Problem, standard: Standard) -> Questions:
    """The rows that are asked about; all to test on where the worst are still to be found."""
    if settings.new is not None:
        return asked.other(settings.new, start, standard)
    if settings.rows:
        return asked.named(start, problem, settings.numbers)
    return asked.tested(start, problem)


def _results(
    settings: Explain,
    call: dict[str, Any],
    start: Start,
    drawn: tuple[Problem, Standard],
    questions: Questions,
    worst: int | None,
    work: Work,
) -> dict[str, Any]:
    """Everything that the outputs are made of, but for the arrays of what was found."""
    problem, standard = drawn
    count = worst or len(questions.queries)
    with Bar(_total(settings, count)) as bar:
        bar.stage("training")
        network = work.kept("network", lambda: _network(start, problem, questions, worst))
        bar.done(TRIES)
        key = jax.random.wrap_key_data(jnp.asarray(network["key"], jnp.uint32))
        chosen = questions.take(network["chosen"])
        about = Asked(jnp.asarray(chosen.x), jnp.asarray(network["explained"]))
        trained = Trained(problem, start.settings, about)
        bar.stage("following the predictions back through the training")
        path = work.folder / ARRAYS

        def attribute() -> dict[str, Any]:
            explained(trained, key).save(path)
            return {}

        work.kept("attribution", attribute, arrays=path)
        found = Found.load(path)
        bar.done(BACK * (count + 1))

        def certify() -> dict[str, Any]:
            options = {"runs": settings.runs, "without": settings.without, "shown": bar.shown}
            with bar.paused():
                return dump(certified(trained, found, key, **options))

        certificate = work.kept("certificate", certify)
    data = _data(start, standard)
    return {
        "call": call,
        "data": data,
        "network": {
            "sizes": list(start.network.sizes),
            "steps": start.network.steps,
            "batch": start.network.batch,
            "seed": start.seed,
            "test_loss": network["test_loss"],
            "test_error": network["test_error"],
        },
        "worst": worst,
        "chosen": network["chosen"],
        "certificate": certificate,
        "queries": outputs.queries(data, start, chosen, network["explained"], found, certificate),
    }


def _network(
    start: Start, problem: Problem, questions: Questions, worst: int | None
) -> dict[str, Any]:
    """Trains as a tuning does in its end, and finds which rows to explain, and which class."""
    (trial, key), *_ = refits_with_keys(problem, start.settings, key_of(start.seed))
    if not np.isfinite(trial.valid_loss):
        raise ArgumentError(diverges())
    chosen = list(range(len(questions.queries)))
    if worst is not None:
        losses = _losses(trial.params, problem)
        chosen = np.argsort(-losses, kind="stable")[:worst].tolist()
    answers = np.asarray(predict(trial.params, jnp.asarray(questions.x[chosen])))
    rights = [questions.queries[i].right for i in chosen]
    explained = [0.0] * len(chosen)
    if start.table.kind == "classification":
        likeliest = answers.argmax(axis=1).tolist()
        pairs = zip(rights, likeliest, strict=True)
        explained = [likely if right is None else right for right, likely in pairs]
    return {
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "chosen": chosen,
        "explained": explained,
        "test_loss": finite(trial.metrics.test_loss),
        "test_error": finite(trial.metrics.test_error),
    }


def _losses(params: Params, problem: Problem) -> np.ndarray:
    """The loss of each row to test on."""
    answers, y = predict(params, problem.test.x), problem.test.y
    if problem.network.kind == "classification":
        return np.asarray(losses_of(answers, y))
    return np.asarray((answers[:, 0] - y) ** 2)


def _data(start: Start, standard: Standard) -> dict[str, Any]:
    table = start.table
    return {
        "name": table.name,
        "rows": len(table.y),
        "trained": len(start.pool),
        "tested": len(start.tested),
        "features": len(table.features),
        "kind": table.kind,
        "classes": list(table.classes),
        "label": table.label,
        "mean": float(standard.target_mean),
        "scale": float(standard.target_std),
        "notes": [*table.notes, *start.notes],
    }


def _chosen(questions: Questions, results: dict[str, Any]) -> Questions:
    return questions.take(results["chosen"])


def _fingerprint(start: Start, questions: Questions) -> str:
    """Of the table, of the settings that are read from a file, and of the rows asked about."""
    digest = hashlib.sha256(start.table.fingerprint().encode())
    digest.update(repr(start.network).encode())
    for name in sorted(start.settings):
        digest.update(np.asarray(start.settings[name]).tobytes())
    digest.update(np.ascontiguousarray(questions.x).tobytes())
    return digest.hexdigest()[:16]


def _total(settings: Explain, queries: int) -> int:
    """The work that this bar shows, in trainings; that of the certificate has its own."""
    return TRIES + BACK * (queries + 1) + settings.runs + queries + 3 * SMOOTH_RUNS

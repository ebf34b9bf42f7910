"""The training of a case by the library, through each of its entries."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

import hindgrad as hg
from tests.fuzz import reference
from tests.fuzz.case import Case


def score(case: Case, adjoint: hg.Adjoint | None) -> Callable[[Any], Any]:
    """The score of the case's run, as a function of its hyperparameters."""
    return lambda hyper: ENTRIES[case.entry](case, case.complete(hyper), adjoint)


def _objective(case, hyper, adjoint):
    given, whole = _shut(case, hyper)
    training = _training(case, whole, None)
    start = lambda hyper, key: case.start(whole(hyper), False)
    objective = hg.Objective(
        (lambda key: _training(case, whole, key)) if case.batching == "drawn" else training,
        init=case.start(hyper, False) if case.start_kind == "constant" else start,
        score=lambda params, hyper, key: case.score(params, whole(hyper), None),
    )
    return objective(given, case.key, adjoint=adjoint)


def _run(case, hyper, adjoint):
    given, whole = _shut(case, hyper)
    training = _training(case, whole, case.key)
    run = training(case.start(hyper, False), given, adjoint=adjoint)
    return case.score(run.params, hyper, run.losses)


def _resumed(case, hyper, adjoint):
    given, whole = _shut(case, hyper)
    training = _training(case, whole, case.key)
    run = training(case.start(hyper, False), given, adjoint=adjoint, steps=case.cut)
    more = {"state": run.state, "start": case.cut, "steps": case.steps - case.cut}
    second = training(run.params, given, adjoint=adjoint, **more)
    return case.score(second.params, hyper, jnp.concatenate([run.losses, second.losses]))


def _unrolled(case, hyper, adjoint):
    """The reference's own step, as a user's."""
    parts = reference.Parts(case.start(hyper, False), case.trained)
    update, loss, batches = reference.stepper(case, parts), case.loss(False), _batches(case)

    def step(state, hyper, t):
        return update(lambda w: loss(parts.whole(w), hyper, batches(t)), state, hyper, t)

    begin = parts.values, update.init(parts.values, hyper)
    (trained, _), losses = hg.unroll(step, begin, hyper, case.steps, adjoint=adjoint)
    return case.score(parts.whole(trained), hyper, losses)


ENTRIES = {"objective": _objective, "training": _run, "resumed": _resumed, "unrolled": _unrolled}


def _shut(case, hyper):
    """The hyperparameters that are given, and a function that adds those that are closed over."""
    shut = {name: hyper[name] for name in case.closed}
    given = {name: x for name, x in hyper.items() if name not in shut}
    return given, lambda hyper: {**hyper, **shut}


def _training(case, whole, key):
    loss = case.loss(False)

    def opened(function):
        if not callable(function) or not case.closed:
            return function
        return lambda hyper, *t: function(whole(hyper), *t)

    return hg.Training(
        lambda params, hyper, batch: loss(params, whole(hyper), batch),
        optimizer=case.optimizer.library(opened),
        batches=_batches(case, key),
        steps=case.steps,
    )


def _batches(case, key=None):
    key = case.key if key is None else key
    return case.batches(False, key if case.batching == "drawn" else None)

"""Hypergradients in segments: the same as in one program, kept, and gone on with after kills."""

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
from hindgrad import trees
from hindgrad.batches import Batch
from hindgrad.segments import kept, work
from tests.segments import problem

ROOT = Path(__file__).parents[2]
ADJOINTS = {
    "stored": hg.Stored(),
    "checkpointed": hg.Checkpointed(slots=3),
    "reversible": hg.Reversible(),
}


def single(objective, hyper, adjoint):
    value = lambda hyper: objective(hyper, adjoint=adjoint)
    return eqx.filter_value_and_grad(value)(trees.as_hyper(hyper))


def check_same(found, wanted, rtol):
    np.testing.assert_allclose(found.value, wanted[0], rtol=rtol)
    pairs = zip(jax.tree.leaves(found.gradient), jax.tree.leaves(wanted[1]), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(
            ours, theirs, rtol=rtol, atol=rtol * float(jnp.max(jnp.abs(theirs)))
        )
        assert jnp.any(ours != 0)


@pytest.mark.parametrize("adjoint", ADJOINTS)
@pytest.mark.parametrize(("segments", "slots"), [(5, None), (5, 2), (37, 3), (1, None), (4, 1)])
def test_the_same_as_in_one_program(x64, adjoint, segments, slots):
    adjoint, objective = ADJOINTS[adjoint], problem.objective()
    found = hg.hypergradient(
        objective, problem.HYPER, adjoint=adjoint, segments=segments, slots=slots
    )
    check_same(found, single(objective, problem.HYPER, adjoint), 1e-10)


def schedule(hyper, t):
    return hyper["rate"] * (1 + jnp.cos(t / 10)) / 2


@pytest.mark.parametrize(
    ("optimizer", "adjoint"),
    [
        (hg.Adam(schedule, weight_decay=hg.Decoupled(0.01)), hg.Reversible(min_decay=0.5)),
        (hg.Momentum(0.3, lambda h, t: 0.9 - 0.2 * jnp.exp(-t / 9)), hg.Reversible()),
        (hg.from_optax(lambda h: optax.sgd(h["rate"], momentum=0.9)), hg.Stored()),
    ],
    ids=["adam", "decay of the step", "optax"],
)
def test_optimizers(optimizer, adjoint):
    objective = problem.objective(optimizer=optimizer)
    hyper = {"weight": problem.HYPER["weight"], "rate": 0.02, "scale": 0.8}
    found = hg.hypergradient(objective, hyper, adjoint=adjoint, segments=5)
    check_same(found, single(objective, hyper, adjoint), 2e-5)


@pytest.mark.parametrize("adjoint", [hg.Stored(), hg.Reversible()], ids=repr)
def test_a_score_of_the_whole_run_and_a_models_state(adjoint):
    def loss(params, hyper, batch, state):
        value = problem.loss(params, hyper, batch)
        mean = 0.9 * state["mean"] + 0.1 * value
        drawn = jax.random.split(state["key"], 1)[0]
        return value + 0.1 * mean, {"mean": mean, "count": state["count"] + 1, "key": drawn}

    def init(hyper, key):
        state = {"mean": jnp.float32(0.5), "count": jnp.int32(0), "key": jax.random.key(3)}
        return problem.start(hyper, key), state

    def score(run, hyper, key):
        assert run.losses.shape == (problem.STEPS,)
        return jnp.mean(run.losses) + run.model_state["mean"] + jnp.sum(run.state["in"] ** 2)

    objective = problem.objective(loss=loss, init=init, score=hg.RunScore(score))
    found = hg.hypergradient(objective, problem.HYPER, adjoint=adjoint, segments=5)
    check_same(found, single(objective, problem.HYPER, adjoint), 2e-5)


def started(directory, adjoint, slots=0, steps=problem.STEPS, segments=problem.SEGMENTS):
    """A process that makes the call."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "src")])
    arguments = map(str, (directory, adjoint, slots, steps, segments))
    call = [sys.executable, "-m", "tests.segments.killed", *arguments]
    return subprocess.Popen(call, cwd=ROOT, env=os.environ | {"PYTHONPATH": path})


@pytest.mark.parametrize(("adjoint", "slots"), [("reversible", 0), ("stored", 2)])
def test_killed_at_any_moment_it_ends_with_the_same_bits(tmp_path, adjoint, slots):
    """The process is killed whenever some new item is on the disk, at a random moment after."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert started(whole, adjoint, slots).wait() == 0
    items = lambda: {path.name for path in cut.glob("segments/*-*") if len(path.name) < 17}
    draw, kills = random.Random(0), 0
    while not (cut / "found.npz").exists():
        before = items()
        process, seen = started(cut, adjoint, slots), before
        while process.poll() is None and (kills == 3 or len(seen) < len(before) + 3):
            time.sleep(0.002)
            seen = seen | items()
        time.sleep(draw.uniform(0, 0.03))
        if process.poll() is None:
            process.kill()
            kills += 1
        process.wait()
    assert kills >= 3
    check_same_bits(whole, cut)


@pytest.mark.slow
def test_a_million_steps_killed_at_random_moments(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    begin = time.monotonic()
    assert started(whole, "reversible", 0, 10**6, 40).wait() == 0
    seconds = time.monotonic() - begin
    draw, kills = random.Random(1), 0
    while not (cut / "found.npz").exists():
        process = started(cut, "reversible", 0, 10**6, 40)
        try:
            process.wait(None if kills == 5 else draw.uniform(0.1, 0.3) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    assert kills >= 3
    check_same_bits(whole, cut)


def check_same_bits(one, other):
    first, second = (np.load(folder / "found.npz") for folder in (one, other))
    assert {"value", "rate", "weight", "scale"} <= set(first)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_what_is_kept_is_dropped_on_the_way_back(tmp_path):
    objective = problem.objective()
    options = {"adjoint": hg.Reversible(), "segments": 5, "checkpoint": tmp_path}
    found = hg.hypergradient(objective, problem.HYPER, **options)
    assert sorted(path.name for path in (tmp_path / "segments").iterdir()) == [
        "position-000000",
        "way-000000",
    ]
    again = hg.hypergradient(objective, problem.HYPER, **options)
    np.testing.assert_array_equal(found.gradient["weight"], again.gradient["weight"])


def test_no_more_slots_than_asked_for(monkeypatch):
    most = []

    class Watched(kept.InMemory):
        def save(self, kind, number, tree):
            super().save(kind, number, tree)
            most.append(len(self.numbers("position")))

    monkeypatch.setattr("hindgrad.segments.hypergradient.InMemory", Watched)
    hg.hypergradient(problem.objective(), problem.HYPER, segments=19, slots=3)
    assert max(most) == 3


OTHERS = {
    "hyper": {"hyper": problem.HYPER | {"rate": 0.31}},
    "adjoint": {"adjoint": hg.Checkpointed()},
    "segments": {"segments": 4},
    "slots": {"slots": 2},
    "key": {"key": 1},
    "steps": {"objective": problem.objective(36)},
    "objective": {"objective": problem.objective(loss=lambda *a: 2 * problem.loss(*a))},
    "objective's arrays": {
        "objective": eqx.tree_at(
            lambda o: o.training.batches.data[0], problem.objective(), jnp.ones((40, 5))
        )
    },
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_call(tmp_path, name):
    call = {"objective": problem.objective(), "hyper": problem.HYPER, "adjoint": hg.Stored()}
    call |= {"segments": 5, "checkpoint": tmp_path}
    hg.hypergradient(**call)
    with pytest.raises(ValueError, match=f"call with another `{name}`"):
        hg.hypergradient(**call | OTHERS[name])


def test_arrays_within_a_jitted_function_are_compared(tmp_path):
    """They are no constants of the outer program."""

    def target(y):
        inner = jax.jit(lambda params, x: jnp.mean((problem.network(params, x) - y) ** 2))
        x, _ = problem.data()
        return problem.objective(score=lambda params, hyper, key: inner(params, x))

    call = {"hyper": problem.HYPER, "segments": 5, "checkpoint": tmp_path}
    hg.hypergradient(target(np.ones(40, np.float32)), **call)
    with pytest.raises(ValueError, match="call with another `objective`"):
        hg.hypergradient(target(np.full(40, 5, np.float32)), **call)


@pytest.mark.parametrize("adjoint", [hg.Stored(), hg.Reversible()], ids=repr)
def test_derivative_rules_of_the_loss_are_compared(tmp_path, adjoint):
    """The way forward does not show them."""

    def clipped(most):
        @jax.custom_vjp
        def same(x):
            return x

        bound = lambda _, g: (jnp.clip(g, -most, most),)
        same.defvjp(lambda x: (x, None), bound)
        return problem.objective(loss=lambda p, h, b: problem.loss(jax.tree.map(same, p), h, b))

    call = {"hyper": problem.HYPER, "segments": 5, "checkpoint": tmp_path, "adjoint": adjoint}
    hg.hypergradient(clipped(0.5), **call)
    with pytest.raises(ValueError, match="call with another `objective`"):
        hg.hypergradient(clipped(0.25), **call)


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "segments").mkdir()
    (tmp_path / "segments/mine.txt").write_text("mine")
    call = {"hyper": problem.HYPER, "segments": 5, "checkpoint": tmp_path}
    with pytest.raises(ValueError, match="not from a call of hypergradient"):
        hg.hypergradient(problem.objective(), **call)
    (tmp_path / "segments/mine.txt").unlink()
    hg.hypergradient(problem.objective(), **call)
    (tmp_path / "segments/mine.txt").write_text("mine")
    hg.hypergradient(problem.objective(), **call)
    assert (tmp_path / "segments/mine.txt").read_text() == "mine"


def test_within_another_program():
    with pytest.raises(ValueError, match="cannot itself be traced"):
        jax.jit(lambda rate: hg.hypergradient(problem.objective(), {"rate": rate}))(0.1)


def test_another_version(tmp_path, monkeypatch):
    call = {"hyper": problem.HYPER, "segments": 5, "checkpoint": tmp_path}
    hg.hypergradient(problem.objective(), **call)
    monkeypatch.setattr(work, "version", lambda name: "0.0.1")
    with pytest.raises(ValueError, match="call with another `hindgrad`"):
        hg.hypergradient(problem.objective(), **call)


def test_a_damaged_checkpoint(tmp_path):
    call = {"hyper": problem.HYPER, "segments": 5, "checkpoint": tmp_path}
    hg.hypergradient(problem.objective(), **call)
    for file in (tmp_path / "segments/way-000000").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read: it is damaged"):
        hg.hypergradient(problem.objective(), **call)


def test_too_little_room_is_said_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(kept.OnDisk, "free", 1000)
    with pytest.raises(OSError, match=r"keeps up to .* kB, and .* room for 1.0 kB. Give slots="):
        hg.hypergradient(problem.objective(), problem.HYPER, segments=5, checkpoint=tmp_path)
    assert not any((tmp_path / "segments").iterdir())


def test_a_run_that_diverges_says_where():
    objective = problem.objective(
        optimizer=hg.Momentum(lambda h, t: jnp.where(t < 20, 0.1, 1e9), 0.9)
    )
    with pytest.raises(RuntimeError, match=r"params\['in'\] left .* at step 20"):
        hg.hypergradient(objective, problem.HYPER, adjoint=hg.Reversible(), segments=5)


def test_a_run_that_does_not_come_home():
    """Its batches are others on the way back, in the third segment."""
    calls = []

    def noise(t):
        calls.append(int(t))
        return np.float32(calls.count(int(t)) * (int(t) == 20))

    def loss(params, hyper, batch):
        there = jax.ShapeDtypeStruct((), jnp.float32)
        noisy = jax.pure_callback(noise, there, batch.key_of)
        return problem.loss(params, hyper, batch.batch) * (1 + noisy)

    class Marked(eqx.Module):
        batch: Batch
        key_of: jax.Array

    objective = problem.objective(loss=loss)
    inner = objective.training.batches
    objective = eqx.tree_at(
        lambda o: o.training.batches, objective, lambda t: Marked(inner(t), jnp.asarray(t))
    )
    with pytest.raises(RuntimeError, match=r"did not lead to .*params\['in'\]; .* step 16 and"):
        hg.hypergradient(objective, problem.HYPER, adjoint=hg.Reversible(), segments=5)


def test_progress(capsys):
    hg.hypergradient(problem.objective(), problem.HYPER, segments=5, progress=True)
    shown = capsys.readouterr().err
    assert re.search(r"Keeps up to [\d.]+ kB in the host's memory", shown)
    assert "100%" in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segments": 0}, r"hypergradient\(segments=0\): a whole number, at least 1"),
        ({"segments": 38}, r"hypergradient\(segments=38\): the run has 37 steps"),
        ({"slots": 0}, r"hypergradient\(slots=0\)"),
        ({"adjoint": hg.Forward()}, "Forward has no way back in segments. Use Checkpointed"),
        ({"adjoint": hg.Interpolated()}, "Interpolated has no way back in segments"),
        ({"adjoint": hg.Truncated(3)}, "Truncated has no way back in segments"),
        ({"adjoint": hg.Evolution(spread=0.1)}, "Evolution has no way back in segments"),
        (
            {"adjoint": hg.Reversible(failure=hg.failures.Report(jnp.zeros(3)))},
            r"leave failure= out",
        ),
        ({"hyper": {"n": 1}}, "without a float"),
    ],
)
def test_messages(options, message):
    call = {"objective": problem.objective(), "hyper": problem.HYPER, "progress": False}
    with pytest.raises(ValueError, match=message):
        hg.hypergradient(**call | options)


def test_a_function_has_no_segments():
    with pytest.raises(TypeError, match="Objective is needed"):
        hg.hypergradient(lambda hyper: hyper, 1.0)

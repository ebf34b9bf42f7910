"""Tuning over long runs: hypergradients in segments, kept with the tuning's own state."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
from hindgrad import target
from hindgrad.segments import work
from tests.segments import problem

HYPER = {"rate": 0.3, "scale": 0.8}


def loss(params, hyper, batch):
    x, y = batch.data
    return ((problem.network(params, x) - y) ** 2).mean()


def tuned(objective=None, **options):
    options = {"steps": 3, "progress": False, "diagnose": False} | options
    objective = problem.objective(loss=loss) if objective is None else objective
    return hg.tune(objective, HYPER, optax.adam(0.05), **options)


@pytest.fixture
def long(monkeypatch):
    """As if the problem's runs were long."""
    monkeypatch.setattr(target, "LONG", problem.STEPS)


@pytest.mark.parametrize("adjoint", [hg.Reversible(), None], ids=repr)
def test_the_same_as_in_one_program(monkeypatch, adjoint):
    wanted = tuned(adjoint=adjoint)
    monkeypatch.setattr(target, "LONG", problem.STEPS)
    seen = []
    segmented = target.segmented
    counted = lambda *args, **options: seen.append(args) or segmented(*args, **options)
    monkeypatch.setattr(target, "segmented", counted)
    found = tuned(adjoint=adjoint)
    assert len(seen) == 3
    for name in HYPER:
        np.testing.assert_allclose(found.hyper[name], wanted.hyper[name], rtol=1e-4)


@pytest.mark.usefixtures("long")
def test_of_other_hyperparameters(monkeypatch, tmp_path):
    """The logarithm of the objective by that of the rate, in segments as in one program."""
    before = lambda h: {"rate": jnp.exp(h["rate"]), "scale": h["scale"]}
    of_logs = hg.Reparametrised(problem.objective(loss=loss), before, jnp.log)
    hyper = {"rate": jnp.log(0.3), "scale": 0.8}
    options = {"steps": 3, "progress": False, "diagnose": False}
    seen = []
    segmented = target.segmented
    counted = lambda *args, **options: seen.append(args) or segmented(*args, **options)
    monkeypatch.setattr(target, "segmented", counted)
    found = hg.tune(of_logs, hyper, optax.adam(0.05), checkpoint=tmp_path, **options)
    assert len(seen) == 3
    wanted = hg.tune(lambda h: of_logs(h), hyper, optax.adam(0.05), **options)
    for name in HYPER:
        np.testing.assert_allclose(found.hyper[name], wanted.hyper[name], rtol=1e-4)
    monkeypatch.setattr(target, "LONG", 10**6)
    short = hg.tune(of_logs, hyper, optax.adam(0.05), adjoint=hg.Reversible(), **options)
    for name in HYPER:
        np.testing.assert_allclose(short.hyper[name], wanted.hyper[name], rtol=1e-4)


def test_interrupted_within_a_hypergradient(long, tmp_path, monkeypatch):
    wanted = tuned()
    pulled, calls = work._Work._pulled, []

    def interrupted(self, segment, way):
        calls.append(segment)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return pulled(self, segment, way)

    monkeypatch.setattr(work._Work, "_pulled", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tuned(checkpoint=tmp_path)
    first, run = sorted((tmp_path / "hypergradients").iterdir())
    assert first.name.startswith("first-")
    assert any(run.glob("segments/way-*"))
    found = tuned(checkpoint=tmp_path)
    assert len(calls) == 3 * 19 + 1  # 37 steps in segments of two; the one cut short twice
    for name in HYPER:
        np.testing.assert_array_equal(found.hyper[name], wanted.hyper[name])


def test_each_hypergradient_has_a_line_of_its_own(long, capsys):
    tuned(progress=True)
    shown = capsys.readouterr().err
    assert shown.count("Keeps up to") == 3
    assert "tuning 3/3" in shown


def test_adjoints_without_segments_go_on_in_one_program(long, monkeypatch):
    monkeypatch.setattr(target, "segmented", None)
    assert len(tuned(adjoint=hg.Interpolated()).history) == 3


def test_a_run_that_fails_is_turned_back_from(long):
    """A rate at which training diverges."""
    optimizer = hg.Momentum(lambda hyper, t: hyper["rate"] * 2.0 ** (hyper["scale"] > 0.9), 0.9)
    objective = problem.objective(loss=loss, optimizer=optimizer)
    result = hg.tune(
        objective,
        {"rate": 0.3, "scale": 0.89},
        optax.sgd(1e9),
        steps=2,
        adjoint=hg.Reversible(),
        progress=False,
        diagnose=False,
    )
    assert [r.status for r in result.history] == ["accepted", "not finite"]
    assert "left the range" in result.history[1].reason or "NaN" in result.history[1].reason


def test_a_stream_is_always_taken_in_segments():
    objective = problem.objective(loss=loss)
    streamed = hg.stream(tuple(map(np.asarray, problem.data())), size=8, key=1)
    training = hg.Training(
        loss, optimizer=objective.training.optimizer, batches=streamed, steps=problem.STEPS
    )
    found = tuned(hg.Objective(training, init=objective.init, score=objective.score))
    for name, wanted in tuned().hyper.items():
        np.testing.assert_allclose(found.hyper[name], wanted, rtol=1e-4)


def test_a_source_that_fails_is_no_bad_step():
    """Tuning ends there, and does not lower the rate."""

    class Rows:
        reads = 0

        def __len__(self):
            return 40

        def __getitem__(self, i):
            self.reads += 1
            if self.reads > 900:
                raise OSError("the disk is gone")
            x, y = problem.data()
            return np.asarray(x)[i], np.asarray(y)[i]

    streamed = hg.stream(Rows(), size=8, key=1)
    inner = problem.objective(loss=loss)
    training = hg.Training(
        loss, optimizer=inner.training.optimizer, batches=streamed, steps=problem.STEPS
    )
    with pytest.raises(RuntimeError, match=r"Row \d+ could not be read: OSError: the disk is gone"):
        tuned(hg.Objective(training, init=inner.init, score=inner.score))


def test_folders_of_others_are_left_alone(long, tmp_path):
    (tmp_path / "run-1").mkdir()
    (tmp_path / "hypergradients/mine").mkdir(parents=True)
    tuned(checkpoint=tmp_path)
    assert (tmp_path / "run-1").is_dir()
    assert (tmp_path / "hypergradients/mine").is_dir()

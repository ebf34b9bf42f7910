"""Checkpoints of what is split over devices: gone on with there, or on another number of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
from devices.eight.conftest import of_kind
from devices.eight.networks import (
    DATA,
    FSDP,
    HYPER,
    PARAMS,
    ROWS,
    assert_same,
    momentum,
    network,
    placed,
)
from hindgrad.segments.kept import InMemory, OnDisk


class Stopped(Exception):
    """As a kill would."""


def problem(devices, placing):
    """An objective, its hyperparameters, and the mesh on which they are."""

    def loss(params, hyper, batch):
        errors = jnp.sum((network(params, batch.data) - batch.data) ** 2, 1)
        return jnp.mean(hyper["weights"][batch.index] * errors)

    if devices == 1:
        params, rows, hyper = PARAMS, ROWS, HYPER
    else:
        mesh = of_kind("auto", devices)
        params, rows, hyper = placed(mesh, placing)
    training = hg.Training(
        loss, optimizer=momentum(), batches=hg.minibatches(rows, size=16, key=0), steps=6
    )
    score = lambda p, h, key: jnp.mean((network(p, rows) - rows) ** 2)
    return hg.Objective(training, init=params, score=score), hyper


def tuned(directory, devices=8, stop=None):
    """Four steps of tuning, ended in one of them if so asked."""

    def on_step(record, hyper):
        if record.step == stop:
            raise Stopped

    objective, hyper = problem(devices, DATA)
    return hg.tune(
        objective, hyper, optax.adam(0.01), steps=4, checkpoint=directory, on_step=on_step,
        progress=False, diagnose=False,
    )  # fmt: skip


def test_a_tuning(tmp_path):
    wanted = tuned(None)
    with pytest.raises(Stopped):
        tuned(tmp_path, stop=2)
    found = tuned(tmp_path)
    assert [r.value for r in found.history] == [r.value for r in wanted.history]
    for a, b in zip(jax.tree.leaves(found.hyper), jax.tree.leaves(wanted.hyper), strict=True):
        np.testing.assert_array_equal(a, b)
    assert found.hyper["weights"].sharding == wanted.hyper["weights"].sharding


@pytest.mark.parametrize("devices", [4, 1])
def test_a_tuning_on_other_devices(tmp_path, devices):
    with pytest.raises(Stopped):
        tuned(tmp_path, stop=2)
    with pytest.warns(RuntimeWarning, match=f"on 8 devices, and goes on on {devices}"):
        found = tuned(tmp_path, devices)
    assert found.hyper["weights"].sharding.num_devices == devices
    for a, b in zip(*map(jax.tree.leaves, (found.hyper, tuned(None).hyper)), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-4)


def test_hyperparameters_that_are_nowhere_in_particular(tmp_path):
    """Of data on eight devices: they come back from a checkpoint to what they were."""

    def tuned(stop=None):
        def on_step(record, hyper):
            if record.step == stop:
                raise Stopped

        objective, _ = problem(8, DATA)
        options = {"steps": 4, "on_step": on_step, "progress": False, "diagnose": False}
        hyper = {"rate": 0.1, "weights": jnp.ones(32)}
        return hg.tune(objective, hyper, optax.adam(0.01), checkpoint=tmp_path, **options)

    with pytest.raises(Stopped):
        tuned(stop=2)
    assert len(tuned().history) == 4  # and no warning of other devices


def in_segments(directory, adjoint, devices=8):
    objective, hyper = problem(devices, FSDP)
    return hg.hypergradient(
        objective, hyper, adjoint=adjoint, segments=3, checkpoint=directory, progress=False
    )


ADJOINTS = [hg.Reversible(), hg.Checkpointed()]


@pytest.mark.parametrize(
    ("saves", "adjoint"), [(3, ADJOINTS[0]), (8, ADJOINTS[1])], ids=["forward", "back"]
)
def test_a_hypergradient_in_segments(tmp_path, monkeypatch, adjoint, saves):
    """Ended on the way forward and back; it ends with the bits of one that was not."""
    wanted = interrupted(tmp_path, monkeypatch, adjoint, saves)
    found = in_segments(tmp_path, adjoint)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def interrupted(directory, monkeypatch, adjoint, saves):
    """Ends a call before it keeps so many things; the result of a whole one."""
    save, kept = OnDisk.save, []

    def stopping(self, kind, number, tree):
        kept.append(kind)
        if len(kept) == saves:
            raise Stopped
        save(self, kind, number, tree)

    with monkeypatch.context() as patched:
        patched.setattr(OnDisk, "save", stopping)
        with pytest.raises(Stopped):
            in_segments(directory, adjoint)
    return in_segments(None, adjoint)


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=repr)
def test_what_is_kept_stays_split(monkeypatch, adjoint):
    """Each device keeps its own part, except of what the score gives: that is one set."""
    save, seen = InMemory.save, []

    def watched(self, kind, number, tree):
        save(self, kind, number, tree)
        large = [x for x in jax.tree.leaves(tree) if jnp.size(x) >= 128 and jnp.any(x)]
        seen.extend(large if (kind, number) != ("way", 3) else [])

    monkeypatch.setattr(InMemory, "save", watched)
    in_segments(None, adjoint)
    assert len(seen) > 10
    assert all(x.addressable_shards[0].data.size == x.size / 8 for x in seen)


def test_a_hypergradient_on_other_devices(tmp_path, monkeypatch):
    wanted = interrupted(tmp_path, monkeypatch, hg.Checkpointed(), 8)
    with pytest.warns(RuntimeWarning, match="on 8 devices, and goes on on 4"):
        found = in_segments(tmp_path, hg.Checkpointed(), 4)
    assert_same(found, wanted)


def test_what_does_not_come_home_on_other_devices(tmp_path, monkeypatch):
    """Sums over devices are rounded otherwise there, and that is noticed."""
    interrupted(tmp_path, monkeypatch, hg.Reversible(), 8)
    warns = pytest.warns(RuntimeWarning, match="on 8 devices, and goes on on 4")
    with warns, pytest.raises(RuntimeError, match="did not lead to the initial value"):
        in_segments(tmp_path, hg.Reversible(), 4)

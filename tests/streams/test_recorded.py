"""Loaders, recorded as they are drawn, and read again on the way back."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
from hindgrad.batches import Batch
from tests.segments import problem

HYPER = {"rate": 0.3, "weight": np.linspace(0.5, 1.5, 40, dtype=np.float32), "scale": 0.8}


class Loader:
    """Batches in an order that nothing can repeat, with their rows' numbers."""

    def __init__(self, batches=37, change=lambda t, batch: batch, seed=None):
        self.batches, self.change, self.given = batches, change, []
        self.draw = np.random.default_rng(seed)
        self.x, self.y = map(np.asarray, problem.data())

    def __iter__(self):
        for t in range(self.batches):
            index = self.draw.permutation(40)[:8]
            self.given.append(index)
            batch = {"index": index, "x": self.x[index], "y": self.y[index]}
            yield self.change(t, batch)


def loss(params, hyper, batch):
    errors = problem.network(params, batch.data["x"]) - batch.data["y"]
    return jnp.mean(hyper["weight"][batch.data["index"]] * errors**2)


def recorded(loader, **options):
    objective = problem.objective(loss=loss)
    batches = hg.recorded(loader, **options)
    return eqx.tree_at(lambda o: o.training.batches, objective, batches)


def of_the_same_batches(loader):
    """The problem with the batches that a loader has given, as arrays."""
    index = jnp.asarray(np.stack(loader.given[: problem.STEPS]))
    x, y = map(jnp.asarray, (loader.x, loader.y))
    data = lambda rows: {"index": rows, "x": x[rows], "y": y[rows]}
    batches = lambda t: Batch(data(index[t]), None, None)
    return eqx.tree_at(lambda o: o.training.batches, problem.objective(loss=loss), batches)


@pytest.mark.parametrize("adjoint", [hg.Stored(), hg.Reversible()], ids=repr)
@pytest.mark.parametrize("segments", [None, 6])
def test_the_batches_that_were_given(adjoint, segments):
    loader = Loader()
    objective = recorded(loader)
    if segments is None:
        found = objective.hypergradient(HYPER, adjoint=adjoint)
    else:
        found = hg.hypergradient(objective, HYPER, adjoint=adjoint, segments=segments)
    assert len(loader.given) == problem.STEPS
    wanted = of_the_same_batches(loader).hypergradient(HYPER, adjoint=adjoint)
    np.testing.assert_allclose(found.value, wanted.value, rtol=1e-6)
    for name in HYPER:
        ours, theirs = found.gradient[name], wanted.gradient[name]
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-7)


def test_a_record_on_disk_is_used_again(tmp_path):
    """Another process goes on where the loader stopped."""
    first, second = Loader(20, seed=1), Loader(seed=1)
    batches = hg.recorded(first, directory=tmp_path)
    early = [batches(t).data["x"] for t in range(20)]
    again = hg.recorded(second, directory=tmp_path)
    for t in range(20):
        np.testing.assert_array_equal(again(t).data["x"], early[t])
    np.testing.assert_array_equal(again(30).data["index"], second.given[30])


def test_a_record_cut_short_by_a_kill(tmp_path):
    batches = hg.recorded(Loader(9, seed=1), directory=tmp_path)  # no more is read ahead
    wanted = [batches(t).data["x"] for t in range(9)]
    path = tmp_path / "batches"
    record = sum(x.nbytes for x in jax.tree.leaves(batches(0).data))
    path.write_bytes(path.read_bytes()[: 5 * record + record // 2])
    again = hg.recorded(Loader(seed=1), directory=tmp_path)
    for t in range(9):
        np.testing.assert_array_equal(again(t).data["x"], wanted[t])


def test_calls_side_by_side_share_a_record(tmp_path):
    """Whoever comes first writes a batch; all read the same."""

    def read(seed):
        batches = hg.recorded(Loader(40, seed=seed), directory=tmp_path)
        return [np.asarray(batches(t).data["x"]) for t in range(40)]

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(read, range(4))
    for other in others:
        np.testing.assert_array_equal(other, first)
    sources = [Loader(40, seed=seed) for seed in range(4)]
    given = np.stack([[next(batches)["x"] for _ in range(40)] for batches in map(iter, sources)])
    assert all((given[:, t] == x).all(axis=(1, 2)).any() for t, x in enumerate(first))


def test_a_record_that_lost_batches(tmp_path):
    """What the loader gave is gone: a run does not go on with other batches in their place."""
    batches = hg.recorded(itertools.cycle(Loader(9, seed=1)), directory=tmp_path)
    batches(5)
    time.sleep(0.1)  # what is read ahead
    (tmp_path / "batches").write_bytes(b"")
    with pytest.raises(Exception, match="has lost batches since this call began"):
        batches(200)


def test_keys_of_batches():
    keyed = hg.recorded(Loader(), key=3)
    assert keyed(4).key == jax.random.fold_in(jax.random.key(3), 4)
    assert keyed(4).index is None
    assert hg.recorded(Loader())(4).key is None


def raising(t, batch):
    if t == 11:
        raise OSError("a bad sector")
    return batch


def shorter(t, batch):
    return batch if t < 11 else {name: x[:5] for name, x in batch.items()}


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (Loader(30), "The loader gave 30 batches, and the run has more steps"),
        (Loader(change=raising), "Batch 11 of the loader could not be read: OSError: a bad sector"),
        (
            Loader(change=shorter),
            r"Batch 11 of the loader\['index'\] is int64\[5\], and in batch 0 int64\[8\]",
        ),
    ],
)
def test_a_loader_that_fails_in_mid_run(loader, message):
    objective = recorded(loader)
    with pytest.raises(RuntimeError, match=message):
        hg.hypergradient(objective, HYPER, segments=6)
    with pytest.raises(RuntimeError, match=message):
        objective(HYPER)


def test_what_was_recorded_before_a_failure_is_not_lost(tmp_path):
    """Both the record and the segments are there when the call is made again."""
    options = {"segments": 37, "checkpoint": tmp_path / "run", "adjoint": hg.Reversible()}
    broken = Loader(change=raising, seed=5)
    with pytest.raises(RuntimeError, match="Batch 11"):
        hg.hypergradient(recorded(broken, directory=tmp_path / "record"), HYPER, **options)
    assert len(list((tmp_path / "run/segments").glob("tape-*"))) >= 10
    whole = Loader(seed=5)
    found = hg.hypergradient(recorded(whole, directory=tmp_path / "record"), HYPER, **options)
    wanted = of_the_same_batches(whole).hypergradient(HYPER, adjoint=hg.Reversible())
    np.testing.assert_allclose(found.gradient["weight"], wanted.gradient["weight"], rtol=1e-4)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([], "the loader is empty"),
        ([["a", "b"]], r"Batch 0 of the loader\[0\] is 'a'"),
    ],
)
def test_messages(loader, message):
    with pytest.raises(ValueError, match=message):
        hg.recorded(loader)


def test_another_loader_in_the_same_folder(tmp_path):
    hg.recorded(Loader(), directory=tmp_path)
    with pytest.raises(ValueError, match=r"holds batches like .* Name another directory"):
        hg.recorded([np.ones(3)], directory=tmp_path)

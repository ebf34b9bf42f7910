"""Data sets and loaders of grain and torch, as their users have them (`--group comparison`)."""

import warnings

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
from tests.segments import problem

HYPER = {"rate": 0.3, "weight": np.linspace(0.5, 1.5, 40, dtype=np.float32), "scale": 0.8}


@pytest.fixture
def rows():
    return tuple(map(np.asarray, problem.data()))


def check(batches):
    """The hypergradient is that of the data in memory, in one program and in segments."""
    objective = eqx.tree_at(lambda o: o.training.batches, problem.objective(), batches)
    wanted = problem.objective().hypergradient(HYPER)
    for found in (objective.hypergradient(HYPER), hg.hypergradient(objective, HYPER, segments=6)):
        for name in HYPER:
            np.testing.assert_allclose(
                found.gradient[name], wanted.gradient[name], rtol=1e-4, atol=1e-7
            )


def test_grain_map_dataset(rows):
    grain = pytest.importorskip("grain")
    x, y = rows
    source = grain.MapDataset.range(40).map(lambda i: (x[i], y[i]))
    check(hg.stream(source, size=8, key=1))


def test_grain_that_repeats_has_no_end(rows):
    grain = pytest.importorskip("grain")
    with pytest.raises(ValueError, match="does not repeat itself"):
        hg.stream(grain.MapDataset.range(40).repeat(), size=8, key=1)


def test_grain_that_filters_has_rows_that_are_none():
    grain = pytest.importorskip("grain")
    source = grain.MapDataset.range(40).filter(lambda i: i % 2 == 0)
    batches = hg.stream(source, size=40, key=1)
    with pytest.raises(RuntimeError, match=r"Row \d+ is like PyTreeDef\(None\)"):
        batches(0)


def test_grain_data_loader_recorded(rows):
    grain = pytest.importorskip("grain")
    x, y = rows
    dataset = grain.MapDataset.range(40).shuffle(seed=3).map(lambda i: (x[i], y[i])).repeat()
    loader = dataset.to_iter_dataset().batch(8, drop_remainder=True)
    loss = lambda p, h, batch: jnp.mean((problem.network(p, batch.data[0]) - batch.data[1]) ** 2)
    objective = eqx.tree_at(
        lambda o: o.training.batches, problem.objective(loss=loss), hg.recorded(loader)
    )
    found = hg.hypergradient(objective, HYPER, adjoint=hg.Reversible(), segments=6)
    wanted = objective.hypergradient(HYPER, adjoint=hg.Stored())
    np.testing.assert_allclose(found.gradient["rate"], wanted.gradient["rate"], rtol=1e-4)


def of_torch(torch, rows):
    """A map-style data set of torch's, whose rows are tensors."""

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return len(rows[0])

        def __getitem__(self, i):
            return torch.tensor(rows[0][i]), torch.tensor(rows[1][i])

    return Rows()


@pytest.fixture
def torch():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch")


def test_torch_dataset(torch, rows):
    check(hg.stream(of_torch(torch, rows), size=8, key=1))


def test_torch_subset_which_gives_several_rows_at_once(torch, rows):
    subset = torch.utils.data.Subset(of_torch(torch, rows), range(40))
    check(hg.stream(subset, size=8, key=1))


def test_torch_loader_recorded(torch, rows):
    """Shuffled by torch, in another order each epoch."""

    def epochs():
        while True:
            yield from torch.utils.data.DataLoader(
                of_torch(torch, rows), batch_size=8, shuffle=True, drop_last=True
            )

    loss = lambda p, h, batch: jnp.mean((problem.network(p, batch.data[0]) - batch.data[1]) ** 2)
    objective = eqx.tree_at(
        lambda o: o.training.batches, problem.objective(loss=loss), hg.recorded(epochs())
    )
    found = hg.hypergradient(objective, HYPER, adjoint=hg.Reversible(), segments=6)
    wanted = objective.hypergradient(HYPER, adjoint=hg.Stored())
    np.testing.assert_allclose(found.gradient["rate"], wanted.gradient["rate"], rtol=1e-4)


def test_torch_loader_with_a_shorter_last_batch(torch, rows):
    subset = torch.utils.data.Subset(of_torch(torch, rows), range(37))
    batches = hg.recorded(torch.utils.data.DataLoader(subset, batch_size=8))
    with pytest.raises(RuntimeError, match=r"Batch 4 of the loader\[0\] .*drop_last=True"):
        batches(4)

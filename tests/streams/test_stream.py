"""Streams: the batches of `minibatches`, from sources that are not in memory."""

import copy
import gc
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
from hindgrad.segments import work
from tests.segments import problem

HYPER = {"rate": 0.3, "weight": np.linspace(0.5, 1.5, 40, dtype=np.float32), "scale": 0.8}


class Items:
    """Rows by number, as data sets have them."""

    def __init__(self, rows=40, change=lambda i, row: row):
        self.x, self.y = map(np.asarray, problem.data())
        self.rows, self.change, self.reads = rows, change, []

    def __len__(self):
        return self.rows

    def __getitem__(self, i):
        self.reads.append(i)
        return self.change(i, (self.x[i], self.y[i]))


def streamed(source, key=1, **options):
    """The problem's objective, with its batches from a source."""
    batches = hg.stream(source, size=8, key=key, **options)
    return eqx.tree_at(lambda o: o.training.batches, problem.objective(), batches)


@pytest.fixture(params=["arrays", "memmap", "items", "decoded"])
def source(request, tmp_path):
    """A source of the problem's rows, and its options."""
    x, y = map(np.asarray, problem.data())
    if request.param == "arrays":
        return (x, y), {}
    if request.param == "memmap":
        x.tofile(tmp_path / "x")
        return (np.memmap(tmp_path / "x", np.float32, "r", shape=x.shape), y), {}
    if request.param == "items":
        return Items(), {}
    return Items(change=lambda i, row: {"row": row}), {"decode": lambda item: item["row"]}


def test_the_batches_of_minibatches(source):
    source, options = source
    batches, wanted = hg.stream(source, size=8, key=1, **options), problem.objective().training
    scan = lambda batches: jax.jit(
        lambda: jax.lax.map(lambda t: (batches(t).data, batches(t).index), jnp.arange(23))
    )()
    assert eqx.tree_equal(scan(batches), scan(wanted.batches))
    for t in (0, 22, 2**31 - 1):
        assert eqx.tree_equal(batches(t), wanted.batches(t))


ADJOINTS = {
    "stored": hg.Stored(),
    "checkpointed": hg.Checkpointed(slots=3),
    "reversible": hg.Reversible(),
    "interpolated": hg.Interpolated(),
    "evolution": hg.Evolution(spread=0.01, pairs=2),
}


@pytest.mark.parametrize("adjoint", ADJOINTS)
def test_every_adjoint(adjoint):
    """By callbacks, in one program."""
    found, wanted = (
        objective.hypergradient(HYPER, adjoint=ADJOINTS[adjoint])
        for objective in (streamed(Items()), problem.objective())
    )
    np.testing.assert_array_equal(found.value, wanted.value)
    for name in HYPER:
        np.testing.assert_allclose(
            found.gradient[name], wanted.gradient[name], rtol=1e-5, atol=1e-7
        )


def fixed(objective):
    """With a start that depends on no hyperparameter."""
    init = problem.fixed_start()
    return hg.Objective(objective.training, init=init, score=objective.score)


@pytest.mark.parametrize("adjoint", [hg.Forward(), hg.Truncated(9)], ids=repr)
def test_adjoints_of_few_hyperparameters(adjoint):
    def gradient(objective):
        value = lambda rate: fixed(objective)(HYPER | {"rate": rate}, adjoint=adjoint)
        return jax.grad(value)(0.3)

    np.testing.assert_allclose(
        gradient(streamed(Items())), gradient(problem.objective()), rtol=1e-5
    )


@pytest.mark.parametrize("adjoint", ["stored", "reversible"])
@pytest.mark.parametrize("slots", [None, 2])
def test_in_segments(source, adjoint, slots):
    source, options = source
    options = streamed(source, **options), HYPER
    found = hg.hypergradient(*options, adjoint=ADJOINTS[adjoint], segments=6, slots=slots)
    wanted = problem.objective().hypergradient(HYPER, adjoint=ADJOINTS[adjoint])
    np.testing.assert_allclose(found.value, wanted.value, rtol=1e-6)
    for name in HYPER:
        np.testing.assert_allclose(
            found.gradient[name], wanted.gradient[name], rtol=1e-4, atol=1e-7
        )


def test_tuning():
    tune = lambda objective: hg.tune(
        objective, {"rate": 0.1}, optax.adam(0.05), steps=2, progress=False, diagnose=False
    )
    weights = {"weight": jnp.asarray(HYPER["weight"])}
    unweighted = lambda params, hyper, batch: problem.loss(params, weights | hyper, batch)
    found, wanted = (
        tune(fixed(eqx.tree_at(lambda o: o.training.loss, objective, unweighted)))
        for objective in (streamed(Items()), problem.objective())
    )
    np.testing.assert_allclose(found.hyper["rate"], wanted.hyper["rate"], rtol=1e-6)


def test_row_numbers_are_int32_with_x64(x64):
    batch = hg.stream(np.arange(10), size=3, key=0)(2)
    assert batch.index.dtype == jnp.int32
    assert batch.data.dtype == jnp.int64
    assert (
        jax.jit(lambda t: hg.stream(np.arange(10.0), size=3, key=0)(t).data)(1).dtype == jnp.float64
    )


def test_types_that_jax_does_not_have_are_cast_where_that_loses_nothing():
    assert hg.stream(np.arange(10), size=3, key=0)(0).data.dtype == jnp.int32
    assert hg.stream(np.arange(10.0), size=3, key=0)(0).data.dtype == jnp.float32
    assert hg.stream(np.arange(10, dtype=np.uint8), size=3, key=0)(0).data.dtype == jnp.uint8
    with pytest.raises(RuntimeError, match="whole numbers beyond int32"):
        hg.stream(np.arange(10) + 2**40, size=3, key=0)(0)


def raising(i, row):
    if i == 7:
        raise OSError("a bad sector")
    return row


WRONG_ROWS = {
    "raises": (raising, "Row 7 could not be read: OSError: a bad sector"),
    "longer": (
        lambda i, row: (np.zeros(6, np.float32), row[1]) if i == 7 else row,
        r"Row 7\[0\] is float32\[6\], and in row 0 float32\[5\]. All rows must be alike",
    ),
    "another dtype": (
        lambda i, row: (row[0].astype(np.float16), row[1]) if i == 7 else row,
        r"Row 7\[0\] is float16\[5\], and in row 0 float32\[5\]",
    ),
    "another structure": (
        lambda i, row: {"x": row[0]} if i == 7 else row,
        "Row 7 is like PyTreeDef.*, and row 0 like",
    ),
    "text": (lambda i, row: (row[0], "seven") if i == 7 else row, r"Row 7\[1\] is 'seven'"),
}


@pytest.mark.parametrize("wrong", WRONG_ROWS)
def test_a_wrong_row_is_named(wrong):
    change, message = WRONG_ROWS[wrong]
    objective = streamed(Items(change=change))
    with pytest.raises(RuntimeError, match=message):
        objective(HYPER)
    with pytest.raises(RuntimeError, match=message):
        jax.grad(lambda rate: objective(HYPER | {"rate": rate}))(0.3)
    with pytest.raises(RuntimeError, match=message):
        hg.hypergradient(objective, HYPER, segments=6)


def test_a_row_that_fails_once_costs_no_segment(tmp_path):
    """The call goes on from the segment at which it was interrupted."""
    fails = [True]

    def change(i, row):
        if i == 7 and len(source.reads) > 150 and fails:
            fails.clear()
            raise OSError("the network is down")
        return row

    source = Items(change=change)
    objective = streamed(source)
    options = {"segments": 37, "checkpoint": tmp_path, "adjoint": hg.Reversible()}
    with pytest.raises(RuntimeError, match="Row 7 could not be read: OSError: the network is down"):
        hg.hypergradient(objective, HYPER, **options)
    assert len(list((tmp_path / "segments").glob("tape-*"))) > 10
    source.reads.clear()
    found = hg.hypergradient(objective, HYPER, **options)
    assert len(source.reads) < 1.7 * 37 * 8
    wanted = hg.hypergradient(problem.objective(), HYPER, segments=37, adjoint=hg.Reversible())
    np.testing.assert_array_equal(found.gradient["weight"], wanted.gradient["weight"])


def test_rows_that_change_between_two_reads():
    """As a source that augments at random has them."""
    draw = np.random.default_rng(0)
    noisy = lambda i, row: (row[0] + draw.normal(size=5).astype(np.float32), row[1])
    with pytest.raises(RuntimeError, match=r"other rows for steps .* than the first time"):
        hg.hypergradient(streamed(Items(change=noisy)), HYPER, segments=6)


def test_rows_that_changed_between_two_processes(tmp_path):
    """The fingerprints are kept with the segments."""
    options = {"segments": 6, "checkpoint": tmp_path}
    source = Items()
    objective = streamed(source)
    with pytest.raises(KeyboardInterrupt):
        killed_on_the_way_back(objective, options)
    source.change = lambda i, row: (row[0], row[1] + (i == 3))
    with pytest.raises(RuntimeError, match="other rows for steps"):
        hg.hypergradient(streamed(source), HYPER, **options)


def killed_on_the_way_back(objective, options):
    with pytest.MonkeyPatch.context() as patch:
        pulled = work._Work._pulled

        def interrupted(self, segment, way):
            if segment == 3:
                raise KeyboardInterrupt
            return pulled(self, segment, way)

        patch.setattr(work._Work, "_pulled", interrupted)
        hg.hypergradient(objective, HYPER, **options)


def test_a_length_that_changes():
    source = Items()
    objective = streamed(source)
    source.rows = 39
    with pytest.raises(RuntimeError, match="has 39 rows now, and had 40"):
        hg.hypergradient(objective, HYPER, segments=6)


def test_a_checkpoint_of_another_source(tmp_path):
    hg.hypergradient(streamed(Items()), HYPER, segments=6, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="call with another `source`"):
        hg.hypergradient(streamed(Items(rows=39)), HYPER, segments=6, checkpoint=tmp_path)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (np.zeros((0, 3)), {}, "a source of 0 rows"),
        ([], {}, "a source of 0 rows"),
        ({}, {}, "a source of 0 rows"),
        ((np.zeros(3), np.zeros(4)), {}, "differ in their number of rows"),
        (iter([1, 2]), {}, "no random access .* hg.recorded"),
        (["a", "b"], {"size": 1}, "Row 0 is 'a' .*decode="),
        ({"x": [1.0], "y": [2.0]}, {}, r"a dict of \['float'\], and one of NumPy or JAX arrays"),
        (np.zeros(3), {"size": 4}, r"stream\(size=4\) of a source with 3 rows"),
        (np.zeros(3), {"size": 0}, r"stream\(size=0\)"),
        (np.zeros(3), {"key": -1}, "seed goes from 0"),
        (range(2**40), {}, "does not repeat itself"),
        (
            [1.0, 2.0],
            {"decode": lambda row: row / 0, "size": 1},
            "Row 0, by decode, .*ZeroDivision",
        ),
    ],
)
def test_messages(source, options, message):
    with pytest.raises(ValueError, match=message):
        hg.stream(source, **{"size": 1, "key": 0} | options)


@pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy])
def test_a_stream_stays_in_its_process(copied):
    with pytest.raises(TypeError, match=r"cannot be copied or pickled.*Make it anew"):
        copied(hg.stream(np.zeros((4, 3)), size=2, key=0))


def test_a_stream_within_a_function_of_the_key():
    objective = problem.objective()
    source = Items()
    training = lambda key: eqx.tree_at(
        lambda t: t.batches, objective.training, hg.stream(source, size=8, key=key)
    )
    with pytest.raises(ValueError, match="Make the stream outside"):
        hg.Objective(training, init=objective.init, score=objective.score)(HYPER)


def test_a_checkpoint_of_a_source_with_other_rows(tmp_path):
    hg.hypergradient(streamed(Items()), HYPER, segments=6, checkpoint=tmp_path)
    other = Items(change=lambda i, row: (2 * row[0], row[1]))
    with pytest.raises(ValueError, match="call with another `source`"):
        hg.hypergradient(streamed(other), HYPER, segments=6, checkpoint=tmp_path)


def test_rows_may_be_others_in_another_call():
    x, y = (np.array(part) for part in problem.data())
    objective = streamed((x, y))
    before = hg.hypergradient(objective, HYPER, segments=6).value
    x *= 2
    after = hg.hypergradient(objective, HYPER, segments=6).value
    assert after != before
    fresh = hg.hypergradient(streamed((x, y)), HYPER, segments=6).value
    np.testing.assert_array_equal(after, fresh)


def test_steps_out_of_range():
    for t in (-1, 2**31):
        with pytest.raises(ValueError, match=f"Batch t={t}: steps are counted from 0"):
            streamed(Items()).training.batches(t)


def test_a_batch_of_a_fixed_step_while_jax_traces():
    batches = hg.stream(np.arange(40.0), size=8, key=0)
    found = jax.jit(lambda x: x + batches(3).data)(jnp.zeros(8))
    np.testing.assert_array_equal(found, batches(3).data)


def test_64_bits_through_a_callback(x64):
    """Whose thread knows nothing of the setting here."""
    rows = {"x": np.arange(40) / 3, "n": np.arange(40) + 2**40}
    batches, wanted = hg.stream(rows, size=8, key=0), hg.minibatches(rows, size=8, key=0)
    found = jax.jit(lambda t: batches(t).data)(5)
    assert eqx.tree_equal(found, jax.jit(lambda t: wanted(t).data)(5))


def test_rows_that_jax_computes_in_64_bits(x64):
    """They are read in the background, in another thread."""
    items = Items(change=lambda i, row: jnp.full(2, i) * 0.1)
    batches = hg.stream(items, size=8, key=1)
    batch = jax.jit(lambda t: batches(t))(3)
    np.testing.assert_array_equal(batch.data[:, 0], np.asarray(batch.index) * 0.1)


def test_several_threads_read_one_stream():
    batches = hg.stream(np.arange(400.0), size=8, key=0)
    wanted = hg.minibatches(np.arange(400.0), size=8, key=0)
    steps = np.random.default_rng(0).integers(0, 200, 60)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda t: batches(int(t)).data, steps))
    for t, data in zip(steps, found, strict=True):
        np.testing.assert_array_equal(data, wanted(int(t)).data)


def test_little_is_read_beyond_what_is_used():
    source = Items()
    hg.stream(source, size=2, key=0)(0)
    assert len(source.reads) <= 1 + 2 * 16


def test_what_was_read_is_freed_with_the_stream():
    def used():
        objective = streamed(Items())
        jax.grad(lambda rate: objective(HYPER | {"rate": rate}))(0.3)
        objective(HYPER, adjoint=hg.Reversible())
        hg.hypergradient(objective, HYPER, segments=3)
        return weakref.ref(objective.training.batches.ahead)

    ahead = used()
    for _ in range(3):
        gc.collect()
    assert ahead() is None


def test_a_length_that_cannot_be_told_any_more():
    """What a source raises that is no row's fault names the step."""

    class Closed(Items):
        def __len__(self):
            if len(self.reads) > 20:
                raise OSError("the file is closed")
            return 40

    with pytest.raises(RuntimeError, match=r"The batch of step \d+ could not be read: OSError"):
        hg.hypergradient(streamed(Closed()), HYPER, segments=6)

"""Batches: each row once an epoch, in orders that look random, at a cost of O(size)."""

import equinox as eqx
import hypothesis.strategies as st
import jax
import jax.extend
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from hindgrad.batches import full_batch, minibatches, permuted, permuted_on_host

seeds = st.integers(0, 2**32 - 1)
REPEATS = 2**17
"""Draws in the statistical tests."""
UNLIKELY = 1e-5
"""The p-value below which a draw counts as not uniform (the seeds are fixed)."""


@pytest.fixture
def unchecked():
    """Without the tests' type checks, as in a user's program."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def words(seed):
    return jax.random.key_data(jax.random.key(seed))


def rows(n, size, key, steps):
    batches = minibatches(jnp.arange(n), size=size, key=key)
    return np.asarray(jax.vmap(lambda t: batches(t).index)(jnp.arange(steps)))


def places(n, place, *, seed=None):
    """Where one place goes: in many epochs of one key, or in one epoch of many keys."""
    if seed is None:
        by_key = jax.vmap(lambda w: permuted(jnp.uint32([place]), jnp.uint32([3]), w, n)[0])
        seeds = jnp.arange(REPEATS, dtype=jnp.uint32)
        return np.asarray(by_key(jnp.stack([jnp.zeros_like(seeds), seeds], axis=1)))
    place = jnp.full(REPEATS, place, jnp.uint32)
    return np.asarray(permuted(place, jnp.arange(REPEATS, dtype=jnp.uint32), words(seed), n))


def p_value(*values_and_bins):
    """Of the hypothesis that the values, combined, fall uniformly into bins."""
    values, bins = np.zeros(REPEATS, int), 1
    for value, n in values_and_bins:
        values, bins = values[: len(value)] * n + value.astype(int), bins * n
    return stats.chisquare(np.bincount(values, minlength=bins)).pvalue


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 2000), seed=seeds, epoch=st.integers(0, 2**32 - 1))
def test_every_epoch_is_a_permutation(n, seed, epoch):
    place = np.arange(2000, dtype=np.uint32) % n  # one shape, so that only n compiles anew
    image = permuted(place, jnp.full(2000, epoch, jnp.uint32), words(seed), n)
    assert sorted(np.asarray(image[:n])) == list(range(n))


@settings(deadline=None, max_examples=12)
@given(st.data())
def test_each_row_comes_once_an_epoch_also_where_the_size_does_not_divide(data):
    n = data.draw(st.integers(1, 60))
    size = data.draw(st.integers(1, n))
    epochs = 4
    drawn = rows(n, size, data.draw(seeds), -(-epochs * n // size)).ravel()[: epochs * n]
    for epoch in drawn.reshape(epochs, n):
        assert sorted(epoch) == list(range(n))


def test_data_is_the_rows_of_any_pytree():
    x, y = np.arange(30.0, dtype=np.float32).reshape(10, 3), jnp.arange(10) * 7
    batch = minibatches({"x": x, "y": (y, None)}, size=4, key=1)(5)
    np.testing.assert_array_equal(batch.data["x"], x[batch.index])
    np.testing.assert_array_equal(batch.data["y"][0], y[batch.index])
    assert batch.data["y"][1] is None
    assert batch.index.dtype == jnp.int32


def test_the_same_key_and_step_give_the_same_batch(key):
    one, two = (minibatches(jnp.arange(50), size=8, key=key) for _ in range(2))
    assert eqx.tree_equal(one(7), two(7))
    other = minibatches(jnp.arange(50), size=8, key=jax.random.fold_in(key, 1))
    assert not np.array_equal(one(7).index, other(7).index)
    assert not np.array_equal(one(0).index, one(25).index)  # the same places, four epochs on


def test_keys_of_every_kind():
    typed = minibatches(jnp.arange(50), size=8, key=jax.random.key(3))(2)
    seed = minibatches(jnp.arange(50), size=8, key=3)(2)
    legacy = minibatches(jnp.arange(50), size=8, key=jax.random.PRNGKey(3))(2)
    assert typed.index.tolist() == seed.index.tolist() == legacy.index.tolist()
    assert typed.key == seed.key == jax.random.wrap_key_data(legacy.key)
    long = minibatches(jnp.arange(50), size=50, key=jax.random.key(3, impl="unsafe_rbg"))(2)
    assert sorted(long.index.tolist()) == list(range(50))


def test_each_batch_has_its_own_key(key):
    for batches in (minibatches(jnp.arange(5), size=2, key=key), full_batch(jnp.ones(5), key=key)):
        assert batches(0).key != batches(1).key
        assert batches(4).key == jax.random.fold_in(key, 4)
    assert full_batch(jnp.ones(5))(0).key is None


def test_full_batch_is_all_of_the_data():
    data = {"x": jnp.ones((3, 2)), "y": np.arange(3)}
    batch = eqx.filter_jit(full_batch(data, key=0))(9)
    assert batch.index.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(batch.data["x"], data["x"])
    np.testing.assert_array_equal(batch.data["y"], data["y"])


def test_same_rows_and_keys_with_x64_on(key):
    def run():
        batches = minibatches(np.arange(1000.0), size=64, key=key)
        steps = jnp.arange(40)
        return jax.vmap(lambda t: (batches(t).index, batches(t).key))(steps), batches(17)

    (index, keys), last = run()
    with jax.enable_x64(True):
        (index64, keys64), last64 = run()
    np.testing.assert_array_equal(index, index64)
    assert jnp.array_equal(keys, keys64)
    assert last64.data.dtype == jnp.float64
    assert last.index.dtype == last64.index.dtype


def test_pure_under_jit_scan_and_vmap_over_steps_and_keys(key):
    def index(key, t):
        return minibatches(jnp.arange(37), size=5, key=key)(t).index

    keys = jax.random.split(key, 3)
    expected = [[index(k, t).tolist() for t in range(11)] for k in keys]
    over_both = jax.vmap(lambda k: jax.vmap(lambda t: index(k, t))(jnp.arange(11)))
    assert over_both(keys).tolist() == expected
    scan = lambda k: jax.lax.scan(lambda c, t: (c, index(k, t)), 0, jnp.arange(11))[1]
    assert jax.jit(jax.vmap(scan))(keys).tolist() == expected


def test_differentiable_with_respect_to_the_data():
    x = jnp.arange(6.0)

    def total(x):
        batches = minibatches(x, size=4, key=0)
        step = lambda carry, t: (carry + jnp.sum(batches(t).data ** 2), None)
        return jax.lax.scan(step, 0.0, jnp.arange(3))[0]

    np.testing.assert_allclose(jax.grad(total)(x), 4 * x)  # each row comes twice
    np.testing.assert_allclose(jax.jvp(total, (x,), (x,))[1], jnp.sum(4 * x**2))


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("n", [2, 3, 5, 16, 101])
def test_each_place_goes_to_each_row_equally_often(n, seed):
    for place in {0, 1, n - 1}:
        assert p_value((places(n, place, seed=seed), n)) > UNLIKELY


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("n", [3, 4, 7, 30, 101])
def test_pairs_of_places_are_independent(n, seed):
    for one, other in {(0, 1), (0, n - 1), (n // 3, n // 2 + 1)}:
        first, second = places(n, one, seed=seed), places(n, other, seed=seed)
        gap = (second.astype(int) - first - 1) % n  # of 0 … n − 2: never the same row
        assert gap.max() == n - 2
        assert p_value((first, n), (gap, n - 1)) > UNLIKELY


@pytest.mark.parametrize("n", [2, 3, 17, 101])
def test_successive_epochs_are_independent(n):
    row = places(n, 0, seed=2)
    for lag in (1, 2, 7):
        assert p_value((row[:-lag], n), (row[lag:], n)) > UNLIKELY


def test_neighbours_in_a_long_epoch_are_not_correlated():
    n = 60_000
    order = rows(n, n, 5, 1)[0]
    bound = 5 / np.sqrt(n)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < bound
    assert abs(np.corrcoef(np.arange(n), order)[0, 1]) < bound
    gaps = np.diff(order) % n
    assert stats.chisquare(np.bincount(gaps * 50 // n, minlength=50)).pvalue > UNLIKELY
    # A random permutation has 1 fixed point on average, and keeps 1 neighbour at each distance.
    assert np.sum(order == np.arange(n)) < 8
    assert max(np.sum(gaps == d) for d in (1, 2, n - 1, n // 2)) < 10


def test_a_step_costs_the_batch_and_not_the_data():
    n, size = 5003, 8
    batches = minibatches({"x": jnp.ones((n, 3)), "y": jnp.arange(n)}, size=size, key=0)
    whole = {(n, 3), (n,)}
    for equation in equations(jax.make_jaxpr(batches)(0).jaxpr):
        assert equation.primitive.name != "sort"
        assert not whole & {v.aval.shape for v in equation.outvars}
        if whole & {v.aval.shape for v in equation.invars}:
            assert equation.primitive.name == "gather"


def test_the_order_is_not_computed_anew_for_each_gathered_element():
    batches = minibatches(jnp.ones((100, 30)), size=8, key=0)
    compiled = jax.jit(lambda t: batches(t).data).lower(jnp.int32(0)).compile()
    assert " while(" in compiled.as_text()  # a loop is what XLA does not fuse into a gather


def equations(jaxpr):
    """All equations of a jaxpr, those of the inner ones in their place."""
    for equation in jaxpr.eqns:
        inner = list(jax.extend.core.jaxprs_in_params(equation.params))
        if not inner:
            yield equation
        for each in inner:
            yield from equations(each)


def test_another_key_does_not_recompile():
    traces = []

    @eqx.filter_jit
    def index(batches, t):
        traces.append(t)
        return batches(t).index

    for seed in range(3):
        index(minibatches(jnp.arange(20), size=3, key=seed), jnp.int32(seed))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        ({"x": jnp.ones(3), "y": jnp.ones(4)}, {}, r"data\['x'\] has 3, data\['y'\] has 4"),
        ({}, {}, "without any array"),
        (jnp.float32(1), {}, "data is .* which has no rows"),
        ([1, 2, 3], {}, r"data\[0\] is 1, which has no rows"),
        (jnp.ones((0, 2)), {}, "given 0 rows"),
        (jnp.ones(3), {"size": 4}, "size=4.* of data with 3 rows: .*full_batch"),
        (jnp.ones(3), {"size": 0}, "size=0.* from 1 to 3"),
        (jnp.ones(3), {"key": -1}, r"key=-1.*jax\.random\.key"),
        (jnp.ones(3), {"key": 2**32}, "seed goes from 0"),
        (jnp.ones(3), {"key": jax.random.split(jax.random.key(0), 2)}, "one key is needed"),
    ],
)
def test_refusals(data, settings, message, unchecked):
    with pytest.raises(ValueError, match=message):
        minibatches(data, **{"size": 1, "key": 0} | settings)


def test_refuses_steps_out_of_range():
    batches = minibatches(jnp.ones(1000), size=1000, key=0)
    assert batches(2**31 - 1).index.shape == (1000,)
    for t in (-1, 2**31):
        with pytest.raises(ValueError, match="counted in 32 bits"):
            batches(t)


@pytest.mark.parametrize("t", [0, 2**32 // 48, 2**32 // 48 + 1, 2**31 - 5])
def test_positions_do_not_wrap(t):
    """Against Python's whole numbers: 48 rows a step pass 2^32 within the run."""
    n, size = 101, 48
    batches = minibatches(jnp.arange(n), size=size, key=3)
    positions = [t * size + i for i in range(size)]
    wanted = permuted(
        jnp.asarray([p % n for p in positions], jnp.uint32),
        jnp.asarray([p // n % 2**32 for p in positions], jnp.uint32),
        words(3),
        n,
    )
    np.testing.assert_array_equal(batches(t).index, wanted)
    np.testing.assert_array_equal(jax.jit(lambda t: batches(t).index)(jnp.int32(t)), wanted)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 2**31 - 1), seed=seeds, epoch=st.integers(0, 2**32 - 1))
def test_the_host_has_the_same_order(n, seed, epoch):
    place = np.arange(50, dtype=np.uint32) % np.uint32(n)
    epochs = np.full(50, epoch, np.uint32)
    wanted = permuted(jnp.asarray(place), jnp.asarray(epochs), words(seed), n)
    found = permuted_on_host(place, epochs, np.asarray(words(seed)), n)
    np.testing.assert_array_equal(found, wanted)

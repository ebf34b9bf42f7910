"""Gradients summed over shards as whole numbers: the same bits in any order."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hindgrad as hg
from conftest import SEED
from hindgrad import shards
from hindgrad.batches import Batch
from test_microbatches import HYPER, SIZE, data, forward, loss, objective, start

TERMS = st.lists(
    st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False), min_size=2, max_size=16
)


@settings(max_examples=100, deadline=None)
@given(TERMS, st.randoms())
def test_a_total_does_not_depend_on_the_order(terms, random):
    """It is within 2^-49 of the largest number of the sum of rational numbers."""
    with jax.enable_x64(True):
        of = lambda x: float(shards.total(jnp.asarray(x, jnp.float64)[:, None]))
        found = of(terms)
        exact = sum(map(Fraction, terms))
        bound = Fraction(len(terms)) ** 2 * max(map(abs, map(Fraction, terms))) / 2**50
        assert abs(Fraction(found) - exact) <= bound
        for _ in range(3):
            random.shuffle(terms)
            assert of(terms) == found


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.complex64])
def test_totals_of_other_types(key, dtype):
    x = jax.random.normal(key, (4, 2, 3), jnp.float32).astype(dtype)
    found = shards.total(x)
    assert found.dtype == dtype
    wanted = np.asarray(x, np.complex128).sum((0, 1))
    np.testing.assert_allclose(np.asarray(found, np.complex128), wanted, rtol=4e-3)
    assert jnp.all(shards.total(jnp.zeros_like(x)) == 0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stays_so(value):
    assert not jnp.isfinite(shards.total(jnp.array([[1.0, value]])))


def in_shards(key, count, **options):
    options = {"shards": count, "loss": loss} | options
    return objective(key, options.pop("microbatch", None), options.pop("loss"), **options)


@pytest.fixture(scope="module")
def wanted():
    """The score and its hypergradient without shards, in float64."""
    with jax.enable_x64(True):
        return jax.value_and_grad(in_shards(jax.random.key(SEED), None))(HYPER)


@pytest.mark.parametrize(
    ("adjoint", "count", "microbatch"),
    [
        (hg.Stored(), 3, None),
        (hg.Stored(activations=2**20), 3, None),
        (hg.Checkpointed(slots=2), 12, None),
        (hg.Forward(), 3, None),
        (hg.Reversible(), 2, 3),
    ],
    ids=repr,
)
def test_the_same_hypergradient(key, x64, wanted, adjoint, count, microbatch):
    objective = in_shards(key, count, microbatch=microbatch)
    value, found = jax.value_and_grad(lambda h: objective(h, adjoint=adjoint))(HYPER)
    np.testing.assert_allclose(value, wanted[0], rtol=1e-12)
    for name in found:
        np.testing.assert_allclose(found[name], wanted[1][name], rtol=1e-8, atol=1e-12)


def test_second_derivatives(key, x64):
    second = lambda count: jax.hessian(
        lambda rate: in_shards(key, count)(HYPER | {"rate": rate}, adjoint=hg.Checkpointed())
    )(0.3)
    np.testing.assert_allclose(second(4), second(None), rtol=1e-8)


def test_rules_that_are_no_derivatives(key, x64):
    """A straight-through rule in the loss: by the same transpose as without shards."""

    @jax.custom_vjp
    def rounded(x):
        return jnp.round(4 * x) / 4

    rounded.defvjp(lambda x: (rounded(x), None), lambda _, c: (c,))
    own = lambda params, hyper, batch: loss(jax.tree.map(rounded, params), hyper, batch)
    by = lambda count: jax.grad(in_shards(key, count, loss=own))(HYPER)
    found, wanted = by(4), by(None)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-8, atol=1e-12)


def test_states_are_averaged(key, x64):
    """Floats are the mean over the shards, each of which begins from the same; counts are one's."""

    def with_state(params, hyper, batch, state):
        mean = jnp.mean(batch.data["x"])
        state = {"mean": 0.9 * state["mean"] + 0.1 * mean, "count": state["count"] + 1}
        errors = (forward(params, batch.data["x"]) - batch.data["y"] - state["mean"]) ** 2
        return jnp.mean(errors), state

    begin = {"mean": jnp.float64(0.3), "count": jnp.int32(0)}
    training = in_shards(key, 3, loss=with_state).training
    run = lambda training, adjoint, mean: training(
        start(key), HYPER, model_state=begin | {"mean": mean}, adjoint=adjoint
    )
    mean = begin["mean"]
    for t in range(7):
        mean = 0.9 * mean + 0.1 * jnp.mean(training.batches(t).data["x"])
    after = run(training, None, begin["mean"]).model_state
    assert after["count"] == 7
    np.testing.assert_allclose(after["mean"], mean, rtol=1e-12)
    by = lambda training, adjoint: jax.grad(
        lambda mean: run(training, adjoint, mean).params["in"].sum()
    )(0.3)
    wanted = (by_hand(key, with_state, 0.3 + h) for h in (1e-6, -1e-6))
    upper, lower = wanted
    for adjoint in (hg.Checkpointed(), hg.Reversible()):
        np.testing.assert_allclose(by(training, adjoint), (upper - lower) / 2e-6, rtol=1e-6)


def by_hand(key, with_state, mean):
    """The same run in a loop: the sum of what it trains."""
    params, state = start(key), {"mean": mean, "count": jnp.int32(0)}
    velocity = jax.tree.map(jnp.zeros_like, params)
    batches = hg.minibatches(data(key), size=SIZE, key=key)
    for t in range(7):
        rows = batches(t).data

        def total(params, state=state, rows=rows):
            parts = [jax.tree.map(lambda x, i=i: x[i : i + 4], rows) for i in range(0, SIZE, 4)]
            results = [with_state(params, HYPER, Batch(part, None, None), state) for part in parts]
            means = [state["mean"] for _, state in results]
            return sum(value for value, _ in results) / 3, sum(means) / 3

        grads, average = jax.grad(total, has_aux=True)(params)
        state = {"mean": average, "count": state["count"] + 1}
        velocity = jax.tree.map(lambda v, g: 0.8 * v - 0.2 * g, velocity, grads)
        params = jax.tree.map(lambda p, v: p + HYPER["rate"] * v, params, velocity)
    return params["in"].sum()


def test_each_has_its_own_key(key):
    """Dropout is not the same in all shards."""

    def dropped(params, hyper, batch):
        return jnp.mean(jax.random.uniform(batch.key, (4,)) * params["in"][0, 0])

    run = in_shards(key, 3, loss=dropped).run(HYPER, key)
    batch = hg.minibatches(data(key), size=SIZE, key=key)(0)
    draws = [jax.random.uniform(jax.random.fold_in(batch.key, i), (4,)) for i in range(3)]
    wanted = jnp.mean(jnp.stack(draws)) * start(key)["in"][0, 0]
    np.testing.assert_allclose(run.losses[0], wanted, rtol=1e-5)


class Reduction:
    """Sums over shards in another order at every call, as a network of devices may; one number of
    the sum of one call can be spoilt on the way."""

    def __init__(self, spoilt=()):
        self.random, self.calls, self.spoilt = np.random.default_rng(0), 0, spoilt

    def __call__(self, x):
        terms = x.reshape(-1, *x.shape[2:])
        order = jax.ShapeDtypeStruct((len(terms),), jnp.int32)
        wrong = jax.ShapeDtypeStruct((), jnp.int32)
        first = terms.reshape(len(terms), -1)[0, 0]  # so that no call is made once for all steps
        order, wrong = jax.pure_callback(self.called, (order, wrong), first.astype(jnp.float32))
        result, _ = jax.lax.scan(lambda sum, i: (sum + terms[i], None), 0 * terms[0], order)
        return result + jnp.zeros_like(result).at[(0,) * result.ndim].set(wrong)

    def called(self, first):
        self.calls += 1
        order = self.random.permutation(SIZE).astype(np.int32)
        return order, np.int32(2**20 if self.calls in self.spoilt else 0)


def run_backwards(key):
    value = lambda h: in_shards(key, 12)(h, adjoint=hg.Reversible())
    return jax.value_and_grad(value)(HYPER)


def test_a_run_comes_home_whatever_the_order(key, x64, monkeypatch):
    value, wanted = run_backwards(key)
    reduction = Reduction()
    monkeypatch.setattr(shards, "_sum", reduction)
    again, found = run_backwards(key)
    assert reduction.calls > 40
    assert again == value
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9)


def test_sums_of_floats_do_not_come_home(key, x64, monkeypatch):
    """What whole numbers are for; and it is said, not returned."""
    monkeypatch.setattr(shards, "_sum", Reduction())
    monkeypatch.setattr(shards, "_as_whole", lambda x: x)
    with pytest.raises(Exception, match="did not lead to the initial value"):
        run_backwards(key)


@pytest.mark.parametrize("first", [10, 30])
def test_a_wrong_sum_is_noticed(key, x64, monkeypatch, first):
    """One number of the sums of a step, on the way forward or back."""
    monkeypatch.setattr(shards, "_sum", Reduction(spoilt=range(first, first + 3)))
    with pytest.raises(Exception, match="did not lead to the initial value"):
        run_backwards(key)


@pytest.mark.parametrize(
    ("count", "changes", "message"),
    [
        (5, {}, r"shards=5\) does not divide the 12 rows of a batch.*\[1, 2, 3, 4, 6, 12\]"),
        (0, {}, r"Training\(shards=0\): a whole number, at least 1"),
        (2, {"batches": lambda t: t}, r"Training\(shards=2\): the batch has no array with rows"),
        (
            2,
            {"batches": lambda t: Batch(jnp.ones(4), jax.random.key(0, impl="rbg"), None)},
            "a key of the kind 'rbg', whose draws depend on how many are made side by side",
        ),
    ],
)
def test_messages(key, count, changes, message):
    with pytest.raises(ValueError, match=message):
        in_shards(key, count, **changes)(HYPER)


def test_gpus_are_told_to_sum_in_order(key, monkeypatch):
    """Where there is none, by what JAX says."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("XLA_FLAGS", "")
    with pytest.warns(RuntimeWarning, match="unless XLA_FLAGS has --xla_gpu_deterministic_ops"):
        in_shards(key, 3)(HYPER)
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_exclude_nondeterministic_ops=true")
    in_shards(key, 4)(HYPER)

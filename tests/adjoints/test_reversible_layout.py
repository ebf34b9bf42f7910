"""Leaves side by side: the same bits as alone, and the right leaf in every message."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
import problems
from hindgrad.adjoints.reversible import layout
from hindgrad.adjoints.reversible.layout import Layout

OPTIMIZERS = {
    "momentum": hg.Momentum(problems.rate, 0.9, weight_decay=hg.Coupled(1e-3)),
    "adamw": hg.Adam(
        lambda hyper, t: 0.01 * hyper["rate"]["out"][t], weight_decay=hg.Decoupled(0.1)
    ),
    "averaged": hg.Averaged(hg.Momentum(problems.rate, 0.9), decay=0.8),
    "a decay for each part": hg.Momentum(
        problems.rate, {"hidden": {"w": 0.8, "b": 0.5}, "out": 0.9}
    ),
}


def test_joining_and_splitting():
    shapes = [(2, 3), (), (4,), (0,), (2,)]
    found = Layout.of(shapes, ["a", "a", None, "a", "b"])
    assert found.groups == ((0, 1, 3), (2,), (4,))
    leaves = [jnp.arange(6.0).reshape(2, 3), jnp.float32(7), jnp.zeros(0)]
    joined = found.join(0, leaves)
    np.testing.assert_array_equal(joined, [0, 1, 2, 3, 4, 5, 7])
    for x, y in zip(found.split(0, joined), leaves, strict=True):
        np.testing.assert_array_equal(x, y)
    flag = lambda *at: jnp.zeros(7, bool).at[jnp.array(at)].set(True)
    assert [int(found.first(0, flag(*at))) for at in ([0], [5], [6], [6, 2])] == [0, 0, 1, 0]
    assert int(found.first(1, jnp.array([False, True, False, False]))) == 2


def test_large_leaves_stay_alone(monkeypatch):
    monkeypatch.setattr(layout, "SMALL", 6)
    assert Layout.of([(2, 3), (5,), (3,)], ["a", "a", "a"]).groups == ((0,), (1, 2))


def test_leaves_on_several_devices_stay_alone(monkeypatch):
    """Each may be split over them in its own way."""
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    assert Layout.of([(3,), (3,)], ["a", "a"]).groups == ((0,), (1,))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_same_bits_as_alone(monkeypatch, key, name):
    params = problems.init(key)
    hyper = problems.hyper(params)
    training = problems.training(OPTIMIZERS[name], problems.STEPS)

    def value(hyper):
        run = training(params, hyper, adjoint=hg.Reversible(min_decay=0.5))
        return problems.score(run), (run.params, run.state)

    def found():
        jax.clear_caches()
        return jax.value_and_grad(value, has_aux=True)(hyper)

    joined = found()
    monkeypatch.setattr(layout, "SMALL", 0)
    alone = found()
    assert jax.tree.all(jax.tree.map(lambda x, y: jnp.all(x == y), joined[0], alone[0]))
    assert problems.relative_error(joined[1], alone[1]) < 1e-5


def quadratic(rate=0.1, steps=12):
    """Parts of a state that do not act on each other."""
    loss = lambda params, hyper, batch: sum(
        jnp.sum(hyper["scale"] * w**2) for w in jax.tree.leaves(params)
    )
    return hg.Training(loss, optimizer=hg.Momentum(rate, 0.9), batches=lambda t: t, steps=steps)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda p: p | {"b": p["b"].at[1].set(jnp.nan)}, r"params\['b'\] became NaN"),
        (lambda p: p | {"c": p["c"].at[0].set(1020.0)}, r"params\['c'\] left the range"),
    ],
)
def test_failures_name_the_leaf(changed, message):
    params = changed({"a": jnp.ones((2, 2)), "b": jnp.ones(3), "c": jnp.ones(2)})
    final = lambda hyper: sum(
        jnp.sum(x)
        for x in jax.tree.leaves(
            quadratic(rate=60.0)(params, hyper, adjoint=hg.Reversible()).params
        )
    )
    with pytest.raises(RuntimeError, match=message):
        jax.block_until_ready(jax.grad(final)({"scale": jnp.float32(-1e-3)}))


def unstable(steps=8):
    """A loss whose part in `b` draws a random number outside of JAX."""
    rng, struct = np.random.default_rng(0), jax.ShapeDtypeStruct((), jnp.float32)

    @jax.custom_jvp
    def noise(x):
        draw = lambda _: np.asarray(rng.normal(), np.float32)
        return jax.pure_callback(draw, struct, x, vmap_method="sequential")

    noise.defjvp(lambda primals, _: (noise(*primals), jnp.zeros(())))

    def loss(params, hyper, batch):
        part = {name: jnp.sum(w**2) for name, w in params.items()}
        return hyper["scale"] * (part["a"] + part["b"] * (1 + noise(part["b"])) + part["c"])

    optimizer = hg.Momentum(0.1, 0.9)
    return hg.Training(loss, optimizer=optimizer, batches=lambda t: t, steps=steps)


WAYS = {
    "whole": lambda objective, hyper: jax.grad(lambda h: objective(h, adjoint=hg.Reversible()))(
        hyper
    ),
    "segments": lambda objective, hyper: hg.hypergradient(
        objective, hyper, adjoint=hg.Reversible(), segments=4, progress=False
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("way", WAYS)
def test_the_leaf_that_does_not_come_home_is_named(way):
    """The others, beside it in one array, do."""
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones(3), "c": jnp.ones(2)}
    score = lambda params, *_: sum(jnp.sum(x) for x in jax.tree.leaves(params))
    objective = hg.Objective(unstable(), init=params, score=score)
    with pytest.raises(RuntimeError, match=r"initial value of (params|memory)\['b'\]"):
        jax.block_until_ready(WAYS[way](objective, {"scale": jnp.float32(0.1)}))


def test_programs_do_not_grow_with_small_leaves():
    """A hundred biases are multiplied as one."""

    def multiplications(count):
        params = [jnp.ones(i % 5 + 1) for i in range(count)]
        final = lambda hyper: jnp.sum(quadratic()(params, hyper, adjoint=hg.Reversible()).params[0])
        text = jax.jit(jax.grad(final)).lower({"scale": jnp.float32(0.1)}).as_text()
        return text.count("call @multiply"), text.count("call @divide_back")

    assert multiplications(2) == multiplications(100) == (1, 1)

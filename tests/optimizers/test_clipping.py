"""Clipping: against loops by hand, against optax, and backwards."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
from hindgrad.optimizers.clipping import ClipByGlobalNorm, ClipByValue

HYPER = {"rate": 0.1, "clip": 0.6, "target": 1.5, "weight_decay": 0.05}
START = {"a": np.array([0.3, -1.0, 2.0]), "b": np.array([[0.5, -0.2]])}
STEPS = 9


def loss(params, hyper, batch):
    return sum(jnp.sum((leaf - hyper["target"]) ** 4) for leaf in params.values()) / 8


def taken(name):
    return lambda hyper, t: hyper[name]


def objective(optimizer, start=START):
    training = hg.Training(loss, optimizer=optimizer, batches=lambda t: t, steps=STEPS)
    init = jax.tree.map(jnp.asarray, start)
    score = lambda params, hyper, key: sum(jnp.sum(p**2) for p in params.values())
    return hg.Objective(training, init=init, score=score)


def norm_by_hand(grads, limit):
    norm = jnp.sqrt(sum(jnp.sum(g**2) for g in grads.values()))
    return jax.tree.map(lambda g: g * jnp.minimum(1, limit / norm), grads)


def value_by_hand(grads, limit):
    return jax.tree.map(lambda g: jnp.minimum(jnp.maximum(g, -limit), limit), grads)


def adam_by_hand(clip, hyper):
    params = jax.tree.map(jnp.asarray, START)
    m = v = jax.tree.map(jnp.zeros_like, params)
    for t in range(1, STEPS + 1):
        g = clip(jax.grad(loss)(params, hyper, None), hyper["clip"])
        g = jax.tree.map(lambda g, p: g + hyper["weight_decay"] * p, g, params)
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, g)
        v = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g**2, v, g)
        mean, square = 1 - 0.9**t, 1 - 0.99**t
        direction = jax.tree.map(
            lambda m, v, a=mean, b=square: (m / a) / (jnp.sqrt(v / b) + 1e-3), m, v
        )
        params = jax.tree.map(lambda p, d: p - hyper["rate"] * d, params, direction)
    return sum(jnp.sum(p**2) for p in params.values())


def momentum_by_hand(clip, hyper):
    params = jax.tree.map(jnp.asarray, START)
    velocity = jax.tree.map(jnp.zeros_like, params)
    for _ in range(STEPS):
        g = clip(jax.grad(loss)(params, hyper, None), hyper["clip"])
        g = jax.tree.map(lambda g, p: g + hyper["weight_decay"] * p, g, params)
        velocity = jax.tree.map(lambda v, g: 0.9 * v - 0.1 * g, velocity, g)
        params = jax.tree.map(lambda p, v: p + hyper["rate"] * v, params, velocity)
    return sum(jnp.sum(p**2) for p in params.values())


KINDS = [
    (ClipByGlobalNorm(taken("clip")), norm_by_hand),
    (ClipByValue(taken("clip")), value_by_hand),
]
OPTIMIZERS = [
    (hg.Momentum, {"decay": 0.9}, momentum_by_hand),
    (hg.Adam, {"b2": 0.99, "eps": 1e-3}, adam_by_hand),
]


@pytest.mark.parametrize("adjoint", [hg.Stored(), hg.Forward(), hg.Reversible()], ids=repr)
@pytest.mark.parametrize(("clip", "by_hand"), KINDS, ids=["norm", "value"])
@pytest.mark.parametrize(("optimizer", "settings", "run"), OPTIMIZERS, ids=["momentum", "adam"])
def test_against_a_loop(x64, adjoint, clip, by_hand, optimizer, settings, run):
    decay = hg.Coupled(taken("weight_decay"))
    ours = objective(optimizer(taken("rate"), **settings, weight_decay=decay, clip=clip))
    found = jax.grad(lambda h: ours(h, adjoint=adjoint))(HYPER)
    wanted = jax.grad(lambda h: run(by_hand, h))(HYPER)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-9)
    assert abs(wanted["clip"]) > 1e-3


@pytest.mark.parametrize("clip", [ClipByGlobalNorm(0.6), ClipByValue({"a": 0.2, "b": 0.7})])
def test_comes_home_in_single_precision(clip):
    value = objective(hg.Averaged(hg.Adam(taken("rate"), clip=clip), decay=0.9))
    by = lambda adjoint: jax.grad(lambda h: value(h, adjoint=adjoint))(HYPER)
    found, wanted = by(hg.Reversible()), by(hg.Stored())
    for name in ("rate", "target"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ClipByGlobalNorm(0.6), optax.clip_by_global_norm(0.6)),
        (ClipByValue(0.6), optax.clip(0.6)),
    ],
)
def test_same_as_optax(ours, theirs):
    heavy = hg.Momentum(0.05, 0.9, convention=hg.HeavyBall(), clip=ours)
    chain = hg.from_optax(lambda hyper: optax.chain(theirs, optax.sgd(0.05, 0.9)))
    run = lambda optimizer: objective(optimizer).run(HYPER, jax.random.key(0)).params
    for name, wanted in run(chain).items():
        np.testing.assert_allclose(run(heavy)[name], wanted, rtol=1e-5)


def test_a_gradient_whose_square_overflows():
    grads = {"a": jnp.array([3e30, -4e30]), "b": jnp.zeros(2)}
    clipped = ClipByGlobalNorm(1.0)(grads, jnp.float32(1))
    np.testing.assert_allclose(clipped["a"], [0.6, -0.8], rtol=1e-6)


def test_a_gradient_of_zeros_has_a_derivative():
    clip = lambda g: jnp.sum(ClipByGlobalNorm(0.5)(g, jnp.float32(0.5)))
    np.testing.assert_array_equal(jax.grad(clip)(jnp.zeros(3)), jnp.ones(3))


@pytest.mark.parametrize("clip", [ClipByGlobalNorm, ClipByValue])
def test_a_limit_below_zero_is_no_number(clip):
    """Where it comes from hyperparameters: the run says so, and tuning turns back."""
    value = objective(hg.Momentum(0.1, clip=clip(taken("clip"))))
    assert jnp.isnan(value(HYPER | {"clip": -1.0}))
    with pytest.raises(RuntimeError, match="became NaN or infinite at step 0"):
        value(HYPER | {"clip": -1.0}, adjoint=hg.Reversible())


def test_nan_stays():
    clipped = ClipByGlobalNorm(0.5)(jnp.array([jnp.nan, 1.0]), jnp.float32(0.5))
    assert jnp.isnan(clipped[0])


def test_half_precision_is_clipped_in_single():
    clipped = ClipByGlobalNorm(0.5)(jnp.full(5, 300, jnp.float16), jnp.float32(0.5))
    assert clipped.dtype == jnp.float32
    np.testing.assert_allclose(jnp.linalg.norm(clipped), 0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClipByValue(-1.0), r"ClipByValue\(limit\)=-1.0 is outside of its range"),
        (lambda: ClipByValue(0.0), r"ClipByValue\(limit=0.0\): a number above 0"),
        (lambda: ClipByGlobalNorm(None), "no clip is clip=None"),
        (lambda: ClipByGlobalNorm(-1.0), r"ClipByGlobalNorm\(limit\)=-1.0 is outside"),
        (
            lambda: objective(hg.Adam(0.1, clip=ClipByGlobalNorm({"a": 1.0, "b": 2.0})))(HYPER),
            "one number for the norm of the whole gradient",
        ),
        (
            lambda: ClipByValue(1.0)(jnp.ones(2, jnp.complex64), jnp.float32(1)),
            "A complex gradient cannot be clipped",
        ),
        (lambda: hg.Adam(0.1, clip=1.0), r"Adam\(clip=1.0\).*ClipByGlobalNorm"),
        (lambda: hg.Momentum(0.1, clip=1.0), r"Momentum\(clip=1.0\).*ClipByGlobalNorm"),
    ],
)
def test_messages(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()

"""`precision` measures what a float64 run written by hand shows, and says what helps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
from hindgrad.diagnostics.precision import LeafPrecision

N, LENGTH, WIDTH, TOKENS, STEPS, RATE = 8, 5, 8, 7, 10, 1e-5
EPS = 1e-8
TRAIN, VALID = np.random.default_rng(0).integers(0, TOKENS, (2, N, LENGTH + 1), np.int32)


def init(key):
    shapes = {
        "tokens": (TOKENS, WIDTH),
        "places": (LENGTH, WIDTH),
        "qkv": (WIDTH, 3 * WIDTH),
        "mix": (WIDTH, WIDTH),
        "up": (WIDTH, 4 * WIDTH),
        "down": (4 * WIDTH, WIDTH),
        "out": (WIDTH, TOKENS),
    }
    keys = jax.random.split(key, len(shapes))
    draw = lambda key, shape: jax.random.normal(key, shape, jnp.float32) / 2
    drawn = {name: draw(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}
    return drawn | {"bias": jnp.zeros(3 * WIDTH)}


def normed(x):
    x = x - x.mean(-1, keepdims=True)
    return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 2.0**-16)


def transformer(params, tokens):
    """One block: attention to what came before, then a network, with LayerNorm before each."""
    h = params["tokens"][tokens] + params["places"][None]
    q, k, v = jnp.split(normed(h) @ params["qkv"] + params["bias"][None, None], 3, -1)
    scores = jnp.einsum("bqd,bkd->bqk", q, k) / 4
    past = jnp.tri(LENGTH, dtype=bool)[None]
    h += jax.nn.softmax(jnp.where(past, scores, -jnp.inf), -1) @ v @ params["mix"]
    h += jnp.tanh(normed(h) @ params["up"]) @ params["down"]
    return h @ params["out"]


def losses(params, rows):
    """Each example's."""
    logits = jax.nn.log_softmax(transformer(params, rows[:, :-1]))
    return -jnp.take_along_axis(logits, rows[:, 1:, None], -1).mean((-2, -1))


def objective():
    training = hg.Training(
        lambda params, hyper, batch: hyper["weights"] @ losses(params, batch.data),
        optimizer=hg.Adam(RATE, eps=EPS),
        batches=hg.full_batch(jnp.asarray(TRAIN)),
        steps=STEPS,
    )
    return hg.Objective(
        training,
        init=init(jax.random.key(1)),
        score=lambda params, hyper, key: losses(params, VALID).mean(),
    )


def hand_written(weights, params):
    """The same run, step by step, in the floats of the params."""
    rate, b1, b2, eps = (float(np.float32(x)) for x in (RATE, 0.9, 0.999, EPS))
    loss = lambda params: weights @ losses(params, TRAIN)
    zeros = jax.tree.map(jnp.zeros_like, params)

    def step(state, t):
        params, m, v = state
        g = jax.grad(loss)(params)
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, g)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, v, g)
        move = lambda p, m, v: p - rate * m / (1 - b1**t) / (jnp.sqrt(v / (1 - b2**t)) + eps)
        return (jax.tree.map(move, params, m, v), m, v), None

    times = jnp.arange(1.0, STEPS + 1, dtype=weights.dtype)
    (params, _, _), _ = jax.lax.scan(step, (params, zeros, zeros), times)
    return losses(params, VALID).mean()


HYPER = {"weights": jnp.ones(N)}


def test_a_transformer(capsys):
    """The error is the one that a run in float64, written by hand, shows."""
    found = hg.precision(objective(), HYPER)
    leaf = found.leaves["['weights']"]
    assert found.message in capsys.readouterr().out

    narrow = jax.jit(jax.grad(objective()))(HYPER)["weights"]
    params = init(jax.random.key(1))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: x.astype(jnp.float64), (HYPER["weights"], params))
        right = np.asarray(jax.jit(jax.grad(hand_written))(*wide))
    error = np.linalg.norm(narrow - right) / np.linalg.norm(right)
    assert error > 1e-4  # so low a rate is largely rounded off
    assert error / 1.2 < leaf.error < error * 1.2
    assert np.isclose(leaf.norm, np.linalg.norm(right), rtol=1e-6)


SIGNS = np.repeat([-1.0, 1.0], 5).astype(np.float32)
POINTS = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)


def logistic(params):
    return jax.nn.softplus(-SIGNS * (POINTS @ params["w"] + params["b"]))


def weighted(params, hyper, batch):
    return hyper["weights"] @ logistic(params)


def of_the_first(params, hyper, key):
    return logistic(params)[0]


def nothing(t):
    return None


def balanced(eps=1e-8, bias=0.0):
    """Two classes of equal size, from zeros: the bias has a gradient of rounding only, by which
    Adam divides, though that of each example is far from zero."""
    training = hg.Training(weighted, optimizer=hg.Adam(0.01, eps=eps), batches=nothing, steps=5)
    start = {"w": jnp.zeros(3), "b": jnp.array(bias)}
    return hg.Objective(training, init=start, score=of_the_first)


EQUAL = {"weights": jnp.full(10, 0.1)}


def test_what_helps(capsys):
    """Where Adam divides by rounding no digit holds; a larger eps helps, or another start."""
    few = hg.precision(balanced(), EQUAL)
    assert few.worst.error > 0.1
    assert not few.ok
    assert "larger eps" in capsys.readouterr().out
    for better in (balanced(eps=1e-4), balanced(bias=0.1)):
        found = hg.precision(better, EQUAL)
        assert found.worst.error < 1e-3
        assert found.ok
        assert "What helps" not in found.message


def test_float64_holds(x64):
    found = hg.precision(balanced(bias=0.1), {"weights": jnp.full(10, 0.1)})
    assert found.worst.error < 1e-12
    assert found.ok
    assert found.worst.verdict == "precise"


def test_reversible_is_compared_with_floats():
    """Also within another adjoint."""
    training = hg.Training(weighted, optimizer=hg.Momentum(0.1, 0.9), batches=nothing, steps=5)
    start = {"w": jnp.zeros(3), "b": jnp.array(0.1)}
    objective = hg.Objective(training, init=start, score=of_the_first)
    found, floats = (
        hg.precision(objective, EQUAL, adjoint=hg.Truncated(3, inner)).worst
        for inner in (hg.Reversible(), hg.Checkpointed())
    )
    assert found.norm == floats.norm
    assert 0 < floats.error < 1e-5
    assert 0 < found.error < 1e-5


def test_any_function_with_a_key():
    """Leaf by leaf: cancellation costs one of them all its digits, and the message names it."""
    traces = []

    def value(hyper, key):
        traces.append(1)
        far = 1e4 + hyper["far"]
        noise = jax.random.normal(key)
        return (far**2 - 2e4 * far + 1e8) * noise + jnp.sum(hyper["near"][0] ** 3)

    near = [jnp.arange(1.0, 4.0)]
    for seed in (3, 4):
        found = hg.precision(value, {"far": 1e-4, "near": near}, key=seed)
        traces.append(0)
        assert list(found.leaves) == ["['far']", "['near'][0]"]
        assert found.leaves["['near'][0]"].verdict == "precise"
        assert found.leaves["['far']"].verdict == "not to be trusted"
        assert not found.ok
        assert found.worst == found.leaves["['far']"]
    assert traces == [1, 0, 0]  # the program is traced once
    noise = float(jax.random.normal(jax.random.key(4)))
    assert np.isclose(found.worst.norm, 2e-4 * abs(noise), rtol=1e-3)


def test_one_number(capsys):
    found = hg.precision(lambda h: jnp.sin(h) ** 2, 0.7)
    assert list(found.leaves) == ["hyper"]
    assert found.ok
    assert "The hypergradient is precise." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "digits", "verdict"),
    [
        (0.0, 16, "precise"),
        (1e-4, 4, "precise"),
        (0.01, 2, "about 2 digits"),
        (0.11, 0.96, "about 1 digit"),
        (0.25, 0.6, "about 1 digit"),
        (0.5, 0.3, "not to be trusted"),
        (np.inf, 0, "not to be trusted"),
    ],
)
def test_words(error, digits, verdict):
    leaf = LeafPrecision(error, 1.0, 1.0)
    assert abs(leaf.digits - digits) < 0.01
    assert leaf.verdict == verdict


def test_zero_and_nan():
    """A derivative of zero holds if it is zero; NaN never does."""
    unused = hg.precision(lambda h: h["a"] ** 2 + 0 * h["b"], {"a": 2.0, "b": 1.0})
    assert unused.leaves["['b']"].error == 0
    assert unused.ok
    nan = hg.precision(lambda h: jnp.where(h > 2, h, jnp.sqrt(h - h)), 1.0)
    assert nan.worst.verdict == "not to be trusted"


def test_refusals():
    with pytest.raises(ValueError, match="without a float"):
        hg.precision(lambda h: 1.0, {"steps": 3})
    struct = jax.ShapeDtypeStruct((), jnp.float32)
    sine = jax.custom_jvp(lambda x: jax.pure_callback(np.sin, struct, x))
    sine.defjvp(lambda x, t: (sine(*x), t[0] * sine(x[0] + jnp.pi / 2)))
    with pytest.raises(NotImplementedError, match="'pure_callback'"):
        hg.precision(lambda h: sine(h) ** 2, 1.0)

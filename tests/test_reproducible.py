"""Functions computed with their products kept apart from their sums."""

import itertools
from typing import NamedTuple

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

import conftest
from hindgrad.jaxprs import equations
from hindgrad.reproducible import MERGED, reproducible

X = jnp.linspace(-2.0, 3.0, 12).reshape(3, 4)
W = jnp.cos(jnp.arange(12.0)).reshape(4, 3)

OPTIMISED = {"xla_backend_optimization_level": 3}
"""XLA's default, without which it fuses no product into a sum."""


class Params(NamedTuple):
    kernel: jax.Array
    bias: jax.Array


PARAMS = Params(jnp.sin(jnp.arange(54.0)).reshape(3, 3, 2, 3), jnp.arange(3.0))
IMAGES = jnp.cos(jnp.arange(100.0)).reshape(2, 5, 5, 2)


@jax.custom_jvp
def tripled(x):
    """x² + x, whose derivative is said to be 3."""
    return x * x + x


tripled.defjvp(lambda primals, tangents: (tripled(*primals), 3 * tangents[0]))


@jax.custom_vjp
def fived(x):
    """x² − x, whose derivative is said to be 5."""
    return x * x - x


fived.defvjp(lambda x: (fived(x), None), lambda _, ct: (5 * ct,))


def scanned(x, w):
    return jax.lax.scan(lambda c, row: (c * row + row * row, c + c * 2), x[0], w.T)


def doubled_until(x):
    halt = lambda c: jnp.sum(c[0] * c[0]) < 1e3
    return jax.lax.while_loop(halt, lambda c: (c[0] * 1.5 + c[0] * c[1], c[1] + 0.5), (x, 0.25))


def branched(x, w):
    one, other = lambda a, b: a * a + b * b, lambda a, b: a * b - b
    index = jnp.int32(jnp.sum(x) > 0)
    return jax.lax.switch(index, [one, other, one], x, w.T), jax.lax.cond(True, one, other, x, x)


def nested(x, w):
    inner = jax.jit(lambda a, b: a * b + a)
    return inner(x, w.T) + inner(w.T, x) * inner(x, x)


def confusing(x, w):
    """Many sums of products of one shape, each with its own value."""
    v = w.T
    products = [x * v, x * x, v * v, jnp.sin(x) * v, x * 2.0, v * 3.0]
    differences = [a - b for a, b in itertools.pairwise(products)]
    total = sum(products[1:], products[0])
    return differences, total, [total * p + p * p for p in products], x * v + x * v


def convolved(params, x):
    """A convolution, a normalisation, rows gathered, a softmax."""
    dims = ("NHWC", "HWIO", "NHWC")
    y = jax.lax.conv_general_dilated(x, params.kernel, (1, 1), "SAME", dimension_numbers=dims)
    y = jax.nn.relu(y + jnp.broadcast_to(params.bias, y.shape))
    y = (y - jnp.mean(y)) / jnp.sqrt(jnp.var(y) + 1e-5)
    rows = y.reshape(-1, 3)[jnp.asarray([4, 0, 4])]
    return {"loss": jnp.mean(jax.nn.logsumexp(rows, axis=-1) - rows[:, 1]), "rows": Params(rows, y)}


def activated(x, w):
    y = x @ w
    return jax.nn.relu(y) + jax.nn.gelu(y), jax.nn.logsumexp(y * y, axis=0), jax.nn.softmax(y)


def derived(x, w):
    return tripled(x * 2.0) + fived(x) * x, jax.checkpoint(lambda a: a * a + a)(w)


def mapped(x, w):
    return jax.vmap(lambda a, b: jnp.cumsum(a * b) + jnp.dot(a, b) - a * b)(x, w.T)


def mixed(x, w):
    """Other types, constants, arguments handed through, nothing at all."""
    whole = jnp.arange(4) * 3 + 1
    return x, whole, 2.0, None, (x.astype(jnp.bfloat16) * 2 + 1), x > 0, jnp.sum(whole * whole), ()


DIFFERENTIABLE = [scanned, branched, nested, confusing, activated, derived, mapped]
CASES = [(f, (X, W)) for f in [*DIFFERENTIABLE, mixed]]
CASES += [(doubled_until, (X,)), (convolved, (PARAMS, IMAGES))]


# Optimised, products and sums are contracted, and numbers below the normal ones are zero.
NEAR, SMALL = (5e-6, 4) if conftest.OPTIMISED else (1e-6, 1)


def assert_close(one, other):
    """The same structure and dtypes, and the same values but for rounding."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert jnp.asarray(a).dtype == jnp.asarray(b).dtype
        assert jnp.shape(a) == jnp.shape(b)
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=1e-6, atol=NEAR * largest(b)
        )


def largest(x):
    x = np.abs(np.asarray(x, np.float64))
    return max(1.0, np.max(x, where=np.isfinite(x), initial=0))


def kept_apart(function):
    return lambda *args: reproducible(function, *args)


def fed_by(function, *args):
    """For each operand of a sum that some equation beside it computes: that one's primitive."""
    found = []
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    loops = [e for e in equations(jaxpr) if e.primitive.name != "reduce"]
    inner = [jax.extend.core.jaxprs_in_params(e.params) for e in loops]
    bodies = [jaxpr, *itertools.chain(*inner)]
    for body in bodies:
        source = {v: e.primitive.name for e in body.eqns for v in e.outvars}
        for equation in body.eqns:
            if equation.primitive.name in MERGED:
                operands = [v for v in equation.invars if not hasattr(v, "val")]
                found += [source[v] for v in operands if v in source]
    return found


@pytest.mark.parametrize(("function", "args"), CASES, ids=[f.__name__ for f, _ in CASES])
def test_same_results(function, args):
    """Structure, dtypes and values, without and with jit."""
    expected = jax.jit(function)(*args)
    assert_close(jax.jit(kept_apart(function))(*args), expected)
    if function in (mixed, nested):
        assert_close(kept_apart(function)(*args), function(*args))


@pytest.mark.parametrize("function", DIFFERENTIABLE)
def test_same_derivatives(function):
    """In reverse and in forward mode; functions with derivatives of their own keep them."""

    def both(f):
        def run(x, w):
            loss = lambda x, w: sum(jnp.sum(jnp.sin(y)) for y in jax.tree.leaves(f(x, w)))
            gradient = jax.grad(loss, argnums=(0, 1))(x, w)
            if function is derived:  # its `custom_vjp` has no forward mode
                return gradient
            return gradient, jax.linearize(f, x, w)[1](jnp.cos(x), w)

        return jax.jit(run)(X, W)

    assert_close(both(kept_apart(function)), both(function))


@pytest.mark.parametrize(("function", "slope"), [(tripled, 3.0), (fived, 5.0)])
def test_derivatives_of_their_own(function, slope):
    """Even where they are wrong."""
    f = lambda x: jnp.sum(function(x * 2.0) + x * 3.0)
    grad = jax.grad(kept_apart(f))(X)
    np.testing.assert_allclose(grad, jnp.full_like(X, 2 * slope + 3))


def test_gradients_of_parameters():
    loss = lambda f: lambda p: f(p, IMAGES)["loss"]
    assert_close(*(jax.jit(jax.grad(loss(f)))(PARAMS) for f in (kept_apart(convolved), convolved)))


def test_second_derivatives():
    f = lambda x: jnp.sum(x * x * x + x * jnp.sin(x * x))
    assert_close(*(jax.jit(jax.hessian(g))(X[0]) for g in (kept_apart(f), f)))


def test_infinite_and_nan_stay_what_they_are():
    """Passing through the selection: infinities, NaN, zeros, the largest and smallest numbers."""
    info = jnp.finfo(jnp.float32)
    x = jnp.asarray([jnp.inf, -jnp.inf, jnp.nan, 0.0, -0.0, info.max, info.min, SMALL * info.tiny])
    for f in (lambda a: a * 1.0 + 0.0, lambda a: a * 1.0 - a * 0.5, lambda a: jnp.cumsum(a * 2.0)):
        expected, found = jax.jit(f)(x), jax.jit(kept_apart(f))(x)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(jnp.signbit(found[:2]), jnp.signbit(expected[:2]))
    alone = jax.jit(kept_apart(lambda a: a * 1.0 + 0.0))(x)
    np.testing.assert_array_equal(alone, x)
    grad = jax.grad(kept_apart(lambda a: jnp.sum(a * 2.0 + a * 1.0)))(x)
    np.testing.assert_array_equal(grad, jnp.full(8, 3.0))


def looped(function):
    """The function in the body of a loop, as another program."""
    rows = lambda *args: tuple(x[None] for x in args)
    return lambda *args: jax.lax.map(lambda row: function(*row), rows(*args))[0]


def handed_in(call):
    """A product computed before a call within which it is added."""
    return lambda x, y, z: call(lambda p, z: p + z)(x * y, z)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x, y, z: x * y + z, lambda x, y, z: x * y + z),
        (lambda x, y, z: z - y * y, lambda x, y, z: z - y * y),
        (lambda x, y, z: x * y - z * x, lambda x, y, z: x * y - z * x),
        (lambda x, y, z: jax.jit(jnp.multiply)(x, y) + z, lambda x, y, z: x * y + z),
        (lambda x, y, z: -(x * y) + 1.0, lambda x, y, z: np.float32(1) - x * y),
        (handed_in(jax.jit), lambda x, y, z: x * y + z),
        (handed_in(jax.checkpoint), lambda x, y, z: x * y + z),
        (handed_in(lambda f: lambda *a: jax.lax.cond(True, f, f, *a)), lambda x, y, z: x * y + z),
    ],
    ids=["add", "subtract", "both", "from_jit", "constant", "to_jit", "to_remat", "to_cond"],
)
def test_products_are_rounded_before_they_are_added(function, expected, key):
    """As in NumPy, which has no fused operations: bit for bit, in one program and in another."""
    args = jax.random.normal(key, (3, 10_000))
    for program in (kept_apart(function), looped(kept_apart(function))):
        found = jax.jit(program, compiler_options=OPTIMISED)(*args)
        np.testing.assert_array_equal(found, expected(*map(np.asarray, args)))


@pytest.mark.parametrize("function", [scanned, branched, nested, confusing, mapped])
def test_every_computed_operand_of_a_sum_is_kept_apart(function):
    """In the bodies of loops, branches and nested functions too."""
    assert "mul" in fed_by(function, X, W)
    assert set(fed_by(kept_apart(function), X, W)) == {"jit"}
    count = lambda f: sum(e.primitive.name == "select_n" for e in all_of(f))
    all_of = lambda f: equations(jax.make_jaxpr(f)(X, W).jaxpr)
    assert count(kept_apart(function)) >= count(function) + len(fed_by(function, X, W))


def normalised(w):
    """A batch, centred and divided by its size."""
    z = ROWS @ w
    return jnp.sum(((z - z.mean(0)[None]) / jnp.sqrt((z * z).mean(0) + 1e-3)[None] - TARGETS) ** 2)


def counted(w):
    """A division by the counter of a loop."""
    turn = lambda i, z: z + jnp.sin(z * w[None]) / (2 + i)
    return jnp.sum(jax.lax.fori_loop(0, 2, turn, ROWS[:, :4] * w[None] + 0.3) * TARGETS[:, :4])


def layered(w):
    """Large sums over the last axis and over the first: a normalised layer, softmax, a bias."""
    x = MANY * w[None]
    centred = x - x.mean(1, keepdims=True)
    x = centred / jnp.sqrt((centred**2).mean(1, keepdims=True) + 1e-3)
    z = jax.nn.softmax(jnp.sin(x * x) + w[None])
    return jnp.sum((z * x).mean(0) ** 2) + jnp.sum((z * MANY) ** 2)


MANY = np.random.default_rng(2).normal(size=(128, 64))
ROWS = np.random.default_rng(0).normal(size=(20, 32))
TARGETS = np.random.default_rng(1).normal(size=(20, 10))


@pytest.mark.parametrize(
    ("loss", "shape"),
    [(normalised, (32, 10)), (counted, (4,)), (layered, (64,))],
    ids=["sums", "quotients", "large sums"],
)
def test_gradients_are_the_same_in_another_program(x64, key, loss, shape):
    """Alone, and where their derivative is taken too, in a direction that depends on them."""

    def alone(w):
        return reproducible(jax.grad(loss), w)

    def with_derivative(w):
        gradient, derivative = jax.linearize(alone, w)
        return gradient, derivative(w + gradient**2)

    programs = [jax.jit(f, compiler_options=OPTIMISED) for f in (alone, with_derivative)]
    for w in jax.random.normal(key, (20, *shape)):
        first, (second, _) = (program(w) for program in programs)
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, jax.grad(loss)(w), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_quotients_of_the_largest_and_smallest_numbers(dtype):
    """Also where the inverse of the divisor is no normal number."""
    info = jnp.finfo(dtype)
    y = jnp.asarray([info.max, info.max / 2, info.tiny, 4 * info.tiny, 3.0, jnp.inf, 0.0], dtype)
    x = jnp.asarray([info.max, info.max / 3, 0.0, info.tiny, 7.0, 1.0, 1.0], dtype)
    divide = lambda x, y: x / y
    near = {"rtol": 2 * float(info.eps)}
    np.testing.assert_allclose(jax.jit(kept_apart(divide))(x, y), jax.jit(divide)(x, y), **near)
    total = lambda f: lambda x, y: jnp.sum(f(x, y).astype(jnp.float32)[:5])
    found, wanted = (jax.grad(total(f))(x[:5], y[:5]) for f in (kept_apart(divide), divide))
    np.testing.assert_allclose(found, wanted, **near)


def test_whole_numbers_are_left_alone():
    f = lambda n: jnp.sum(n * n + n)
    assert "jit" not in fed_by(kept_apart(f), jnp.arange(5))


def test_same_with_x64_on(x64):
    x = jnp.linspace(0.1, 1, 12).reshape(3, 4)
    assert_close(*(jax.jit(f)(x, x.T + 1) for f in (kept_apart(confusing), confusing)))

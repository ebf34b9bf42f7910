"""The same program in float64: against NumPy, with the same draws, through all control flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad.diagnostics.float64 import in_float64

X = np.array([0.3, -1.7, 0.9, 2.2], np.float32)
WIDE = X.astype(np.float64)


def assert_wide(got, wanted, tolerance=1e-14):
    """Equal as float64 numbers are; float32 is a million times further off."""
    assert np.asarray(got).dtype == np.float64
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


def test_many_operations():
    def program(np, x, dot, sort):
        a = np.exp(x) + 0.5 * np.sin(x) - np.cos(x) / 4
        b = np.sqrt(np.abs(a)) * np.tanh(x) + np.log1p(x**2)
        c = np.where(b > 0, b, -0.25 * b) + np.maximum(a, b) - np.minimum(a, 2 * b)
        m = np.outer(a, b) + np.diag(c)
        d = dot(m, c) / (1 + np.sum(c**2))
        e = sort(d)[::-1] + np.cumsum(c) - np.mean(m, axis=0) + np.max(m, axis=1)
        f = np.concatenate([e[:2], np.floor(d[2:] * 8)])
        return np.stack([f, e, np.exp2(d) - np.expm1(c), np.arctan2(a, b) + np.prod(d)])

    got = in_float64(lambda x: program(jnp, x, jnp.dot, jnp.sort), X)
    assert_wide(got, program(np, WIDE, np.dot, np.sort), 1e-13)
    assert jnp.asarray(X).dtype == jnp.float32
    assert jnp.ones(3).dtype == jnp.float32  # the setting is as it was


def test_draws_are_the_users_to_the_bit():
    """Also within a loop, whose key changes, and where `jax.random` would draw in float64."""

    def draws(key):
        return jax.random.normal(key, (4,)), jax.random.uniform(key, (4,)) < 0.5

    def noisy(x, key):
        def body(x, t):
            normal, kept = draws(jax.random.fold_in(key, t))
            return jnp.where(kept, x, 0.5 * x) + 0.25 * normal, None

        order = jax.random.permutation(key, 4)
        return jax.lax.scan(body, x[order], jnp.arange(3))[0]

    key = jax.random.key(3)
    wanted = WIDE[np.asarray(jax.random.permutation(key, 4))]
    for t in range(3):
        normal, kept = map(np.asarray, draws(jax.random.fold_in(key, t)))
        wanted = np.where(kept, wanted, 0.5 * wanted) + 0.25 * normal.astype(np.float64)
    got = in_float64(noisy, X, key)
    assert np.array_equal(got, wanted)


def test_draws_that_take_floats_are_the_users():
    key = jax.random.key(0)
    got = in_float64(lambda x: x * jax.random.gamma(key, x**2), X)
    draws = jax.jit(lambda x: jax.random.gamma(key, x**2))(X)
    assert_wide(got, WIDE * np.asarray(draws), 1e-6)


def test_what_draws_and_counts_enter_is_wide():
    """Also where nothing else enters: a product of draws, a whole number as a float."""
    key = jax.random.key(1)
    normal = np.asarray(jax.random.normal(key, (4,))).astype(np.float64)
    ratio = lambda x: jax.random.normal(key, (4,)) * 0.75 / jnp.arange(3, 7) + 0 * x
    assert_wide(in_float64(ratio, X), normal * 0.75 / np.arange(3, 7))


def test_loops_and_branches():
    def program(x):
        def body(carry, t):
            x, total = carry
            x = jax.lax.cond(t % 2 == 0, lambda x: x / 3, lambda x: x * x, x)
            return (x, total + x.sum()), x[0]

        (x, total), first = jax.lax.scan(body, (x, 0.0), jnp.arange(5), reverse=True)
        count, y = jax.lax.while_loop(
            lambda s: jnp.sum(s[1]) < 100, lambda s: (s[0] + 1, s[1] * 1.5 + 1), (0, x)
        )
        return total, first, y, count

    x, total, first = WIDE, 0.0, np.zeros(5)
    for t in reversed(range(5)):
        x = x / 3 if t % 2 == 0 else x * x
        total, first[t] = total + x.sum(), x[0]
    y, count = x, 0
    while y.sum() < 100:
        y, count = y * 1.5 + 1, count + 1
    got = in_float64(program, X)
    for a, b in zip(got[:3], (total, first, y), strict=True):
        assert_wide(a, b)
    assert got[3] == count


def test_derivatives_are_part_of_the_program():
    """Reverse, forward over reverse, with a rule of one's own, and under checkpoint and vmap."""

    @jax.custom_jvp
    def straight(x):
        return jnp.round(x)

    straight.defjvp(lambda primals, tangents: (jnp.round(primals[0]), tangents[0] * 3))

    @jax.custom_vjp
    def clipped(x):
        return x**2

    clipped.defvjp(lambda x: (x**2, x), lambda x, c: (jnp.clip(c * x, -1, 1),))

    def loss(x):
        step = jax.checkpoint(lambda x: jnp.tanh(x) * jnp.exp(x))
        return jnp.sum(jax.vmap(step)(x)) + jnp.sum(straight(x)) + jnp.sum(clipped(x))

    tanh, exp = np.tanh(WIDE), np.exp(WIDE)
    first = exp * (1 - tanh**2 + tanh)
    assert_wide(in_float64(jax.grad(loss), X), first + 3 + np.clip(WIDE, -1, 1))
    second = lambda x: jax.jvp(jax.grad(lambda x: jnp.sum(jnp.tanh(x))), (x,), (x,))[1]
    assert_wide(in_float64(second, X), -2 * tanh * (1 - tanh**2) * WIDE)
    # Not differentiated, the rules are not asked.
    assert_wide(in_float64(lambda x: straight(x) + clipped(x), X), np.round(WIDE) + WIDE**2)


def test_linear_algebra_and_indices():
    def program(np, x, solve):
        m = np.outer(x, x) + np.eye(4)
        return solve(m, x) + np.linalg.inv(m)[1], np.linalg.cholesky(m), np.linalg.eigvalsh(m)

    got = in_float64(lambda x: program(jnp, x, jnp.linalg.solve), X)
    for a, b in zip(got, program(np, WIDE, np.linalg.solve), strict=True):
        assert_wide(a, b, 1e-13)

    rows = np.array([0, 2, 2])
    wanted = WIDE.copy()
    np.add.at(wanted, rows, WIDE[:3])
    wanted[1], wanted[0] = wanted[1] * 3, np.maximum(wanted[0], 9)
    scattered = lambda x: x.at[rows].add(x[:3]).at[1].mul(3).at[0].max(9)
    assert_wide(in_float64(scattered, X), wanted)
    wanted = np.interp(0.5, WIDE[::2], WIDE[:2])
    assert_wide(in_float64(lambda x: jnp.interp(0.5, x[::2], x[:2]), X), wanted)


def test_images():
    """A convolution and a pool, and the product with their Hessian, as training differentiates."""
    draw = lambda seed, shape: np.asarray(jax.random.normal(jax.random.key(seed), shape))
    kernel, images = draw(0, (3, 3, 1, 2)), draw(1, (2, 6, 6, 1))

    def product(kernel, images):
        def loss(kernel):
            layout = ("NHWC", "HWIO", "NHWC")
            h = jax.lax.conv_general_dilated(
                images, kernel, (1, 1), "SAME", dimension_numbers=layout
            )
            window = (1, 2, 2, 1)
            pooled = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, window, window, "VALID")
            return jnp.sum(jnp.tanh(pooled) ** 2)

        return jax.linearize(jax.grad(loss), kernel)[1](kernel)

    got = in_float64(product, kernel, images)
    with jax.enable_x64(True):
        wanted = product(*(jnp.asarray(x, jnp.float64) for x in (kernel, images)))
    assert_wide(got, np.asarray(wanted), 1e-12)


def test_short_floats_and_casts():
    """The user's casts to shorter floats are left out; what they are given is not."""
    short = jnp.asarray(X, jnp.bfloat16)
    got = in_float64(lambda x: (x * x).astype(jnp.float16) / 3 + x.astype(jnp.float32), short)
    x = np.asarray(short, np.float64)
    assert_wide(got, x * x / 3 + x)
    assert_wide(in_float64(lambda x: jax.lax.reduce_precision(x / 3, 5, 2), X), WIDE / 3)
    with jax.enable_x64(True):
        cast = in_float64(lambda x: (x.astype(jnp.float32) / 3).astype(jnp.float64), WIDE)
    assert_wide(cast, WIDE / 3)


def test_in_float64_it_is_the_function_itself(x64):
    function = lambda x: jnp.cumsum(jnp.exp(x)) + jax.random.normal(jax.random.key(0), (4,))
    x = jnp.asarray(WIDE)
    assert_wide(in_float64(function, x), function(x), 1e-15)


def test_callbacks():
    """One that floats enter is refused by name; one of whole numbers, or that prints, is not."""
    struct = jax.ShapeDtypeStruct((4,), jnp.float32)

    def sines(x):
        return jax.pure_callback(lambda x: np.sin(x), struct, x)

    def rows(x, t):
        jax.debug.print("never twice {}", x)
        return x / 3 + jax.pure_callback(lambda t: np.full(4, t, np.float32), struct, t)

    with pytest.raises(NotImplementedError, match="'pure_callback', which cannot be evaluated"):
        in_float64(sines, X)
    assert_wide(in_float64(rows, X, jnp.int32(2)), WIDE / 3 + 2)


def test_prints_nothing(capfd):
    in_float64(lambda x: (jax.debug.print("{}", x), x)[1], X)
    jax.effects_barrier()
    assert capfd.readouterr().out == ""


def test_the_bits_of_a_float_are_refused():
    bits = lambda x: jax.lax.bitcast_convert_type(x, jnp.int32)
    with pytest.raises(NotImplementedError, match="'bitcast_convert_type'"):
        in_float64(bits, X)


def test_a_second_call_traces_nothing():
    traces = []

    def function(x):
        traces.append(1)
        return x / 3

    for x in (X, 2 * X):
        assert_wide(in_float64(function, x), x.astype(np.float64) / 3)
    assert traces == [1]

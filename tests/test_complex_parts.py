"""Complex arithmetic by parts: the same values and derivatives, and the same bits everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad.reproducible import reproducible

FUNCTIONS = {
    "product": lambda x, y: x * y,
    "square": lambda x, y: jnp.square(x) + y,
    "quotient": lambda x, y: x / y,
    "size": lambda x, y: jnp.abs(x) * y,
    "power": lambda x, y: x**3 + y,
    "inverse": lambda x, y: x**-2 * y,
}
by_name = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


def drawn(seed, count):
    parts = np.random.default_rng(seed).normal(size=(2, 2, count))
    return jnp.asarray(parts[:, 0] + 1j * parts[:, 1])


@by_name
def test_values_and_derivatives(x64, function):
    x, y = drawn(0, 50)
    found, wanted = lambda *args: reproducible(function, *args), function
    real = lambda f: lambda x, y: jnp.sum(jnp.sin(f(x, y).real) + f(x, y).imag)
    for take in (lambda f: f, lambda f: jax.grad(real(f), (0, 1)), tangent, second):
        np.testing.assert_allclose(
            jax.jit(take(found))(x, y), jax.jit(take(wanted))(x, y), rtol=1e-11, atol=1e-13
        )


def tangent(function):
    return lambda x, y: jax.jvp(function, (x, y), (jnp.cos(x), y * 2))


def second(function):
    real = lambda x: jnp.sum(jnp.abs(function(x, 1.5 - x)) ** 2)
    return lambda x, y: jax.jvp(jax.grad(real), (x,), (y,))


def test_the_largest_and_smallest_numbers(x64):
    """Whose squares are no numbers."""
    x = jnp.asarray([1e200 + 1e200j, 1e-200 + 2e-200j, 0.0, 3 + 4j])
    np.testing.assert_allclose(reproducible(jnp.abs, x), jnp.abs(x), rtol=1e-15)
    ratios = reproducible(lambda x: x / (2 * x), x)
    np.testing.assert_allclose(ratios, [0.5, 0.5, np.nan, 0.5], rtol=1e-15)
    np.testing.assert_array_equal(jax.grad(lambda x: reproducible(jnp.abs, x))(0j), 0j)


def gated(w):
    """A filter by Fourier transforms, after a recurrence whose result enters its products."""
    combine = lambda a, b: (a[0] * b[0], a[1] * b[0] + b[1])
    decay = jnp.broadcast_to(jnp.tanh(w)[None], ROWS.shape)
    z = jax.lax.associative_scan(combine, (decay, ROWS * w[None]), axis=1)[1]
    spectrum = jnp.fft.rfft(z, axis=-1) * jnp.tanh(w[None, : ROWS.shape[1] // 2 + 1])
    return jnp.sum(jnp.fft.irfft(spectrum, n=ROWS.shape[1], axis=-1) ** 2)


ROWS = np.random.default_rng(0).normal(size=(6, 4))


def test_the_same_bits_in_another_program(x64, key):
    """By the compiler's optimisations, in a product of real numbers with complex ones."""

    def alone(w):
        return reproducible(jax.grad(gated), w)

    def with_derivative(w):
        gradient, derivative = jax.linearize(alone, w)
        return gradient, derivative(w + gradient**2)

    options = {"xla_backend_optimization_level": 3}
    programs = [jax.jit(jax.vmap(f), compiler_options=options) for f in (alone, with_derivative)]
    w = jax.random.normal(key, (20, 4))
    first, (second, _) = (program(w) for program in programs)
    np.testing.assert_array_equal(first, second)

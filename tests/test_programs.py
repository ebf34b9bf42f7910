"""Programs are found again, and die with the functions that they were made from."""

import gc
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
from hindgrad import errors, programs


def make(traces):
    @programs.compiled
    def apply(function, x, *, factor=1.0):
        traces.append(1)
        return function(x) * factor, function

    return apply


def test_same_constants_and_shapes_compile_once():
    traces = []
    apply, double = make(traces), lambda x: 2 * x
    for x in (1.0, 2.0):
        value, function = apply(double, jnp.float32(x))
        assert value == 2 * x
        assert function is double
    assert len(traces) == 1
    apply(double, jnp.ones(3))
    apply(double, jnp.float32(1), factor=2.0)
    apply(double, jnp.float32(1), factor=2.0)
    apply(double, np.float32(1), factor=2.0)  # NumPy's arrays are traced too
    assert len(traces) == 3


def test_ahead_in_another_thread(x64):
    """JAX's settings are those of the thread that asked for it; errors are the library's own."""
    traces = []
    apply, double = make(traces), lambda x: 2 * x
    program = apply.ahead(double, jnp.zeros(3))
    xs = [jnp.full(3, 0.1), jnp.arange(3.0)]
    with ThreadPoolExecutor(2) as threads:
        assert threads.submit(lambda: jax.config.jax_enable_x64).result() is False
        found = list(threads.map(lambda x: program(double, x), xs))
        for x, (value, function) in zip(xs, found, strict=True):
            assert value.dtype == jnp.float64
            np.testing.assert_array_equal(value, 2 * x)
            assert function is double
    assert len(traces) == 1

    @programs.compiled
    def failing(x):
        return errors.raise_if(x, x > 0, jnp.int32(0), ["It failed."])

    program = failing.ahead(jnp.float64(0))
    assert program(jnp.float64(-1)) == -1
    with ThreadPoolExecutor(1) as threads, pytest.raises(errors.RunError, match=r"^It failed"):
        threads.submit(program, jnp.float64(1)).result()


@pytest.mark.parametrize(("a", "b"), [(0.0, -0.0), (1, True), (1, 1.0), (2.0, 3.0)])
def test_constants_that_differ(a, b):
    show = programs.compiled(lambda constant: (jnp.zeros(()), constant))
    assert [repr(show(x)[1]) for x in (a, b, a)] == [repr(a), repr(b), repr(a)]


def test_nan_is_itself():
    traces = []
    apply = make(traces)
    for _ in range(2):
        apply(jnp.sin, jnp.float32(1), factor=float("nan"))
    assert len(traces) == 1


def test_bound_methods():
    class Scaled:
        def __init__(self, by):
            self.by = by

        def __call__(self, x):
            raise NotImplementedError

        def times(self, x):
            return self.by * x

    traces = []
    apply, two, three = make(traces), Scaled(2), Scaled(3)
    values = [apply(s.times, jnp.float32(1))[0] for s in (two, three, two)]
    assert values == [2, 3, 2]
    assert len(traces) == 2


def test_a_program_dies_with_its_function():
    apply = make([])
    data = jnp.ones(1000)
    function = lambda x: x * data.sum()
    apply(function, jnp.float32(1))
    jax.grad(lambda x: apply(function, x)[0])(jnp.float32(1))
    held = weakref.ref(data), weakref.ref(function)
    assert len(apply.programs) == 1
    del data, function
    gc.collect()
    assert [r() for r in held] == [None, None]
    assert not apply.programs


def objective(number, activation):
    """A fresh objective that closes over data of its own."""
    data = jnp.full((50, 3), number, float)
    network = eqx.nn.MLP(3, "scalar", 4, 1, activation=activation, key=jax.random.key(0))

    def loss(params, hyper, batch):
        return jnp.mean((jax.vmap(params)(data) - 1) ** 2) * hyper["scale"]

    training = hg.Training(
        loss, optimizer=hg.Momentum(lambda h, t: h["rate"]), batches=lambda t: None, steps=2
    )
    score = lambda params, hyper, key: jnp.mean(jax.vmap(params)(data) ** 2)
    return hg.Objective(training, init=network, score=score), weakref.ref(data)


def mappings():
    with open("/proc/self/maps") as file:
        return sum(1 for _ in file)


def differentiate(count):
    """So many fresh objectives; the data of those that are still alive."""
    held = []
    for number in range(count):
        run, data = objective(number, lambda x: jnp.tanh(x))
        jax.grad(run)({"rate": 0.1, "scale": 1.0})
        del run
        held.append(data)
    gc.collect()
    return [r for r in held if r() is not None]


@pytest.mark.skipif(sys.platform != "linux", reason="mappings are read from /proc")
def test_objectives_are_freed():
    """JAX's static arguments and Equinox's `filter_jit` kept each, and 36 mappings or more."""
    differentiate(3)
    before = mappings()
    assert not differentiate(12)
    assert mappings() - before < 12


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mappings are read from /proc")
def test_a_thousand_objectives():
    differentiate(3)
    before = mappings()
    assert not differentiate(1000)
    assert mappings() - before < 100

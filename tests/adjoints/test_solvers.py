"""Linear solvers: on systems solved by hand, and on those that break others."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad.adjoints import solvers
from hindgrad.adjoints.solvers import ConjugateGradient, FixedPoint, Neumann, NormalEquations

SIZE = 10
SOLVERS = [
    ConjugateGradient(tolerance=1e-10),
    NormalEquations(tolerance=1e-10),
    FixedPoint(tolerance=1e-10),
    Neumann(terms=200),
]
BESIDES_CG = SOLVERS[1:]


@eqx.filter_jit
def solve(solver, matrix, vector, guess=None):
    """The solution with a dense matrix, for vectors that are split into a pytree, and what is left
    of the right-hand side."""
    split = lambda x: {"a": x[:1], "b": x[1:]}
    join = lambda tree: jnp.concatenate([tree["a"], tree["b"]])
    operator = lambda tree: split(matrix @ join(tree))
    guess = jnp.zeros_like(vector) if guess is None else guess
    x = solver.solve(operator, split(vector), split(guess))
    return join(x), solvers.residual(operator, x, split(vector))


def definite(key, size=SIZE):
    factor = jax.random.normal(key, (size, size)) / size**0.5
    return factor @ factor.T + 0.5 * jnp.eye(size)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_solves(x64, key, solver):
    """Whatever the size of the matrix and of the right-hand side, zero included, and from an exact
    guess."""
    matrix, vector = definite(key), jax.random.normal(key, (SIZE,))
    wanted = jnp.linalg.solve(matrix, vector)
    for scale, size in ((1.0, 1.0), (1e-4, 1e-8), (1e4, 1e8)):
        got, left = solve(solver, scale * matrix, size * vector)
        np.testing.assert_allclose(got, size / scale * wanted, rtol=1e-6)
        assert left <= 1e-8
    np.testing.assert_allclose(solve(solver, matrix, vector, wanted)[0], wanted, rtol=1e-6)
    zero, left = solve(solver, matrix, 0 * vector)
    np.testing.assert_array_equal(zero, 0)
    assert left == 0


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_systems_that_break_others(x64, solver):
    """Conjugate gradients end on the first one after a single step, with nothing left to divide
    by; on the second one, a step along the largest eigenvalue goes over the end."""
    vector = jnp.array([1.0, -2.0])
    for diagonal in (jnp.array([2.0, 2.0]), jnp.array([1.0, 3.0])):
        got, left = solve(solver, jnp.diag(diagonal), vector)
        np.testing.assert_allclose(got, vector / diagonal, rtol=1e-8)
        assert left <= 1e-8


@pytest.mark.parametrize("solver", BESIDES_CG, ids=repr)
def test_solves_without_symmetry(x64, key, solver):
    """As a general step's system is: 1 minus a contraction."""
    matrix = jnp.eye(SIZE) - 0.5 * jax.random.orthogonal(key, SIZE)
    vector = jax.random.normal(key, (SIZE,))
    np.testing.assert_allclose(
        solve(solver, matrix, vector)[0], jnp.linalg.solve(matrix, vector), rtol=1e-6
    )
    assert not solver.needs_symmetry


def test_normal_equations_solve_an_indefinite_system(x64):
    diagonal, vector = jnp.array([1.0, -2.0, 3.0]), jnp.array([1.0, 2.0, -1.0])
    got, _ = solve(NormalEquations(), jnp.diag(diagonal), vector)
    np.testing.assert_allclose(got, vector / diagonal, rtol=1e-5)


@pytest.mark.parametrize("kind", [ConjugateGradient, NormalEquations, FixedPoint])
def test_a_good_guess_saves_steps(x64, key, kind):
    """After as few steps as leave much from zeros, next to nothing is left from a near guess."""
    matrix, vector = definite(key), jax.random.normal(key, (SIZE,))
    wanted = jnp.linalg.solve(matrix, vector)
    _, cold = solve(kind(steps=2), matrix, vector)
    _, warm = solve(kind(steps=2), matrix, vector, wanted * (1 + 1e-6))
    assert warm < 1e-5 < 1e-2 < cold


def test_neumann_is_the_cut_off_series(x64, key):
    matrix, vector, rate, terms = definite(key), jax.random.normal(key, (SIZE,)), 0.2, 7
    operator = lambda x: matrix @ x
    got = Neumann(terms=terms, rate=rate).solve(operator, vector, vector)
    left = jnp.eye(SIZE) - rate * matrix
    series = sum(jnp.linalg.matrix_power(left, k) for k in range(terms))
    np.testing.assert_allclose(got, rate * series @ vector, rtol=1e-12)
    np.testing.assert_array_equal(
        Neumann(terms=1, rate=rate).solve(operator, vector, vector), rate * vector
    )


def test_fixed_point_is_its_iteration(x64, key):
    matrix, vector = definite(key), jax.random.normal(key, (SIZE,))
    operator, x = lambda x: matrix @ x, jnp.ones(SIZE)
    got = FixedPoint(steps=3, rate=0.3).solve(operator, vector, x)
    for _ in range(3):
        x = x + 0.3 * (vector - matrix @ x)
    np.testing.assert_allclose(got, x, rtol=1e-12)


@pytest.mark.parametrize("solver", [ConjugateGradient(), FixedPoint()], ids=repr)
def test_small_curvature_among_many_parameters(solver):
    """Float32, and as many numbers as a small network has: a test for breakdown that grows with
    their number would take this for one."""
    vector = jnp.cos(jnp.arange(30_000.0))
    operator = lambda x: 0.1 * x
    x = eqx.filter_jit(solver.solve)(operator, vector, jnp.zeros(30_000))
    np.testing.assert_allclose(x, vector / 0.1, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ConjugateGradient(steps=0), "steps=0"),
        (lambda: ConjugateGradient(tolerance=0.0), "tolerance=0.0"),
        (lambda: NormalEquations(tolerance=-1.0), "tolerance=-1.0"),
        (lambda: FixedPoint(rate=0.0), "rate=0.0"),
        (lambda: Neumann(terms=0), "terms=0"),
        (lambda: Neumann(rate=float("nan")), "rate=nan"),
    ],
)
def test_misuse(make, message):
    with pytest.raises(ValueError, match=rf"{message}\): a number above 0"):
        make()

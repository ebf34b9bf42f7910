"""Linear systems, solved by products with the matrix only."""

import abc
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree
from optax.tree import norm

from hindgrad import placement, trees

POWER_STEPS = 20
"""Products spent on estimating the largest eigenvalue."""
MARGIN = 1.2
"""The estimate comes from below; rates are this much smaller than its inverse."""

Matrix = Callable[[PyTree], PyTree]
"""A linear function from a pytree of arrays to one of the same shapes."""


class LinearSolver(eqx.Module):
    """Solves `matrix(x) = vector`."""

    needs_symmetry: ClassVar[bool] = False
    """Whether the matrix must be symmetric."""

    @abc.abstractmethod
    def solve(self, matrix: Matrix, vector: PyTree, guess: PyTree) -> PyTree:
        """`x`, sought from `guess` on."""


class ConjugateGradient(LinearSolver):
    """Conjugate gradients (Hestenes & Stiefel 1952): the fewest products for a symmetric positive
    definite matrix.

    **Arguments:**

    - `tolerance`: stops when the residual is this small, relative to the vector.
    - `steps`: the most steps.
    """

    needs_symmetry = True

    tolerance: float = 1e-6
    steps: int = 100

    def __check_init__(self):
        _check(self, steps=self.steps, tolerance=self.tolerance)

    def solve(self, matrix, vector, guess):
        # Not lineax: its breakdown test, 100 · epsilon · size, takes a float32 Hessian of some
        # hundred parameters with a weak penalty for singular. Not jax.scipy: its inner products
        # are refused on explicit meshes.
        enough = self.tolerance**2 * _inner(vector, vector)

        def unfinished(carry):
            _, _, _, squared, step = carry
            return (squared > enough) & (step < self.steps)

        def solved(matrix, vector):
            def advance(carry):
                x, left, along, squared, step = carry
                pushed = matrix(along)
                rate = squared / _inner(along, pushed)
                x, left = _plus(x, rate, along), _plus(left, -rate, pushed)
                after = _inner(left, left)
                return x, left, _plus(left, after / squared, along), after, step + 1

            left = _minus(vector, matrix(guess))
            begin = guess, left, left, _inner(left, left), jnp.int32(0)
            return jax.lax.while_loop(unfinished, advance, begin)[0]

        return jax.lax.custom_linear_solve(matrix, vector, solved, symmetric=True)


class NormalEquations(LinearSolver):
    """Conjugate gradients on `matrixᵀ · matrix`: for matrices that are not symmetric, or not
    positive definite. Two products a step, and more steps: the condition number is squared.

    **Arguments:**

    - `tolerance`: stops when the normal equations' residual is this small, relative to their
      right-hand side.
    - `steps`: the most steps.
    """

    tolerance: float = 1e-6
    steps: int = 200

    def __check_init__(self):
        _check(self, steps=self.steps, tolerance=self.tolerance)

    def solve(self, matrix, vector, guess):
        transpose = jax.linear_transpose(matrix, guess)
        transposed = lambda x: transpose(x)[0]
        squared = lambda x: transposed(matrix(x))
        inner = ConjugateGradient(self.tolerance, self.steps)
        return inner.solve(squared, transposed(vector), guess)


class FixedPoint(LinearSolver):
    """The iteration `x ← x + rate · (vector − matrix · x)` until it stands still.

    **Arguments:**

    - `tolerance`: stops when the residual is this small, relative to the vector.
    - `steps`: the most steps.
    - `rate`: below 2 over the matrix's largest eigenvalue; unless given, from an estimate of
      that by the power method.
    """

    tolerance: float = 1e-6
    steps: int = 1000
    rate: float | None = None

    def __check_init__(self):
        _check(self, steps=self.steps, tolerance=self.tolerance, rate=self.rate)

    def solve(self, matrix, vector, guess):
        rate = _rate(self.rate, matrix, vector)
        enough = self.tolerance * norm(vector)

        def unfinished(carry):
            _, residual, step = carry
            return (step < self.steps) & (norm(residual) > enough)

        def advance(carry):
            x, residual, step = carry
            x = _plus(x, rate, residual)
            return x, _minus(vector, matrix(x)), step + 1

        begin = guess, _minus(vector, matrix(guess)), jnp.int32(0)
        return jax.lax.while_loop(unfinished, advance, begin)[0]


class Neumann(LinearSolver):
    """The Neumann series `rate · Σ_k (1 − rate · matrix)^k · vector`, cut off: cheap, and biased
    towards 0 (Lorraine, Vicol & Duvenaud 2020, Alg. 3). A guess is not used.

    **Arguments:**

    - `terms`: how many.
    - `rate`: as for `FixedPoint`.
    """

    terms: int = 20
    rate: float | None = None

    def __check_init__(self):
        _check(self, terms=self.terms, rate=self.rate)

    def solve(self, matrix, vector, guess):
        del guess
        rate = _rate(self.rate, matrix, vector)

        def add(_, carry):
            total, term = carry
            term = _plus(term, -rate, matrix(term))
            return trees.add(total, term), term

        total, _ = jax.lax.fori_loop(1, self.terms, add, (vector, vector))
        return jax.tree.map(lambda x: rate.astype(x.dtype) * x, total)


def residual(matrix: Matrix, x: PyTree, vector: PyTree) -> Float[Array, ""]:
    """‖vector − matrix · x‖ ÷ ‖vector‖; 0 for a zero vector."""
    size = norm(vector)
    left = norm(_minus(vector, matrix(x)))
    return jnp.where(size == 0, 0, left / jnp.where(size == 0, 1, size))


def random_like(tree: PyTree) -> PyTree:
    """Normal draws, always the same, in the shapes and the places of a tree's arrays."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(0), max(1, len(leaves)))
    draw = lambda key, x: placement.like(jax.random.normal(key, x.shape, x.dtype), x)
    return jax.tree.unflatten(structure, list(map(draw, keys, leaves)))


def _rate(rate, matrix, vector):
    """The rate given, or one at which the iteration converges for a positive definite matrix."""
    if rate is not None:
        return jnp.asarray(rate, jnp.result_type(float))

    def turn(_, carry):
        x, _ = carry
        x = jax.tree.map(lambda x: x / _nonzero(norm(carry[0])).astype(x.dtype), x)
        x = matrix(x)
        return x, norm(x)

    begin = random_like(vector), jnp.zeros((), trees.common(*jax.tree.leaves(vector)))
    _, largest = jax.lax.fori_loop(0, POWER_STEPS, turn, begin)
    return 1 / (MARGIN * _nonzero(largest))


def _inner(x, y):
    products = jax.tree.map(lambda a, b: jnp.sum(jnp.real(jnp.conj(a) * b)), x, y)
    return sum(jax.tree.leaves(products), jnp.zeros(()))


def _nonzero(x):
    return jnp.where(x == 0, 1, x)


def _plus(x, rate, y):
    return jax.tree.map(lambda a, b: a + jnp.asarray(rate).astype(a.dtype) * b, x, y)


def _minus(x, y):
    return jax.tree.map(jnp.subtract, x, y)


def _check(solver, **values):
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(
                f"{type(solver).__name__}({name}={value}): a number above 0 is needed."
            )

"""Linear systems, solved by products with the matrix only."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Int, PyTree

from hindgrad import trees

POWER_STEPS = 20
"""Products spent on estimating the largest eigenvalue."""
MARGIN = 1.2
"""The estimate comes from below; rates are this much smaller than its inverse."""


class LinearSolver(eqx.Module):
    """Solves `matrix · x = vector`."""

    needs_symmetry: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def solve(
        self, matrix: lx.AbstractLinearOperator, vector: PyTree, guess: PyTree
    ) -> tuple[PyTree, Int[Array, ""]]:
        """`x`, sought from `guess` on, and how many steps that took."""


class ConjugateGradient(LinearSolver):
    """Conjugate gradients (Hestenes & Stiefel 1952), by lineax: the fewest products for a
    symmetric positive definite matrix.

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
        solver = lx.CG(self.tolerance, self.tolerance, lx.internal.two_norm, max_steps=self.steps)
        definite = lx.TaggedLinearOperator(matrix, lx.positive_semidefinite_tag)
        return _by_lineax(solver, definite, vector, guess)


class NormalEquations(LinearSolver):
    """Conjugate gradients on `matrixᵀ · matrix`: for matrices that are not symmetric, or not
    positive definite. Two products a step, and more steps: the condition number is squared.

    **Arguments:**

    - `tolerance`: stops when the normal equations' residual is this small, relative to their
      right-hand side.
    - `steps`: the most steps.
    """

    needs_symmetry = False

    tolerance: float = 1e-6
    steps: int = 200

    def __check_init__(self):
        _check(self, steps=self.steps, tolerance=self.tolerance)

    def solve(self, matrix, vector, guess):
        inner = lx.CG(self.tolerance, self.tolerance, lx.internal.two_norm, max_steps=self.steps)
        return _by_lineax(lx.Normal(inner), matrix, vector, guess)


class FixedPoint(LinearSolver):
    """The iteration `x ← x + rate · (vector − matrix · x)` until it stands still.

    **Arguments:**

    - `tolerance`: stops when the residual is this small, relative to the vector.
    - `steps`: the most steps.
    - `rate`: below 2 over the matrix's largest eigenvalue; unless given, from an estimate of
      that by the power method.
    """

    needs_symmetry = False

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
            return x, _minus(vector, matrix.mv(x)), step + 1

        begin = guess, _minus(vector, matrix.mv(guess)), jnp.int32(0)
        x, _, steps = jax.lax.while_loop(unfinished, advance, begin)
        return x, steps


class Neumann(LinearSolver):
    """The Neumann series `rate · Σ_k (1 − rate · matrix)^k · vector`, cut off: cheap, and biased
    towards 0 (Lorraine, Vicol & Duvenaud 2020, Alg. 3). A guess is not used.

    **Arguments:**

    - `terms`: how many.
    - `rate`: as for `FixedPoint`.
    """

    needs_symmetry = False

    terms: int = 20
    rate: float | None = None

    def __check_init__(self):
        _check(self, terms=self.terms, rate=self.rate)

    def solve(self, matrix, vector, guess):
        del guess
        rate = _rate(self.rate, matrix, vector)

        def add(_, carry):
            total, term = carry
            term = _plus(term, -rate, matrix.mv(term))
            return trees.add(total, term), term

        total, _ = jax.lax.fori_loop(1, self.terms, add, (vector, vector))
        return jax.tree.map(lambda x: rate.astype(x.dtype) * x, total), jnp.int32(self.terms)


def norm(tree: PyTree) -> Float[Array, ""]:
    """The Euclidean norm of all leaves together."""
    return jnp.sqrt(sum(jnp.vdot(x, x) for x in jax.tree.leaves(tree)))


def residual(matrix: lx.AbstractLinearOperator, x: PyTree, vector: PyTree) -> Float[Array, ""]:
    """‖vector − matrix · x‖ ÷ ‖vector‖; 0 for a zero vector."""
    size = norm(vector)
    left = norm(_minus(vector, matrix.mv(x)))
    return jnp.where(size == 0, 0, left / jnp.where(size == 0, 1, size))


def _by_lineax(solver, matrix, vector, guess):
    """Solves for the vector scaled to norm 1, since tolerances have a part that is absolute."""
    size = norm(vector)
    size = jnp.where(size == 0, 1, size)
    scaled = lambda tree, by: jax.tree.map(lambda x: x * by.astype(x.dtype), tree)
    options = {} if isinstance(solver, lx.Normal) else {"y0": scaled(guess, 1 / size)}
    rest = vector
    if not options:  # its own guess would be one of another vector: solve for the correction
        rest = _minus(vector, matrix.mv(guess))
    solution = lx.linear_solve(matrix, scaled(rest, 1 / size), solver, options=options, throw=False)
    x = scaled(solution.value, size)
    steps = jnp.asarray(solution.stats["num_steps"], jnp.int32)
    return (x if options else trees.add(guess, x)), steps


def _rate(rate, matrix, vector):
    """The rate given, or one at which the iteration converges for a positive definite matrix."""
    if rate is not None:
        return jnp.asarray(rate, jnp.result_type(float))
    leaves, structure = jax.tree.flatten(vector)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    draws = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]

    def turn(_, carry):
        x, _ = carry
        x = jax.tree.map(lambda x: x / _nonzero(norm(carry[0])).astype(x.dtype), x)
        x = matrix.mv(x)
        return x, norm(x)

    begin = jax.tree.unflatten(structure, draws), jnp.zeros((), jnp.result_type(*leaves))
    _, largest = jax.lax.fori_loop(0, POWER_STEPS, turn, begin)
    return 1 / (MARGIN * _nonzero(largest))


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

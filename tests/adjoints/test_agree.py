"""All adjoints in one table: they agree with each other, with finite differences and with closed
forms, as far as their traits say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
import problems

SHORT, LONG = 9, 200
ANY_RUN = {
    "stored": hg.Stored(),
    "checkpointed": hg.Checkpointed(),
    "three slots": hg.Checkpointed(slots=3),
    "reversible": hg.Reversible(min_decay=0.3),
    "forward": hg.Forward(),
    "forward, in blocks": hg.Forward(block=2),
    "truncated beyond the start": hg.Truncated(LONG),
    "truncated, forward": hg.Truncated(LONG, inner=hg.Forward()),
}
AT_A_MINIMUM = {
    "conjugate gradient": hg.Implicit(solver=hg.solvers.ConjugateGradient(tolerance=1e-12)),
    "normal equations": hg.Implicit(solver=hg.solvers.NormalEquations(tolerance=1e-12)),
    "fixed point": hg.Implicit(solver=hg.solvers.FixedPoint(tolerance=1e-12)),
    "neumann": hg.Implicit(solver=hg.solvers.Neumann(terms=400)),
}
MOMENTUM = hg.Momentum(
    lambda hyper, t: hyper["rate"],
    lambda hyper, t: hyper["decay"],
    convention=hg.HeavyBall(),
)


def tolerance(adjoint):
    """`Reversible` rounds states to 42 binary places; all others are float64."""
    return 1e-6 if isinstance(adjoint, hg.Reversible) else 1e-8


# Quadratic: E(θ_T), with L(θ) = ½ Σ a (θ − c)² + ½ λ ‖θ‖² and a start that depends on λ.
CURVATURE = np.array([0.5, 1.0, 2.0])
QUADRATIC = {
    "rate": 0.3,
    "decay": 0.4,
    "penalty": 0.2,
    "target": np.array([1.0, -1.0, 2.0]),
    "scale": 1.5,
}


def quadratic_score(params, hyper):
    return jnp.sum((params - 0.5) ** 2) + hyper["penalty"] ** 2


def quadratic(hyper, steps, adjoint):
    def loss(params, hyper, batch):
        misses = CURVATURE * (params - hyper["target"]) ** 2
        return 0.5 * jnp.sum(misses) + 0.5 * hyper["penalty"] * jnp.sum(params**2)

    objective = hg.Objective(
        hg.Training(loss, optimizer=MOMENTUM, batches=lambda t: None, steps=steps),
        init=lambda hyper, key: hyper["scale"] * jnp.ones(3),
        score=lambda params, hyper, key: quadratic_score(params, hyper),
    )
    return objective(hyper, adjoint=adjoint)


def quadratic_closed(hyper, steps):
    """(distance from the minimum, velocity) is multiplied by one matrix at every step."""
    curvature = CURVATURE + hyper["penalty"]
    minimum = CURVATURE * hyper["target"] / curvature

    def end(curvature, minimum):
        rate, decay = hyper["rate"], hyper["decay"]
        matrix = jnp.array([[1 - rate * curvature, -rate * decay], [curvature, decay]])
        power = jnp.linalg.matrix_power(matrix, steps)
        return minimum + power[0, 0] * (hyper["scale"] - minimum)

    return quadratic_score(jax.vmap(end)(curvature, minimum), hyper)


# Ridge regression: the minimum of ½ Σ w (x·θ − y)² / n + ½ e^λ ‖θ‖², scored on other rows.
DRAW = np.random.default_rng(0)
ROWS, VALID = (
    (x, x @ np.array([1.0, -2.0, 0.5]) + 0.3 * DRAW.normal(size=12))
    for x in (DRAW.normal(size=(12, 3)), DRAW.normal(size=(12, 3)))
)
RIDGE = {"log_penalty": -1.0, "weights": DRAW.uniform(0.5, 1.5, 12), "data": ROWS[0]}


def ridge_score(params):
    return jnp.mean((VALID[0] @ params - VALID[1]) ** 2)


@functools.cache
def ridge_training():
    def loss(params, hyper, batch):
        misses = hyper["data"] @ params - ROWS[1]
        penalty = jnp.exp(hyper["log_penalty"]) * jnp.sum(params**2)
        return 0.5 * jnp.mean(hyper["weights"] * misses**2) + 0.5 * penalty

    optimizer = hg.Momentum(0.4, 0.3, convention=hg.HeavyBall())
    return hg.Training(loss, optimizer=optimizer, batches=lambda t: None, steps=LONG)


def ridge(hyper, adjoint):
    objective = hg.Objective(
        ridge_training(), init=jnp.zeros(3), score=lambda params, hyper, key: ridge_score(params)
    )
    return objective(hyper, adjoint=adjoint)


def ridge_closed(hyper):
    x, weights = hyper["data"], hyper["weights"] / 12
    matrix = x.T @ (weights[:, None] * x) + jnp.exp(hyper["log_penalty"]) * jnp.eye(3)
    return ridge_score(jnp.linalg.solve(matrix, x.T @ (weights * ROWS[1])))


def differences(function, hyper):
    """The derivative of a function, by central differences."""
    leaves, structure = jax.tree.flatten(jax.tree.map(np.asarray, hyper))
    sizes = np.cumsum([leaf.size for leaf in leaves])[:-1]
    whole = np.concatenate([leaf.ravel() for leaf in leaves])

    def at(flat):
        parts = zip(jnp.split(flat, sizes), leaves, strict=True)
        return function(structure.unflatten([p.reshape(x.shape) for p, x in parts]))

    near = whole[None] + 1e-5 * np.concatenate([np.eye(whole.size), -np.eye(whole.size)])
    plus, minus = np.split(np.asarray(jax.jit(jax.vmap(at))(near)), 2)
    parts = np.split((plus - minus) / 2e-5, sizes)
    return structure.unflatten([p.reshape(x.shape) for p, x in zip(parts, leaves, strict=True)])


@pytest.mark.parametrize("name", ANY_RUN)
def test_short_run(x64, name):
    """Rates, decays, the loss's own, the start and the direct term, long before the minimum."""
    adjoint = ANY_RUN[name]
    value, got = jax.value_and_grad(quadratic)(QUADRATIC, SHORT, adjoint)
    right, wanted = jax.value_and_grad(quadratic_closed)(QUADRATIC, SHORT)
    np.testing.assert_allclose(value, right, rtol=tolerance(adjoint))
    assert problems.relative_error(got, wanted) <= tolerance(adjoint)
    assert adjoint.traits.exact.startswith("no" if "truncated" in name else "yes")


def test_finite_differences(x64):
    """The closed forms and a run through `Stored`, which all others are compared with."""
    for function, closed, hyper in (
        (
            lambda h: quadratic(h, SHORT, hg.Stored()),
            lambda h: quadratic_closed(h, SHORT),
            QUADRATIC,
        ),
        (lambda h: ridge(h, hg.Stored()), ridge_closed, RIDGE),
    ):
        assert (
            problems.relative_error(differences(function, hyper), jax.grad(closed)(hyper)) <= 1e-7
        )


@pytest.mark.parametrize("name", ANY_RUN | AT_A_MINIMUM)
def test_minimum(x64, name):
    """A penalty, a weight for every example, and all the data."""
    adjoint = (ANY_RUN | AT_A_MINIMUM)[name]
    value, got = jax.value_and_grad(ridge)(RIDGE, adjoint)
    right, wanted = jax.value_and_grad(ridge_closed)(RIDGE)
    np.testing.assert_allclose(value, right, rtol=tolerance(adjoint))
    assert problems.relative_error(got, wanted) <= tolerance(adjoint)


@pytest.mark.parametrize("name", AT_A_MINIMUM)
def test_implicit_is_exact_at_a_minimum_only(x64, name):
    """Before it, there is an error in place of a wrong answer."""
    adjoint = AT_A_MINIMUM[name]
    objective = hg.Objective(
        ridge_training(), init=jnp.zeros(3), score=lambda params, hyper, key: ridge_score(params)
    )
    assert adjoint.traits.exact == "at a minimiser"
    with pytest.raises(RuntimeError, match="did not end near a stationary point"):
        jax.grad(lambda hyper: objective(hyper, adjoint=adjoint, steps=SHORT // 3))(RIDGE)


def test_a_shorter_window_is_another_answer(x64):
    """What `Truncated` says of itself: the share of the last steps alone."""
    wanted = jax.grad(quadratic_closed)(QUADRATIC, SHORT)
    fixed = {**QUADRATIC}
    scale = fixed.pop("scale")
    got = jax.grad(lambda h: quadratic({**h, "scale": scale}, SHORT, hg.Truncated(3)))(fixed)
    assert problems.relative_error(got["rate"], wanted["rate"]) > 0.1


def test_every_adjoint_has_its_row():
    """No field of the documentation's table is empty."""
    named = [x for x in (getattr(hg, name) for name in hg.__all__) if isinstance(x, type)]
    concrete = [a for a in named if issubclass(a, hg.Adjoint) and a not in (hg.Adjoint, hg.Recall)]
    assert {type(a) for a in (ANY_RUN | AT_A_MINIMUM).values()} <= set(concrete)
    for adjoint in concrete:
        assert all(isinstance(word, str) and word for word in adjoint.traits), adjoint

"""`Implicit`: at a minimum as good as going back all the way; elsewhere an error, and no answer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
import problems
from hindgrad.adjoints import implicit

SOLVERS = [
    hg.solvers.ConjugateGradient(),
    hg.solvers.NormalEquations(),
    hg.solvers.FixedPoint(),
    hg.solvers.Neumann(terms=100),
]
CURVATURE = jnp.array([1.0, 2.0, 3.0])
TARGET = jnp.array([1.0, -1.0, 2.0])
HYPER = jnp.float32(0.5)


def bowl(params, penalty, batch):
    del batch
    miss = jnp.sum(CURVATURE * (params - TARGET) ** 2)
    return 0.5 * miss + 0.5 * penalty * jnp.sum(params**2)


def closed(penalty):
    return jnp.sum((CURVATURE * TARGET / (CURVATURE + penalty)) ** 3)


def training(loss=bowl, rate=0.2, steps=60, **options):
    optimizer = hg.Momentum(rate, 0.3, convention=hg.HeavyBall(), **options)
    return hg.Training(loss, optimizer=optimizer, batches=lambda t: None, steps=steps)


TRAINING = training()


def value(penalty, adjoint, run=TRAINING):
    return jnp.sum(run(jnp.zeros(3), penalty, adjoint=adjoint).params ** 3)


def gradient(adjoint, run=TRAINING):
    result = jax.grad(value)(HYPER, adjoint, run)
    jax.effects_barrier()  # warnings come from a callback
    return result


def test_under_every_transformation():
    adjoint, wanted = hg.Implicit(), jax.grad(closed)(HYPER)
    f = lambda h: value(h, adjoint)
    pair = jnp.stack([HYPER, 2 * HYPER])
    scanned = lambda h: jax.lax.scan(lambda c, _: (c + f(h), None), 0.0, None, length=2)[0] / 2
    for got in (
        jax.vmap(jax.grad(f))(pair)[0],
        jax.grad(lambda b: jnp.sum(jax.vmap(f)(b)))(pair)[0],
        jax.jit(jax.grad(jax.checkpoint(f)))(HYPER),
        jax.grad(scanned)(HYPER),
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_second_derivatives_are_right_or_refused(x64):
    got = jax.grad(jax.grad(lambda h: value(h, hg.Implicit())))(HYPER.astype(float))
    np.testing.assert_allclose(got, jax.grad(jax.grad(closed))(HYPER.astype(float)), rtol=1e-4)


@functools.cache
def softmax_regression():
    """All of 160 digits at every step, a penalty, and a weight for every example."""
    x, y = problems.data()

    def loss(params, hyper, batch):
        scores = optax.softmax_cross_entropy_with_integer_labels(x @ params, y)
        return jnp.mean(scores * hyper["weights"]) + jnp.exp(hyper["log"]) * jnp.sum(params**2)

    test, labels = problems.data(slice(160, 320))

    def score(params, hyper, key):
        return optax.softmax_cross_entropy_with_integer_labels(test @ params, labels).mean()

    optimizer = hg.Momentum(1.0, 0.9)
    run = hg.Training(loss, optimizer=optimizer, batches=lambda t: None, steps=400)
    return hg.Objective(run, init=jnp.zeros((64, 10)), score=score)


@pytest.mark.parametrize("solver", SOLVERS[:3], ids=repr)
def test_softmax_regression_with_the_defaults(solver):
    """Float32, against going back through all 400 steps."""
    hyper = {"log": jnp.float32(-4.0), "weights": jnp.ones(160)}
    got, wanted = (
        jax.grad(softmax_regression())(hyper, adjoint=a)
        for a in (hg.Implicit(solver=solver), hg.Checkpointed())
    )
    assert problems.relative_error(got, wanted) <= 1e-2


# What a hypergradient at the end cannot tell.


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_singular_and_indefinite_hessians_are_never_wrong_in_silence(solver):
    """A direction that no loss moves, and a saddle where training began: NaN, or what is right.

    On the saddle the stationary point moves with the target, however unstable it is."""
    saddle = jnp.array([1.0, -1.0])
    cases = (
        (lambda p, h, b: 0.5 * (p[0] - h) ** 2, lambda p: p[0] + p[1], 1.0),
        (lambda p, h, b: 0.5 * jnp.sum(saddle * (p - h) ** 2), lambda p: jnp.sum(p), 2.0),
    )
    for loss, score, right in cases:

        def total(inputs, loss=loss, score=score):
            h, status = inputs
            adjoint = hg.Implicit(solver=solver, failure=hg.failures.Report(status))
            start = jax.lax.stop_gradient(jnp.stack([h, h]))
            return score(training(loss, steps=2)(start, h, adjoint=adjoint).params)

        got, status = jax.grad(total)((HYPER, jnp.zeros(3)))
        if status[0] != 0:
            assert np.isnan(got)
            assert status[0] in (implicit.NOT_SOLVED, implicit.NOT_FINITE)
        else:
            np.testing.assert_allclose(got, right, rtol=1e-3)


FAILING = {
    "NOT_STATIONARY": (hg.Implicit(), training(steps=3), "did not end near a stationary point"),
    "NOT_SOLVED": (hg.Implicit(solver=hg.solvers.Neumann(terms=1)), TRAINING, "was not solved"),
    "NOT_FINITE": (hg.Implicit(), training(rate=1e20), "not finite"),
    "MOVES": (
        hg.Implicit(stationary=10.0),
        training(weight_decay=hg.Decoupled(0.1)),
        "even where the gradient of the loss is zero",
    ),
}


@pytest.mark.parametrize("cause", FAILING)
def test_failures(cause):
    """An error by default; NaN and a status in its place, which the adjoint puts into words."""
    adjoint, run, message = FAILING[cause]
    with pytest.raises(RuntimeError, match=message):
        gradient(adjoint, run)

    def total(h, status):
        reporting = hg.Implicit(
            solver=adjoint.solver, stationary=adjoint.stationary, failure=hg.failures.Report(status)
        )
        return value(h, reporting, run)

    got, status = jax.grad(total, (0, 1))(HYPER, jnp.zeros(3))
    assert np.isnan(got)
    assert status[0] == getattr(implicit, cause)
    assert message in adjoint.describe(status)


def test_coupled_weight_decay_moves_too():
    with pytest.raises(RuntimeError, match="Write the penalty into the loss"):
        gradient(hg.Implicit(stationary=10.0), training(weight_decay=hg.Coupled(0.1)))


def test_injected_weight_decay_moves_too():
    """With its whole memory zeroed, `inject_hyperparams` is asked for an update without decay."""
    make = lambda hyper: optax.inject_hyperparams(optax.adamw)(learning_rate=0.1, weight_decay=0.1)
    run = hg.Training(bowl, optimizer=hg.from_optax(make), batches=lambda t: None, steps=30)
    with pytest.raises(RuntimeError, match="even where the gradient of the loss is zero"):
        gradient(hg.Implicit(stationary=10.0), run)


def test_warn_goes_on_with_the_answer_there_is():
    early = training(steps=3)
    with pytest.warns(UserWarning, match="did not end near a stationary point"):
        got = gradient(hg.Implicit(failure=hg.failures.Warn()), early)
    np.testing.assert_allclose(got, gradient(hg.Implicit(stationary=10.0), early))


def test_report_tells_how_well_it_went():
    total = lambda h, status: value(h, hg.Implicit(failure=hg.failures.Report(status)))
    got, status = jax.grad(total, (0, 1))(HYPER, jnp.zeros(3))
    np.testing.assert_allclose(got, jax.grad(closed)(HYPER), rtol=1e-4)
    assert status[0] == 0
    assert 0 <= status[1] < 1e-5
    assert 0 <= status[2] < 1e-5
    assert hg.Implicit().describe(status) == ""


def test_messages_hold_every_value_to_a_digit():
    messages = implicit.Messages()
    for cause, number in ((implicit.NOT_STATIONARY, 0.32), (implicit.NOT_SOLVED, 2.6e-4)):
        text = messages[int(messages.number(cause, jnp.float32(number)))]
        assert f"about {number:.1g}" in text
    assert all(isinstance(messages[i], str) for i in range(0, len(messages), 37))
    assert len(messages) > int(messages.number(4, jnp.float32(jnp.inf)))
    assert int(messages.number(4, jnp.float32(jnp.nan))) >= 0


def test_a_guess_starts_the_solver_and_gets_the_solution():
    """A warm start: the right guess makes one step of a poor solver enough."""
    total = lambda h, guess, solver: value(h, hg.Implicit(solver=solver, guess=guess))
    solver = hg.solvers.ConjugateGradient()
    got, solution = jax.grad(total, (0, 1))(HYPER, jnp.zeros(3), solver)
    end = CURVATURE * TARGET / (CURVATURE + HYPER)
    np.testing.assert_allclose(solution, 3 * end**2 / (CURVATURE + HYPER), rtol=1e-4)
    poor = hg.solvers.FixedPoint(steps=1)
    with pytest.raises(RuntimeError, match="was not solved"):
        jax.grad(total)(HYPER, jnp.zeros(3), poor)
    np.testing.assert_allclose(jax.grad(total)(HYPER, solution, poor), got, rtol=1e-4)


def test_rates_do_not_move_a_minimum():
    """Their derivative is zero, which is right; that of the start is refused."""

    def total(rate):
        optimizer = hg.Momentum(lambda h, t: h, 0.3, convention=hg.HeavyBall())
        run = hg.Training(
            lambda p, h, b: bowl(p, HYPER, b), optimizer=optimizer, batches=lambda t: None, steps=60
        )
        return jnp.sum(run(jnp.zeros(3), rate, adjoint=hg.Implicit()).params ** 3)

    assert jax.grad(total)(0.2) == 0


def test_refusals():
    start = lambda params: jnp.sum(TRAINING(params, HYPER, adjoint=hg.Implicit()).params)
    with pytest.raises(ValueError, match="does not depend on where training began"):
        jax.grad(start)(jnp.zeros(3))
    for pick in (lambda run: jnp.sum(run.losses), lambda run: jnp.sum(run.state)):
        run = training(lambda params, penalty, batch: bowl(params, penalty, batch))
        with pytest.raises(
            RuntimeError, match="only the derivative through the trained parameters"
        ):
            jax.grad(
                lambda h, pick=pick, run=run: pick(run(jnp.zeros(3), h, adjoint=hg.Implicit()))
            )(HYPER)
    outputs = lambda h: jnp.sum(
        hg.unroll(relax, START, h, 3, adjoint=hg.Implicit(solver=hg.solvers.FixedPoint()))[1]
    )
    with pytest.raises(RuntimeError, match=r"\(the final state\) is known"):
        jax.grad(outputs)(HYPER)
    with pytest.raises(ValueError, match="needs a symmetric system"):
        hg.unroll(relax, START, HYPER, 3, adjoint=hg.Implicit())


def test_a_refusal_reads_the_same_the_second_time():
    """An exception while a backward pass is traced would leave a half-made entry in JAX's cache,
    and the same call say `StoreException: Store empty` from then on."""
    run = training(lambda params, penalty, batch: bowl(params, penalty, batch))
    hypergradient = jax.grad(lambda h: jnp.sum(run(jnp.zeros(3), h, adjoint=hg.Implicit()).losses))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="through the trained parameters"):
            hypergradient(HYPER)


# A general step's fixed point.

ROTATION = jnp.array([[0.3, -0.6], [0.5, 0.2]])
START = {"x": jnp.zeros(2), "count": jnp.int32(0)}


def relax(state, hyper, t):
    x = ROTATION @ jnp.tanh(state["x"]) + hyper
    return {"x": x, "count": state["count"] + 1}, x[0]


@pytest.mark.parametrize("solver", SOLVERS[1:], ids=repr)
def test_fixed_points(solver):
    """Of a step without symmetry, and with an integer in its state."""

    def total(h, adjoint, steps=60):
        return jnp.sum(hg.unroll(relax, START, h, steps, adjoint=adjoint)[0]["x"] ** 2)

    got, wanted = (jax.grad(total)(HYPER, a) for a in (hg.Implicit(solver=solver), hg.Stored()))
    np.testing.assert_allclose(got, wanted, rtol=1e-4)
    with pytest.raises(RuntimeError, match="did not end near a stationary point"):
        jax.grad(total)(HYPER, hg.Implicit(solver=solver), 2)


def test_the_end_of_a_truncated_run():
    """The start of the window is no longer a hyperparameter's."""
    window = hg.Truncated(1, inner=hg.Implicit())
    np.testing.assert_allclose(gradient(window), jax.grad(closed)(HYPER), rtol=1e-4)


def test_a_second_call_compiles_nothing():
    traces = []

    def loss(params, penalty, batch):
        traces.append(1)
        return bowl(params, penalty, batch)

    run = training(loss)
    hypergradient = jax.grad(lambda h: value(h, hg.Implicit(), run))
    hypergradient(HYPER)
    before = len(traces)
    hypergradient(2 * HYPER)
    assert len(traces) == before


def test_tuning_begins_each_solution_where_the_last_one_ended():
    """A solver of one step gets to the solution over the steps of a tuning that changes nothing;
    from zeros, each would leave .55 of the system."""
    loss = lambda params, h, batch: 0.5 * ((params["w"] - 1) ** 2 + h["l2"] * params["w"] ** 2)
    run = hg.Training(loss, optimizer=hg.Momentum(0.5, 0.0), batches=lambda t: None, steps=100)
    score = lambda params, h, key: (params["w"] - 0.5) ** 2
    objective = hg.Objective(run, init={"w": jnp.zeros(())}, score=score)
    adjoint = hg.Implicit(hg.solvers.FixedPoint(steps=1, rate=0.3), solved=1.0)
    result = hg.tune(
        objective, {"l2": 0.5}, optax.sgd(0.0), steps=15, adjoint=adjoint, progress=False
    )
    norms = np.array([record.norm for record in result.history])
    left = np.abs(1 - norms / norms[-1])
    np.testing.assert_allclose(left[:5], 0.55 ** np.arange(1, 6), rtol=0.01)


def test_tuning_hands_the_solution_on(tmp_path):
    """Ridge's penalty on a line: tuned to where the minimum 1 / (1 + penalty) scores best; resumed
    in between, to the bit."""
    loss = lambda params, h, batch: 0.5 * ((params["w"] - 1) ** 2 + h["l2"] * params["w"] ** 2)
    run = hg.Training(loss, optimizer=hg.Momentum(0.5, 0.0), batches=lambda t: None, steps=100)
    score = lambda params, h, key: (params["w"] - 0.5) ** 2
    objective = hg.Objective(run, init={"w": jnp.zeros(()), "n": 3}, score=score)
    tune = lambda **more: hg.tune(
        objective,
        {"l2": 0.5},
        optax.sgd(1.0),
        steps=40,
        adjoint=hg.Implicit(),
        progress=False,
        **more,
    )
    result = tune()
    assert result.hyper["l2"] == pytest.approx(1.0, abs=0.02)
    (saved,) = [tune(checkpoint=tmp_path) for _ in range(2)][1:]
    assert saved.hyper["l2"] == result.hyper["l2"]

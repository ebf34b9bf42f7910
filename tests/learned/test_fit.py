"""Learning an optimizer: what each iteration sees, what is kept, and how it survives a kill."""

import functools
import inspect
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
from hindgrad.checkpoint import Call, Checkpoint
from hindgrad.learned import CoordinateLSTM, Quadratics, fit, learned_curves, loop
from hindgrad.learned.fit import _same as unchanged
from tests.learned.rate import Rate

RATE, FAMILY, OUTER = Rate(), Quadratics(2), optax.adam(0.1)
START = {"log_rate": np.float32(-4.0)}
SMALL = {"steps": 6, "unroll": 3, "batch": 4, "evaluations": 8, "progress": False}


def small(**options):
    """A fitting of one number, the rate of gradient descent."""
    arguments = {"iterations": 20, "every": 5, "outer": OUTER, "weights": START} | SMALL | options
    optimizer, family = arguments.pop("optimizer", RATE), arguments.pop("family", FAMILY)
    return fit(optimizer, family, **arguments)


@functools.cache
def at_rate(outer_step):
    """What moves the weights by the same step in every iteration."""
    move = lambda updates, state, params=None: (
        jax.tree.map(lambda u: jnp.full_like(u, outer_step), updates),
        state + 1,
    )
    return optax.GradientTransformation(lambda params: jnp.int32(0), move)


def same(one, other):
    """Whether two results are equal to the bit."""
    equal = jax.tree.all(jax.tree.map(np.array_equal, one.weights, other.weights))
    return equal and repr(one[1:]) == repr(other[1:])


def test_learns_to_do_better_on_problems_it_has_not_seen():
    result = fit(
        CoordinateLSTM((4,), preprocess=None),
        Quadratics(3),
        steps=20,
        unroll=10,
        batch=16,
        iterations=150,
        outer=optax.adam(1e-2),
        every=50,
        progress=False,
    )
    assert result.value < 0.5 * result.history[0].value
    assert [e.iteration for e in result.history] == [0, 50, 100, 150]
    assert result.history[-1].training < 0.5 * result.history[0].value
    assert result.message == "Took the weights of iteration 150 of 150."


def a_loop(horizons):
    return loop.Loop(
        outer=OUTER,
        optimizer=RATE,
        family=FAMILY,
        held_out=FAMILY,
        step_weights=jnp.ones(6),
        measure=unchanged,
        adjoint=hg.Stored(),
        key=jax.random.key(0),
        batch=4,
        unroll=3,
        horizons=horizons,
        evaluations=8,
        every=4,
        iterations=100,
    )


def seen(loop, iterations):
    """For each iteration, the step it begins at, and the iteration that drew its problems."""
    drawn = {jax.random.key_data(loop.draw(i + 2)).tobytes(): i for i in range(iterations)}
    state, steps = loop.begin(jax.tree.map(jnp.asarray, START)), []
    for i in range(iterations):
        if any(first == i for first, _ in loop.horizons[1:]):
            begin, key = loop.carried(state.weights, i)
        else:
            begin, key = state.carried
        steps.append((int(begin.t), drawn[jax.random.key_data(key).tobytes()]))
        state = loop.advance(state, i + 1)
    return steps


def test_the_state_is_carried_from_window_to_window():
    """And problems that are done are followed by those drawn in the iteration before."""
    assert seen(a_loop(((0, 6),)), 6) == [(0, 0), (3, 0), (0, 1), (3, 1), (0, 3), (3, 3)]


def test_the_horizon_grows():
    """A new horizon begins with problems of its own."""
    path = seen(a_loop(((0, 3), (3, 6))), 7)
    assert path == [(0, 0), (0, 0), (0, 1), (0, 3), (3, 3), (0, 4), (3, 4)]


def test_goes_on_until_something_is_due(monkeypatch):
    """A chunk of iterations, the next evaluation, or the next horizon, whatever is first."""
    monkeypatch.setattr(loop, "CHUNKS", 2)
    due = a_loop(((0, 3), (3, 6)))
    state, stops = due.begin(jax.tree.map(jnp.asarray, START)), []
    for _ in range(5):
        state = due.go_on(state)
        stops.append(state.iteration)
    assert stops == [2, 3, 4, 6, 8]
    assert [e.iteration for e in state.history] == [0, 4, 8]


def test_results_do_not_depend_on_how_often_progress_is_shown(monkeypatch):
    often = small()
    monkeypatch.setattr(loop, "CHUNKS", 1)
    assert same(small(), often)
    assert same(small(key=jax.random.key(0)), often)
    assert not same(small(key=1), often)


def test_the_best_evaluation_is_kept():
    """Rates rise until everything diverges; what comes back is the best that was looked at."""
    result = small(outer=at_rate(1.0), every=2)
    values = [e.value for e in result.history]
    best = int(np.argmin(values))
    assert values[-1] == np.inf
    assert 0 < best < len(values) - 1
    assert result.value == values[best]
    assert result.weights["log_rate"] == -4 + 2 * best
    assert f"iteration {2 * best} of 20" in result.message
    curves = learned_curves(
        RATE, result.weights, FAMILY, jax.random.fold_in(jax.random.key(0), 1), count=8, steps=5
    )
    assert result.value == pytest.approx(float(jnp.mean(curves)), rel=1e-6)


def test_step_weights_and_measures_weigh_the_evaluation_too():
    weights = np.array([0.0, 0.0, 1.0, 0.0, 0.0, 3.0])
    result = small(step_weights=weights, measure=jnp.log, iterations=2, every=1, outer=at_rate(0.0))
    key = jax.random.fold_in(jax.random.key(0), 1)
    curves = np.log(learned_curves(RATE, START, FAMILY, key, count=8, steps=5))
    assert result.value == pytest.approx(np.mean(curves @ weights) / 4, rel=1e-5)
    drawn = jax.random.fold_in(jax.random.key(0), 2)
    curves = np.log(learned_curves(RATE, START, FAMILY, drawn, count=4, steps=5))
    windows = [e.training for e in result.history[1:]]
    parts = np.mean(curves[:, 2]) * 1, np.mean(curves[:, 5]) * 3
    np.testing.assert_allclose(windows, np.array(parts) / 2, rtol=1e-4)


def broken(key):
    """Half of the problems, by chance, have a slope that is NaN."""
    params, loss = FAMILY(key)
    bad = jax.random.bernoulli(key, 0.2)
    return params, lambda p, k: loss(p, k) * jnp.where(bad, jnp.nan, 1.0)


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted():
    outer = at_rate(0.01)
    result = small(family=broken, held_out=FAMILY, outer=outer, iterations=20, every=20)
    skipped = result.history[-1].skipped
    assert 0 < skipped < 20
    assert f"skipped because their gradient was not finite: {skipped} of 20" in result.message
    assert result.weights["log_rate"] == pytest.approx(-4 + 0.01 * (20 - skipped), abs=1e-5)
    assert np.isfinite(result.history[-1].training)


def test_nothing_is_finite():
    """The start comes back, and the message says what happened."""
    never = lambda key: (jnp.ones(2), lambda params, key: jnp.sum(params) * jnp.nan)
    result = small(family=never, iterations=4, every=2)
    assert result.value == np.inf
    assert np.array_equal(result.weights["log_rate"], START["log_rate"])
    assert "No evaluation gave a finite value" in result.message
    assert "4 of 4" in result.message
    assert np.isnan(result.history[-1].training)


@pytest.mark.parametrize(
    "adjoint",
    [hg.Evolution(4, spread=0.1), hg.PersistentEvolution(4, window=3, spread=0.1)],
    ids=lambda a: type(a).__name__,
)
def test_learns_without_derivatives(adjoint):
    result = small(adjoint=adjoint, outer=optax.adam(0.1))
    assert result.value < 0.8 * result.history[0].value
    assert result.history[-1].training == pytest.approx(result.history[-1].value, rel=0.5)


def test_a_second_fitting_compiles_nothing():
    traces = []

    def family(key):
        traces.append(None)
        return FAMILY(key)

    for key in (1, 2):
        small(family=family, key=key, iterations=5)
        traces.append(key)
    assert traces[-2:] == [1, 2]


def test_shows_progress(capsys):
    small(iterations=5, progress=True)
    shown = capsys.readouterr().err
    assert "5/5" in shown
    assert "held-out" in shown


RESUMED = {"iterations": 24, "every": 4, "horizons": ((0, 3), (10, 6))}
PROGRAM = """
import os, time
import jax
import hindgrad.checkpoint
import hindgrad.progress
from tests.learned import test_fit

hindgrad.checkpoint.SECONDS_BETWEEN_SAVES = 0.0
test_fit.loop.CHUNKS = 100
hindgrad.progress.Bar.show = lambda *_: time.sleep(0.2)
test_fit.small(checkpoint={directory!r}, **test_fit.RESUMED)
"""


def saved(directory):
    """The last iteration in a checkpoint."""
    states = directory / "states"
    steps = [int(p) for p in os.listdir(states) if p.isdigit()] if states.exists() else []
    return max(steps, default=0)


def test_killed_fitting_ends_with_the_same_result(tmp_path):
    """SIGKILL in mid-run, after the horizon has changed; then the same call ends as if nothing had
    happened."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM.format(directory=str(tmp_path))])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and saved(tmp_path) < 11:
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it was killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert 11 <= saved(tmp_path) < 24
    whole = small(**RESUMED)
    for _ in range(2):  # the second time it has nothing left to do
        assert same(small(checkpoint=tmp_path, **RESUMED), whole)


def test_interrupted_fitting_loses_nothing(tmp_path, monkeypatch):
    """What was done until Ctrl-C is kept, however recent the last save."""
    adjoint = hg.PersistentEvolution(2, window=3, spread=0.1)
    options = RESUMED | {"adjoint": adjoint, "step_weights": np.linspace(0.0, 1.0, 6)}
    whole = small(**options)

    def interrupt(bar, done, text):
        if done in (7, 13):
            raise KeyboardInterrupt

    monkeypatch.setattr("hindgrad.progress.Bar.show", interrupt)
    for done in (7, 13):
        with pytest.raises(KeyboardInterrupt):
            small(checkpoint=tmp_path, **options)
        assert saved(tmp_path) == done
    assert same(small(checkpoint=tmp_path, **options), whole)


def functions(scale):
    return lambda key: (jnp.ones(2), lambda params, key: scale * jnp.sum(params**2))


def test_a_checkpoint_of_another_call_is_refused(tmp_path):
    """Functions, which cannot be compared, are told apart by the first numbers that they give."""
    family = functions(1.0)
    short = {"iterations": 2, "every": 2, "checkpoint": tmp_path, "held_out": FAMILY}
    small(family=family, **short)
    others = {
        "key": 1,
        "weights": {"log_rate": np.float32(-3.9)},
        "step_weights": np.arange(6.0),
        "outer": optax.adam(0.2),
        "family": functions(2.0),
    }
    for name, value in others.items():
        with pytest.raises(ValueError, match=f"another `{name}"):
            small(**{"family": family} | short | {name: value})


def test_a_damaged_state_is_made_again_from_the_one_before(tmp_path, monkeypatch):
    """NumPy's whole numbers are as good as Python's; a call in the same directory is refused."""
    monkeypatch.setattr("hindgrad.checkpoint.SECONDS_BETWEEN_SAVES", 0.0)
    short = {"iterations": np.int64(4), "every": np.int32(2), "key": np.uint8(0)}
    whole = small(checkpoint=tmp_path, **short)
    assert saved(tmp_path) == 4
    for file in (tmp_path / "states" / "4").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert same(small(checkpoint=tmp_path, **short), whole)
    with (
        Checkpoint(tmp_path, lambda: Call({}, {})),
        pytest.raises(RuntimeError, match="Another call is using the checkpoint"),
    ):
        small(checkpoint=tmp_path, **short)


def test_the_outer_optimizer_is_told_the_loss():
    plateau = optax.chain(OUTER, optax.contrib.reduce_on_plateau(patience=2))
    result = small(outer=plateau)
    assert result.value < result.history[0].value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"fit\(steps=0\): a whole number"),
        ({"iterations": True}, r"fit\(iterations=True\)"),
        ({"every": 0}, r"fit\(every=0\)"),
        ({"unroll": 4}, r"fit\(unroll=4\) does not divide the 6 steps"),
        ({"horizons": ((0, 12),)}, "12 steps of an episode"),
        ({"horizons": ((0, 0),)}, r"fit\(horizons=0\)"),
        ({"horizons": ((1, 6),)}, "rising iterations from 0 on"),
        ({"horizons": ((0, 3), (0, 6))}, "rising iterations from 0 on"),
        ({"step_weights": np.ones(5)}, r"has shape \(5,\)"),
        ({"step_weights": -np.ones(6)}, "none below 0"),
        ({"step_weights": np.eye(6)[5], "horizons": ((0, 3), (5, 6))}, "among the first 3"),
        ({"adjoint": hg.PersistentEvolution(window=2, spread=0.1)}, "the length of a window"),
        ({"adjoint": hg.Reversible()}, "Reversible"),
        ({"weights": {"other": np.float32(0)}}, "These weights are of the shapes"),
        ({"family": lambda key: jnp.ones(2)}, r"a pair \(params, loss\) is needed"),
    ],
)
def test_arguments_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"optimizer": optax.adam(1e-3)}, "no learned optimizer"),
        ({"outer": 1e-3}, "not an optax optimizer"),
        ({"family": 3}, r"fit\(family=3\) is not a function"),
        ({"measure": 3}, r"fit\(measure=3\) is not a function"),
    ],
)
def test_arguments_of_another_kind(options, message):
    """Without the type checker of the tests, which comes first."""
    arguments = {"optimizer": RATE, "family": FAMILY, "outer": None, "measure": None} | options
    fit = inspect.unwrap(hg.learned.fit)
    with pytest.raises(TypeError, match=message):
        fit(arguments.pop("optimizer"), arguments.pop("family"), **arguments)

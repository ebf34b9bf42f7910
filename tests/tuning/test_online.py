"""Real-time tuning: what it does with a run, good or wild. Its hypergradients: `test_horizons`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hindgrad as hg
import problems
from hindgrad.tuning.horizons import Carried, LastWindow, Restarted
from hindgrad.tuning.trajectory import ACCEPTED, NO_GRADIENT, UNDONE

START = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([0.5])}
STEPS, EVERY = 24, 4


def loss(params, hyper, batch):
    del batch
    return sum(jnp.sum(jnp.cosh(p) - 1) for p in jax.tree.leaves(params))


def valid_loss(params, hyper, t):
    del t
    return loss(params, hyper, None)


def training(optimizer=None, steps=STEPS):
    momentum = hg.Momentum(lambda hyper, t: hyper["rate"], lambda hyper, t: hyper["decay"])
    return hg.Training(loss, optimizer=optimizer or momentum, batches=lambda t: None, steps=steps)


TRAINING = training()
HYPER = {"rate": 0.05, "decay": 0.5}
OUTER = optax.adam(0.02)


def tuned(run=TRAINING, hyper=HYPER, outer=None, valid=valid_loss, params=START, **options):
    options = {"every": EVERY, "progress": False} | options
    return hg.tune_online(run, params, hyper, valid, outer or OUTER, **options)


def test_what_comes_back():
    """One training, lower at the end than without; every change is told."""
    result = tuned(hyper=HYPER | {"count": 3, "none": None, "f": jnp.tanh})
    assert result.losses.shape == (STEPS,)
    assert result.trajectory.steps.tolist() == [4, 8, 12, 16, 20, 24]
    assert result.trajectory.hyper["rate"].shape == (6,)
    assert result.trajectory.hyper["rate"][-1] == result.hyper["rate"] > HYPER["rate"]
    assert (result.trajectory.status == ACCEPTED).all()
    np.testing.assert_allclose(
        result.trajectory.values[-1], valid_loss(result.params, None, STEPS), rtol=1e-6
    )
    plain = TRAINING(START, HYPER)
    assert valid_loss(result.params, None, 0) < 0.9 * valid_loss(plain.params, None, 0)
    np.testing.assert_allclose(result.losses[:EVERY], plain.losses[:EVERY], rtol=1e-6)
    assert (result.hyper["count"], result.hyper["none"], result.hyper["f"]) == (3, None, jnp.tanh)
    assert jax.tree.structure(result.state) == jax.tree.structure(plain.state)
    assert result.message == "Changes of the hyperparameters: 6."
    again = tuned(hyper=HYPER | {"count": 3, "none": None, "f": jnp.tanh})
    jax.tree.map(np.testing.assert_array_equal, again.params, result.params)
    jax.tree.map(np.testing.assert_array_equal, again.trajectory, result.trajectory)


def test_steps_beyond_the_last_change():
    """They are trained with the last hyperparameters; an outer rate of 0 gives the plain run."""
    result = tuned(outer=optax.sgd(0.0), every=7)
    plain = TRAINING(START, HYPER)
    assert result.trajectory.steps.tolist() == [7, 14, 21]
    np.testing.assert_allclose(result.losses, plain.losses, rtol=1e-6)
    for got, wanted in zip(
        jax.tree.leaves(result.params), jax.tree.leaves(plain.params), strict=True
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_more_windows_than_pieces():
    """Several windows to a call."""
    result = tuned(training(steps=250), outer=optax.sgd(0.0), every=1)
    assert result.losses.shape == (250,)
    assert result.trajectory.steps.tolist() == list(range(1, 251))


def test_a_network_with_layers_of_its_own(key):
    """Digits: rates of each layer, through optax, and projected."""
    names = ("hidden", "out")
    optimizer = hg.Momentum(lambda hyper, t: hyper["rate"], 0.9)
    result = hg.tune_online(
        problems.training(optimizer, 20),
        problems.init(key),
        {"rate": dict.fromkeys(names, 0.1), "log_l2": -6.0},
        lambda params, hyper, t: problems.valid(params),
        optax.adam(0.1),
        every=5,
        horizon=LastWindow(),
        project=hg.constraints.Box(rate=(0.0, 0.25)),
        progress=False,
    )
    rates = np.stack([result.trajectory.hyper["rate"][name] for name in names])
    assert rates.max() == np.float32(0.25)
    assert (rates >= 0).all()
    assert result.trajectory.values[-1] < result.trajectory.values[0]


# Ranges, and runs that diverge.

PER_LAYER = training(
    hg.Adam(
        lambda hyper, t: hyper["rate"],
        b1=lambda hyper, t: hyper["b1"],
        b2=lambda hyper, t: hyper["b2"],
        weight_decay=hg.Decoupled(lambda hyper, t: hyper["weight_decay"]),
    )
)


def _wild(updates, state, params):
    """The outer rate is a hyperparameter, so that nothing compiles again for another one."""
    moved = jax.tree.map(lambda u: -params["outer"] * u, updates)
    return moved | {"outer": jnp.zeros(())}, state


WILD = optax.GradientTransformation(lambda params: optax.EmptyState(), _wild)
unchanged = lambda hyper: hyper
start = st.sampled_from([0.0, 1e-3, 0.1, 1.0, 30.0])
decay = st.sampled_from([0.0, 0.5, 0.999])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    outer=st.sampled_from([-1e30, -1e3, -1.0, -1e-2, 0.0, 1e-2, 1.0, 1e3, 1e10, 1e30, 3e38]),
    a=start,
    b=start,
    b1=decay,
    b2=decay,
    weight_decay=start,
)
def test_no_rate_or_decay_leaves_its_range(outer, a, b, b1, b2, weight_decay):
    """However wild the outer rate: finite parameters at the end, or an error that says why."""
    hyper = {
        "rate": {"a": a, "b": b},
        "b1": b1,
        "b2": b2,
        "weight_decay": weight_decay,
        "outer": outer,
    }
    try:
        result = tuned(PER_LAYER, hyper, WILD, project=unchanged)
    except (ValueError, RuntimeError) as error:
        assert "diverge" in str(error)  # noqa: PT017
        return
    seen = result.trajectory.hyper
    rates = [seen["rate"]["a"], seen["rate"]["b"], seen["weight_decay"]]
    assert all((x >= 0).all() and np.isfinite(x).all() for x in rates)
    assert all((x >= 0).all() and (x < 1).all() for x in (seen["b1"], seen["b2"]))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((result.params, result.losses)))


def test_restarted_schedules_stay_in_range():
    """The next run begins at step 0, but the range is checked from where this one ended."""
    schedule = training(hg.Momentum(lambda hyper, t: hyper["rate"][t], 0.5), steps=8)
    rate = jnp.array([0.01, 0.01, 0.01, 0.5])
    result = tuned(schedule, {"rate": rate}, optax.sign_sgd(-0.1), horizon=Restarted(), every=4)
    assert (result.trajectory.hyper["rate"] >= 0).all()


def test_a_window_that_diverges_is_undone():
    """Changes much too large: back to the last good state, then smaller changes."""
    result = tuned(outer=optax.sign_sgd(3.0), hyper={"rate": 0.3, "decay": 0.5}, every=2)
    status = result.trajectory.status
    assert (status == UNDONE).any()
    assert (status == ACCEPTED).sum() == STEPS // 2
    assert np.isfinite(result.losses).all()
    assert result.losses.shape == (STEPS,)
    assert f"diverged and were undone: {(status == UNDONE).sum()}." in result.message
    first = int(np.argmax(status == UNDONE))
    hyper = np.concatenate([np.float32([0.3]), result.trajectory.hyper["rate"]])
    assert hyper[first + 1] == hyper[first - 1]  # the ones before the change
    assert abs(hyper[first + 2] - hyper[first + 1]) == pytest.approx(1.5)  # half of the changes


def test_a_hypergradient_that_is_not_finite_changes_nothing():
    """Once, in mid-run: the tangents begin anew, and the next change is as ever."""

    def valid(params, hyper, t):
        root = jnp.sqrt(jnp.where(t == 8, 0 * hyper["rate"], 1.0))  # its derivative at 0 is NaN
        return valid_loss(params, hyper, t) + root

    result = tuned(valid=valid)
    assert result.trajectory.status.tolist() == [0, NO_GRADIENT, 0, 0, 0, 0]
    rate = result.trajectory.hyper["rate"]
    assert rate[1] == rate[0] < rate[2]
    assert "not finite, after which tangents began anew: 1." in result.message


@pytest.mark.parametrize("steps", [STEPS, 1000])
def test_a_start_that_diverges_is_refused(steps):
    """Of 1,000 steps, a compiled call has ten windows: so many that a change might be blamed."""
    with pytest.raises(ValueError, match="diverges in its first window"):
        tuned(training(steps=steps), {"rate": 1e10, "decay": 0.5}, every=1)


def test_a_run_that_always_diverges_gives_up():
    """The loss cliffs off at step 10, whatever the hyperparameters."""
    cliff = lambda params, hyper, t: valid_loss(params, hyper, t) + jnp.where(t > 10, jnp.nan, 0.0)
    with pytest.raises(RuntimeError, match="diverged 8 times in a row"):
        tuned(valid=cliff)


def test_the_last_steps_do_not_end_in_nan():
    """What diverges after the last change is run again without it."""
    result = tuned(outer=optax.sgd(1e25), every=20)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(result.params))


def test_overshooting_near_the_minimum_is_no_divergence():
    """Parameters that swing by the minimum score 1e-4, and then 2e-3: ten times the median of
    that one value, though a thousandth of where training began."""
    bowl = lambda params, hyper, batch: jnp.sum((params - 1) ** 2)
    run = hg.Training(
        bowl,
        optimizer=hg.Momentum(lambda hyper, t: hyper["rate"], 0.5),
        batches=lambda t: None,
        steps=20,
    )
    result = tuned(run, {"rate": 0.2}, optax.sgd(1e-4), bowl, jnp.zeros(2), every=5)
    assert (result.trajectory.status == ACCEPTED).all()


def test_restarted_ends_with_a_whole_run():
    """Of 22 steps, 2 would be left over."""
    with pytest.raises(ValueError, match="only the 2 steps that are left of 22"):
        tuned(training(steps=22), every=10, horizon=Restarted())
    result = tuned(training(steps=20), every=10, horizon=Restarted(), outer=optax.sgd(0.0))
    wanted = training(steps=10)(START, HYPER).params
    np.testing.assert_allclose(result.params["a"], wanted["a"], rtol=1e-5)


# Calls.


def test_a_second_call_compiles_nothing():
    """Nor does `project=None` make a function anew."""
    traces = []

    def valid(params, hyper, t):
        traces.append(1)
        return valid_loss(params, hyper, t)

    outer = optax.sgd(1e-3)
    tuned(valid=valid, outer=outer)
    before = len(traces)
    tuned(hyper={"rate": 0.02, "decay": 0.6}, valid=valid, outer=outer)
    assert len(traces) == before


def test_shows_progress(capsys):
    tuned(progress=True)
    assert "6/6" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 0}, ValueError, "a whole number, at least 1"),
        ({"every": 25}, ValueError, "from 1 to the training's 24 steps"),
        ({"hyper": {"rate": -0.1, "decay": 0.5}}, ValueError, "a rate outside of its range"),
        ({"hyper": {"rate": 0.1, "decay": 1.0}}, ValueError, "a decay outside of its range"),
        ({"project": 3}, TypeError, "is no projection"),
        ({"hyper": {"rate": 1, "decay": 0}}, ValueError, "without a float"),
    ],
)
def test_misuse(options, error, message):
    """What type checks do not see; for the rest, see `test_messages`."""
    with pytest.raises(error, match=message):
        tuned(**options)


def test_outer_optimizers_that_ask_for_the_value():
    outer = optax.chain(optax.sgd(0.01), optax.contrib.reduce_on_plateau(patience=1))
    assert tuned(outer=outer).hyper["rate"] > HYPER["rate"]


def test_complex_hyperparameters_are_refused_by_name():
    with pytest.raises(ValueError, match=r"'z' of dtype complex64: .* real and imaginary part"):
        tuned(hyper=HYPER | {"z": jnp.complex64(1j)})


@pytest.mark.parametrize(
    "setting",
    [
        lambda: jax.numpy_dtype_promotion("strict"),
        jax.disable_jit,
        lambda: jax.debug_nans(True),
        jax.checking_leaks,
    ],
    ids=["strict promotion", "no jit", "NaNs are errors", "leaks are errors"],
)
@pytest.mark.parametrize("horizon", [Carried(), LastWindow()])
def test_settings_of_jax(setting, horizon):
    run = training(steps=4)
    with setting():
        result = tuned(run, every=np.int64(2), horizon=horizon)
    wanted = tuned(run, every=2, horizon=horizon)
    np.testing.assert_allclose(result.hyper["rate"], wanted.hyper["rate"], rtol=1e-5)


@pytest.mark.parametrize("every", [0, True, STEPS + 1])
def test_no_number_of_steps(every):
    with pytest.raises(ValueError, match=r"tune_online\(every="):
        tuned(every=every)


@pytest.mark.parametrize("value", [lambda p: p["a"], lambda p: 3, lambda p: p["a"][0] + 0j])
def test_a_validation_loss_is_one_float(value):
    with pytest.raises(ValueError, match="one float is needed"):
        tuned(valid=lambda params, hyper, t: value(params))

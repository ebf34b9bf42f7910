"""The outer loop on functions whose minimum is known, and on a training run."""

import os
import signal
import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
import problems
from hindgrad.tuning.judge import is_plateau
from hindgrad.tuning.state import Record

TARGET = np.array([1.0, 2.0, 3.0])


def bowl(hyper):
    return jnp.sum((hyper["a"] - TARGET) ** 2) + hyper["b"] ** 2


def noisy(hyper, key):
    return jnp.sum((hyper["a"] - TARGET + jax.random.normal(key, (3,))) ** 2)


def quiet(*args, **options):
    return hg.tune(*args, progress=False, **options)


def test_finds_the_minimum_and_leaves_the_rest():
    hyper = {"a": jnp.zeros(3), "b": 1.0, "n": 3, "none": None, "f": jnp.tanh}
    result = quiet(bowl, hyper, optax.sgd(0.4), steps=50)
    np.testing.assert_allclose(result.hyper["a"], TARGET, atol=1e-4)
    assert result.value == min(r.value for r in result.history)
    assert (result.hyper["n"], result.hyper["none"], result.hyper["f"]) == (3, None, jnp.tanh)


def test_returns_the_best_seen_not_the_last():
    """A rate at which the iterates swing around the minimum, growing."""
    result = quiet(lambda h: h**2, 1.0, optax.sgd(1.02), steps=8)
    assert result.value == 1.0
    assert result.history[-1].value > 1.2
    assert result.hyper == 1.0


def test_projection():
    result = quiet(
        bowl,
        {"a": jnp.zeros(3), "b": 1.0},
        optax.sgd(0.4),
        steps=40,
        project=hg.constraints.Box(a=(0, 2), b=(0.5, None)),
    )
    np.testing.assert_allclose(result.hyper["a"], [1, 2, 2], atol=1e-3)
    assert result.hyper["b"] == 0.5


def test_turns_back_from_a_cliff():
    """Beyond 2.5 the value is NaN: the step is undone, and a smaller one finds the minimum."""
    cliff = lambda h: jnp.where(h > 2.5, jnp.nan, (h - 2.4) ** 2)
    result = quiet(cliff, 0.0, optax.sgd(0.9), steps=60)
    statuses = [r.status for r in result.history]
    assert statuses[1] == "not finite"
    assert statuses.count("accepted") > 10
    assert result.hyper == pytest.approx(2.4, abs=1e-3)
    assert "turned back" in result.message
    assert "smallest rate was 0.5" in result.message


def test_turns_back_from_chaos():
    """Beyond 2.5 the value is wild: undone too, though it is finite."""
    wild = lambda h: jnp.where(h > 2.5, 100 + 50 * jnp.sin(1e4 * h), 1 + (h - 2.4) ** 2)
    result = quiet(wild, 0.0, optax.sgd(0.9), steps=60)
    assert result.history[1].status == "worse by far"
    assert result.hyper == pytest.approx(2.4, abs=1e-3)


def test_turns_back_from_a_long_decline():
    """A hypergradient that points the wrong way beyond 1: the values get worse little by little."""

    @jax.custom_jvp
    def misleading(h):
        return 1 + jnp.abs(h - 1)

    misleading.defjvp(lambda primals, tangents: (misleading(*primals), -tangents[0]))
    result = quiet(misleading, 0.0, optax.sgd(0.15), steps=40, patience=None)
    statuses = [r.status for r in result.history]
    assert "worse for long" in statuses
    assert result.value < 1.06
    after = result.history[statuses.index("worse for long") + 1]
    assert after.value < 1.3
    assert after.scale == 0.5


def test_turns_back_further_each_time():
    """The gradient points off a cliff that moves closer: earlier points are returned to."""
    calls = iter(range(100))

    def value(h):
        late = jax.pure_callback(
            lambda: np.float32(next(calls) >= 4), jax.ShapeDtypeStruct((), "float32")
        )
        return h + jax.lax.stop_gradient(jnp.where(late > 0, jnp.nan, 0.0))

    result = quiet(value, 0.0, optax.sgd(1.0), steps=20, patience=None)
    assert [r.status for r in result.history[:4]] == ["accepted"] * 4
    assert {r.status for r in result.history[4:]} == {"not finite"}
    assert "no smaller step helped" in result.message
    assert result.value == -3.0


def test_a_start_that_is_nan_is_refused():
    with pytest.raises(ValueError, match="tuning cannot begin there"):
        quiet(lambda h: jnp.log(h), -1.0, optax.sgd(0.1), steps=3)


def test_stops_on_a_plateau():
    result = quiet(lambda h: jnp.abs(h), 1.0, optax.sgd(0.3), steps=200, patience=5)
    assert 10 <= len(result.history) < 30
    assert "on a plateau" in result.message
    falling = [Record(i, 1 / (i + 1), 1.0, 1.0, "accepted") for i in range(40)]
    assert not is_plateau(falling, 5)
    assert not is_plateau([r._replace(value=1.0) for r in falling], None)


def test_noise_is_averaged_out():
    """With a key, the average of the last half is nearer the minimum than single iterates."""
    result = quiet(noisy, {"a": jnp.zeros(3)}, optax.sgd(0.1), steps=200, key=1, patience=None)
    assert "the average of the last 100 iterates" in result.message
    assert np.linalg.norm(result.hyper["a"] - TARGET) < 0.3
    again = quiet(noisy, {"a": jnp.zeros(3)}, optax.sgd(0.1), steps=200, key=1, patience=None)
    assert jnp.array_equal(result.hyper["a"], again.hyper["a"])
    assert result.history == again.history


def test_the_average_is_projected():
    """Iterates on a circle, whose average lies within it; and is the better for the score."""
    circle = lambda h: h / jnp.linalg.norm(h)
    pulled = lambda h, key: jnp.vdot(h, jax.random.normal(key, (2,)))
    result = quiet(
        pulled,
        jnp.array([1.0, 0.0]),
        optax.sgd(0.3),
        steps=20,
        key=0,
        patience=None,
        project=circle,
        choose=lambda h: jnp.where(h[0] == 1, 1.0, 0.0) + jnp.abs(jnp.linalg.norm(h) - 0.5),
    )
    assert jnp.linalg.norm(result.hyper) == pytest.approx(1.0, abs=1e-6)


def test_many_small_iterates_are_averaged_without_rounding():
    """In bfloat16, a sum stops growing at 256 times its terms."""
    result = quiet(
        lambda h, key: jnp.sum((h.astype(jnp.float32) - 1.0) ** 2),
        jnp.full(2, 0.75, jnp.bfloat16),
        optax.sgd(0.0),
        steps=600,
        key=0,
        average=1.0,
        patience=None,
        choose=lambda h: jnp.abs(h[0] - 0.75).astype(float),
    )
    assert result.hyper.dtype == jnp.bfloat16
    assert (result.hyper == 0.75).all()


def test_complex_hyperparameters_go_downhill():
    """JAX's gradient by a complex number points elsewhere; here it is conjugated."""
    target = 1 - 2j
    result = quiet(lambda z: jnp.abs(z - target) ** 2, jnp.complex64(0), optax.sgd(0.3), steps=20)
    assert complex(result.hyper) == pytest.approx(target, abs=1e-3)
    assert result.diagnosis is not None
    assert result.diagnosis.ok


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.polyak_sgd(max_learning_rate=0.5),
        optax.chain(optax.adam(0.3), optax.contrib.reduce_on_plateau(patience=1)),
    ],
    ids=["polyak", "plateau"],
)
def test_optimizers_that_ask_for_the_value(optimizer):
    result = quiet(bowl, {"a": jnp.zeros(3), "b": 1.0}, optimizer, steps=30)
    assert result.value < 0.1 * result.history[0].value


def test_a_line_search_is_refused():
    with pytest.raises(TypeError, match="linesearch=None"):
        quiet(bowl, {"a": jnp.zeros(3), "b": 1.0}, optax.lbfgs(), steps=3)


SETTINGS = {
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "no jit": jax.disable_jit,
    "NaNs are errors": lambda: jax.debug_nans(True),
    "leaks are errors": jax.checking_leaks,
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_jax(name):
    """The result is the same under each."""
    hyper = {"a": jnp.zeros(3), "b": 1.0, "small": jnp.ones(2, jnp.bfloat16)}
    value = lambda h, key: noisy(h, key) + jnp.sum(h["small"].astype(jnp.float32) ** 2)
    box = hg.constraints.Box(a=(0, 2.5)) & hg.constraints.L1Ball(a=4.0)
    tune = lambda: quiet(
        value, hyper, optax.adam(0.1), steps=np.int64(4), key=np.uint8(1), project=box
    )
    with SETTINGS[name]():
        result = tune()
    np.testing.assert_allclose(result.hyper["a"], tune().hyper["a"], rtol=1e-4)
    assert result.diagnosis is not None


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"steps": 0}, ValueError, r"tune\(steps=0\): a whole number"),
        ({"steps": True}, ValueError, r"tune\(steps=True\): a whole number"),
        ({"choose": lambda h: h["a"]}, ValueError, "one real number"),
        ({"patience": 0}, ValueError, r"tune\(patience=0\): a whole number, at least 1"),
        ({"key": True}, TypeError, r"tune\(key=True\) is neither a key nor a seed"),
        ({"project": lambda h: {"a": h["a"]}}, ValueError, "must give back the same"),
        ({"project": lambda h: h | {"a": h["b"]}}, ValueError, "must give back the same"),
    ],
)
def test_refusals(options, error, words):
    options = {"steps": 2} | options
    with pytest.raises(error, match=words):
        quiet(bowl, {"a": jnp.zeros(3), "b": 1.0}, optax.sgd(0.1), **options)


def test_a_projection_may_give_plain_numbers():
    result = quiet(
        bowl,
        {"a": jnp.zeros(3), "b": 1.0},
        optax.sgd(0.1),
        steps=3,
        project=lambda h: {"a": h["a"], "b": 0.5},
    )
    assert result.hyper["b"] == 0.5


def test_choose_decides():
    """The held-out score picks the start, whatever the objective says."""
    result = quiet(
        noisy,
        {"a": jnp.zeros(3)},
        optax.sgd(0.1),
        steps=10,
        key=0,
        choose=lambda h: float(jnp.sum(h["a"] ** 2)),
    )
    assert result.value == 0.0
    assert not jnp.any(result.hyper["a"])


def objective(steps=8):
    training = problems.training(hg.Momentum(lambda h, t: jnp.exp(h["log_rate"]), 0.9), steps)
    init = lambda hyper, key: jax.tree.map(lambda p: p * hyper["scale"], problems.init(key))
    return hg.Objective(training, init=init, score=lambda p, h, key: problems.valid(p))


def test_tunes_a_training_run():
    hyper = {"log_rate": -2.0, "scale": 1.0, "log_l2": -6.0}
    result = quiet(objective(), hyper, optax.adam(0.3), steps=12)
    assert result.value < 0.9 * result.history[0].value
    assert result.value == pytest.approx(float(objective()(result.hyper)), rel=1e-5)
    assert result.diagnosis is not None
    assert result.diagnosis.ok
    assert result.diagnosis.foresight.values[0] == pytest.approx(result.value, rel=1e-5)
    line = result.message.splitlines()[-1]
    assert line.startswith("At the answer: Smooth")
    assert all(name in line for name in ("growth", "metasmoothness", "foretold"))


def test_the_report_says_whether_a_step_does_what_it_should():
    """Of a plain function the third witness alone can tell; the key is one that was not used."""
    result = quiet(bowl, {"a": jnp.zeros(3), "b": 1.0, "n": 3}, optax.sgd(0.1), steps=3)
    assert "The hypergradient is meaningful here" in result.message.splitlines()[-1]
    wild = lambda h: 1 + h**2 + 1e-3 * jnp.sin(1e6 * h)
    result = quiet(wild, 1.0, optax.adam(0.1), steps=3, patience=None)
    assert "misleading" in result.message.splitlines()[-1]
    assert quiet(noisy, {"a": jnp.zeros(3)}, optax.sgd(0.1), steps=3, key=1).diagnosis is not None


def failing(monkeypatch, error):
    """A tuning whose diagnosis fails."""

    def fail(*args, **options):
        raise error

    monkeypatch.setattr("hindgrad.tuning.tune.examine", fail)
    return quiet(bowl, {"a": jnp.zeros(3), "b": 1.0}, optax.sgd(0.1), steps=3)


@pytest.mark.parametrize("kind", [RuntimeError, FloatingPointError])
def test_a_run_that_fails_in_the_diagnosis_costs_no_tuning(monkeypatch, kind):
    result = failing(monkeypatch, kind("no memory left\nand more"))
    assert result.diagnosis is None
    assert result.message == "Took the best iterate of 3 steps.\nNo diagnosis: no memory left"


def test_a_mistake_in_the_diagnosis_surfaces_with_the_answer(monkeypatch):
    with pytest.raises(KeyError, match="a mistake") as found:
        failing(monkeypatch, KeyError("a mistake"))
    assert "diagnose=False" in found.value.__notes__[0]
    assert "'b': Array(0.64" in found.value.__notes__[0]


def test_what_the_diagnosis_costs():
    """One hypergradient and two values beside the steps' own hypergradients; with a key, the values
    by which the answer is chosen."""
    taken = []

    @jax.custom_vjp
    def told(x):
        jax.debug.callback(lambda: taken.append("value"))
        return x

    def forward(x):
        jax.debug.callback(lambda: taken.append("hypergradient"))
        return x, None

    told.defvjp(forward, lambda _, g: (g,))
    quiet(lambda h: told(h) ** 2, 1.0, optax.sgd(0.1), steps=3)
    jax.effects_barrier()
    assert sorted(taken) == ["hypergradient"] * 4 + ["value"] * 2


def test_a_second_tuning_compiles_nothing():
    traces = []

    def value(hyper):
        traces.append(1)
        return hyper**2

    for start in (1.0, 2.0):
        quiet(value, start, optax.sgd(0.1), steps=2)
        traces.append(0)
    assert traces == [1, 1, 0, 0]


PROGRAM = """
import os, jax, jax.numpy as jnp, optax, time
import hindgrad as hg
import hindgrad.checkpoint
hindgrad.checkpoint.SECONDS_BETWEEN_SAVES = 0.0

def noisy(hyper, key):
    jax.debug.callback(lambda: time.sleep(float(os.environ["PAUSE"])))
    target = jnp.arange(3.0) + jax.random.normal(key, (3,))
    return jnp.sum((hyper["a"] - target) ** 2) + hyper["b"] ** 2

result = hg.tune(noisy, {{"a": jnp.zeros(3), "b": 1.0}}, optax.adam(0.1), steps=30, key=5,
                 checkpoint={directory!r}, patience=None)
print([x.hex() for x in result.hyper["a"].tolist()], result.value.hex(), len(result.history))
print([(r.value.hex(), r.norm.hex(), r.status) for r in result.history])
"""


def run(directory, pause=0.0, wait=True):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(directory=str(directory))],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PAUSE": str(pause)},
    )
    return process.communicate()[0].splitlines()[-2:] if wait else process


def test_killed_tuning_ends_with_the_same_result(tmp_path):
    """SIGKILL in mid-run, twice; then the same call ends as if nothing had happened."""
    whole = run(tmp_path / "whole")
    interrupted = tmp_path / "interrupted"
    for saved in (3, 9):
        process = run(interrupted, pause=0.05, wait=False)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            states = interrupted / "states"
            steps = [int(p) for p in os.listdir(states) if p.isdigit()] if states.exists() else []
            if steps and max(steps) >= saved:
                break
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it was killed"
        process.send_signal(signal.SIGKILL)
        process.communicate()
    for _ in range(2):  # the second time it has nothing left to do
        assert run(interrupted) == whole


def test_a_checkpoint_by_another_adjoint_is_refused(tmp_path):
    """What an adjoint hands on fits no other one."""
    run = hg.Training(
        lambda w, h, _: h * w**2, optimizer=hg.Momentum(0.1, 0.0), batches=lambda t: None, steps=2
    )
    objective = hg.Objective(run, init=jnp.array(1.0), score=lambda w, *_: w**2)
    tune = lambda adjoint: quiet(
        objective, 1.0, optax.sgd(0.1), steps=1, adjoint=adjoint, checkpoint=tmp_path
    )
    tune(hg.Evolution(1, spread=0.1))
    tune(hg.Evolution(1, spread=0.1))
    with pytest.raises(ValueError, match="another `adjoint`"):
        tune(hg.Evolution(1, spread=0.2))


def test_shows_progress(capsys):
    hg.tune(bowl, {"a": jnp.zeros(3), "b": 1.0}, optax.sgd(0.1), steps=3)
    shown = capsys.readouterr()
    assert "3/3" in shown.err
    assert not shown.out


def test_equinox_module_as_hyper(key):
    """A network among the hyperparameters: its arrays are tuned, its functions stay."""
    network = eqx.nn.MLP(2, 1, 4, 1, key=key)
    bowl = lambda h: jnp.sum((h(jnp.ones(2)) - 3.0) ** 2)
    result = quiet(bowl, network, optax.adam(0.1), steps=30, patience=None)
    assert isinstance(result.hyper, eqx.nn.MLP)
    assert result.value < 0.1 * result.history[0].value


def test_a_run_that_leaves_the_exact_range_is_turned_back_from():
    """Reversible's error becomes a NaN, a reason, and a smaller step."""
    training = hg.Training(
        lambda params, hyper, batch: jnp.sum((params - 1) ** 2),
        optimizer=hg.Momentum(lambda hyper, t: jnp.exp(hyper["log_rate"])),
        batches=lambda t: None,
        steps=30,
    )
    objective = hg.Objective(
        training, init=jnp.zeros(2), score=lambda params, hyper, key: jnp.sum((params - 1) ** 2)
    )
    hyper = {"log_rate": jnp.asarray(-6.0)}
    result = hg.tune(
        objective, hyper, optax.sign_sgd(14.0), steps=8, adjoint=hg.Reversible(), progress=False
    )
    statuses = [record.status for record in result.history]
    assert statuses[:2] == ["accepted", "not finite"]
    assert "left the range" in result.history[1].reason
    assert "left the range" in result.message
    assert result.value < result.history[0].value

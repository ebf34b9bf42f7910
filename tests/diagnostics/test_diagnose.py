"""`diagnose` trusts what may be trusted, and finds the edge that a fine scan finds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
import problems
from hindgrad.diagnostics.edge import find_edge
from hindgrad.diagnostics.foresight import Foresight
from hindgrad.diagnostics.growth import Growth, NoTangents, course
from hindgrad.diagnostics.metasmoothness import metasmoothness


def digits(*, hidden, activation, decay, steps, optimizer=None):
    """The loss of a small network on 200 digits, over its log rate."""
    x, y = problems.data(slice(0, 200))
    first, second = jax.random.split(jax.random.key(0))
    params = {
        "hidden": jax.random.normal(first, (64, hidden)) / 8,
        "out": jax.random.normal(second, (hidden, 10)) / np.sqrt(hidden),
    }

    def loss(params, hyper, batch):
        logits = activation(x @ params["hidden"]) @ params["out"]
        return jnp.mean(jax.nn.logsumexp(logits, -1) - logits[jnp.arange(200), y])

    momentum = hg.Momentum(lambda hyper, t: jnp.exp(hyper["log_rate"]), decay)
    training = hg.Training(
        loss, optimizer=optimizer or momentum, batches=lambda t: None, steps=steps
    )
    return hg.Objective(training, init=params, score=loss)


TANH = digits(hidden=16, activation=jnp.tanh, decay=0.9, steps=40)
RELU = digits(hidden=24, activation=jax.nn.relu, decay=0.5, steps=40)


def brute_force(objective, low, high, values=200):
    """The log rate that steps of 0.05 begin to reach where the exact derivative is, in a stretch of
    a tenth, usually off by more than half of the slope from what such a step does."""
    grid = np.linspace(low, high, values)
    value = lambda log_rate: objective({"log_rate": log_rate}, adjoint=hg.Stored())
    scan = jax.jit(lambda rates: jax.lax.map(jax.value_and_grad(value), rates))
    f, g = map(np.asarray, scan(jnp.asarray(grid, jnp.float32)))
    half = round(0.025 / (grid[1] - grid[0]))
    begin, middle, end = f[: -2 * half], f[half:-half], f[2 * half :]
    width = grid[2 * half] - grid[0]
    slopes = np.abs([g[: len(begin)] * width, 2 * (middle - begin), 2 * (end - middle)])
    apart = np.abs(slopes[0] * np.sign(g[: len(begin)]) - (-3 * begin + 4 * middle - end))
    wrong = ~(apart <= 0.5 * slopes.max(axis=0))
    tenth = round(0.1 / (grid[1] - grid[0]))
    share = np.convolve(wrong, np.ones(tenth), "valid") / tenth
    return grid[int(np.argmax(share > 0.5))] + 0.05 + 0.05


@pytest.mark.parametrize(("objective", "low"), [(TANH, 0.5), (RELU, 0.0)], ids=["tanh", "relu"])
def test_finds_the_edge_that_a_fine_scan_finds(objective, low, capsys):
    expected = brute_force(objective, low, low + 3)
    found = hg.diagnose(objective, {"log_rate": low}, along={"log_rate": 1.0}, reach=3.0)
    assert found.ok
    assert found.edge is not None
    assert low + found.edge == pytest.approx(expected, abs=0.2)
    printed = capsys.readouterr().out
    assert f"beyond log_rate = {low + found.edge:.3g}" in printed
    assert printed.startswith("Smooth")
    beyond = hg.diagnose(objective, {"log_rate": low + found.edge + 0.5})
    assert not beyond.ok
    assert beyond.growth is not None
    assert beyond.growth.onset is not None
    assert f"Chaotic from step {beyond.growth.onset} on" in beyond.message
    assert "hg.Evolution" in beyond.message


def quadratic(curvature, steps=30):
    """Plain gradient descent on a quadratic; each coordinate is multiplied by 1 − rate · curvature
    at every step."""
    training = hg.Training(
        lambda params, hyper, batch: jnp.sum(curvature * params**2) / 2,
        optimizer=hg.Momentum(lambda hyper, t: hyper["rate"], 0.0),
        batches=lambda t: None,
        steps=steps,
    )
    score = lambda params, hyper, key: jnp.sum(params**2)
    return hg.Objective(training, init=jnp.ones(len(curvature)), score=score)


def test_growth_is_that_of_the_tangent_equation(x64):
    """Against the derivative of the run with respect to a factor common to all steps, which here
    is the rate's own, and against the path's length."""
    objective, rate = quadratic(jnp.array([1.0, 8.0])), 0.26
    found = course(objective, {"rate": jnp.asarray(rate)}, jax.random.key(0))
    theta = lambda rate, t: (1 - rate * np.array([1.0, 8.0])) ** t
    slope = lambda t: -t * rate * np.array([1.0, 8.0]) * theta(rate, t - 1)
    lengths = [np.linalg.norm(theta(rate, t + 1) - theta(rate, t)) for t in range(30)]
    for t in (1, 2, 10, 30):
        expected = np.log(np.linalg.norm(slope(t)) / sum(lengths[:t]))
        assert found.growth[t - 1] == pytest.approx(expected, abs=1e-9)
    assert found.value == pytest.approx(np.sum(theta(rate, 30) ** 2))


def test_growth_of_parameters_of_another_precision(x64):
    """NumPy's at that."""
    objective = quadratic(jnp.ones(2, jnp.float32), steps=3)
    objective = hg.Objective(
        objective.training, init=np.ones(2, np.float32), score=lambda p, h, key: jnp.sum(p)
    )
    found = course(objective, {"rate": jnp.asarray(0.5)}, jax.random.key(0))
    assert found.params.dtype == jnp.float32
    np.testing.assert_allclose(found.params, np.full(2, 0.125))
    slopes = [t * 0.5**t for t in (1, 2, 3)]
    np.testing.assert_allclose(
        found.growth, np.log(slopes) - np.log([0.5, 0.75, 0.875]), rtol=1e-5, atol=1e-6
    )


def test_growth_does_not_overflow():
    """A chaotic map that stays where it is, while changes grow beyond any float."""
    training = hg.Training(
        lambda params, hyper, batch: -jnp.sum(jnp.cos(50 * params)),
        optimizer=hg.Momentum(lambda hyper, t: hyper["rate"], 0.0),
        batches=lambda t: None,
        steps=60,
    )
    objective = hg.Objective(training, init=jnp.arange(3.0), score=lambda p, h, key: jnp.sum(p))
    found = course(objective, {"rate": jnp.float32(1.0)}, jax.random.key(0))
    growth = Growth(np.asarray(found.growth))
    assert growth.total > np.log(np.finfo(np.float32).max)
    assert growth.onset == 1
    assert growth.exponent > 3


def test_onset_and_exponent():
    calm = Growth(np.array([0.0, -0.2, 0.3, -0.5]))
    assert (calm.onset, calm.exponent) == (None, -0.125)
    wild = Growth(np.array([0.0, 0.4, -0.1, 0.9, 1.9]))
    assert wild.onset == 3
    assert wild.exponent == pytest.approx(1.0)


def test_a_growth_of_1_up_to_rounding_is_none():
    """A run whose changes neither grow nor shrink: adding the same at every step."""
    training = hg.Training(
        lambda w, h, batch: jnp.sum(w * jnp.linspace(0.1, 3, 50)),
        optimizer=hg.Momentum(lambda h, t: h["rate"], 0.0),
        batches=lambda t: None,
        steps=300,
    )
    objective = hg.Objective(training, init=jnp.ones(50), score=lambda w, h, key: jnp.mean(w))
    found = hg.diagnose(objective, {"rate": 0.0137})
    assert found.growth is not None
    assert abs(found.growth.total) < 1e-4
    assert found.growth.onset is None
    assert found.message.startswith("Smooth")
    rounded = np.full(10, 1e-7, np.float32)
    assert Growth(rounded).onset is None
    assert not Growth(rounded).magnifies
    assert Growth(rounded.astype(np.float64)).onset == 0
    assert Growth(np.array([0.0, np.nan])).magnifies


def test_steps_without_forward_derivatives_are_told():
    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))
    squared = optax.stateless(lambda updates, params: square(updates))
    training = hg.Training(
        lambda w, h, batch: w**2,
        optimizer=hg.from_optax(lambda h: optax.chain(squared, optax.sgd(h["rate"]))),
        batches=lambda t: None,
        steps=2,
    )
    objective = hg.Objective(training, init=jnp.ones(()), score=lambda w, h, key: w)
    with pytest.raises(NoTangents, match=r"Use jax\.custom_jvp there"):
        course(objective, {"rate": jnp.float32(0.1)}, jax.random.key(0))


def test_mistakes_of_the_user_surface():
    def wrong(h):
        raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        hg.diagnose(wrong, 1.0)


def test_complex_hyperparameters():
    found = hg.diagnose(lambda z: jnp.abs(z - 2j) ** 2, jnp.complex64(1))
    assert found.ok
    assert found.foresight.foretold < 0
    assert hg.check(lambda z: jnp.abs(z**3 - 2j) ** 2, jnp.complex64(1 + 1j)).ok


def test_metasmoothness_is_its_formula():
    a, b, c = (np.random.default_rng(i).normal(size=(3, 4)) for i in range(3))
    weights = np.abs(c - a) / np.abs(c - a).sum()
    expected = np.sum(weights * np.sign(b - a) * np.sign(c - b))
    as_tree = lambda x: {"u": jnp.asarray(x[:1], jnp.float32), "v": jnp.asarray(x[1:], jnp.float32)}
    assert float(metasmoothness(*map(as_tree, (a, b, c)))) == pytest.approx(expected, rel=1e-5)
    straight = [as_tree(a + i * b) for i in range(3)]
    assert float(metasmoothness(*straight)) == pytest.approx(1.0)
    assert float(metasmoothness(*[straight[0]] * 3)) == 1.0
    nan = jax.tree.map(lambda x: x * jnp.nan, straight[0])
    assert np.isnan(metasmoothness(straight[0], straight[1], nan))


def test_foresight_forgives_curvature():
    """A step over the bottom of a valley is foretold well, to second order."""
    parabola = lambda h: (h - 0.01) ** 2
    right = Foresight(-0.02 * 1.0, (parabola(0), parabola(0.5), parabola(1)))
    assert right.happened == pytest.approx(-0.02)
    assert right.error < 1e-9
    wrong = Foresight(0.5, (parabola(0), parabola(0.5), parabola(1)))
    assert wrong.error > 0.2
    assert Foresight(0.0, (1.0, 1.0, 1.0)).error == 0.0
    assert not Foresight(1.0, (0.0, np.nan, 1.0)).error <= 1e9


def test_find_edge():
    wall = lambda place: place > 1.23
    assert find_edge(wall, 4.0, 0.05) == pytest.approx(1.23, abs=0.02)
    assert find_edge(lambda place: place < -0.7, -1.0, 0.05) == pytest.approx(-0.7, abs=0.02)
    assert find_edge(lambda place: False, 4.0, 0.05) is None
    assert find_edge(lambda place: True, 4.0, 0.05) == 0.0
    lonely = lambda place: 0.9 < place < 1.1 or 2.5 < place < 3.3
    assert find_edge(lonely, 4.0, 0.05) == pytest.approx(2.5, abs=0.2)


def test_a_plain_function_has_one_witness(capsys):
    found = hg.diagnose(lambda h: (h["a"] - 1) ** 2, {"a": 3.0, "n": 2})
    assert found.ok
    assert (found.growth, found.metasmoothness, found.edge) == (None, None, None)
    assert "need an Objective" in capsys.readouterr().out
    found = hg.diagnose(lambda h, key: jnp.sin(1e4 * h + jax.random.normal(key)), 1.0, key=3)
    assert not found.ok
    assert "misleading" in found.message


def test_a_run_that_diverges_is_told():
    found = hg.diagnose(lambda h: jnp.log(h), -1.0)
    assert "diverges" in found.message
    assert not found.ok


def test_a_direction_of_whole_numbers_beside_what_is_not_tuned():
    line = lambda h: 3.0 * h["a"][0] * h["n"]
    found = hg.diagnose(line, {"a": jnp.ones(1), "n": 2}, along={"a": 1, "n": None}, reach=0.1)
    assert found.foresight.foretold == pytest.approx(0.05 * 6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reach": 1.0}, "along="),
        ({"along": {"b": 1.0}}, "structure"),
        ({"along": {"a": jnp.ones(2)}}, "shapes"),
        ({"along": {"a": 0.0}}, "not all of them 0"),
        ({"along": {"a": 1.0}, "reach": -1.0}, r"reach=-1.0\): a finite number above 0"),
        ({"step": 0.0}, r"step=0.0\): a finite number above 0"),
    ],
    ids=["no direction", "another structure", "another shape", "none", "backwards", "no step"],
)
def test_refused(options, words):
    with pytest.raises(ValueError, match=words):
        hg.diagnose(lambda h: h["a"] ** 2, {"a": 1.0}, **options)


def test_nothing_to_change_is_refused():
    with pytest.raises(ValueError, match="without a float"):
        hg.diagnose(lambda h: h["a"] ** 2, {"a": 1})

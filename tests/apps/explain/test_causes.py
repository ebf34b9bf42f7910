"""The training as a function of its causes, against the training itself and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_iris

from hindgrad.apps.explain.causes import Asked, Trained, losses_of, outputs_over_time
from hindgrad.apps.model import Form, Network, predict, problem_of
from hindgrad.apps.splits import Whole
from hindgrad.apps.table import Table

STEPS = 24


def made(kind="classification"):
    """A problem whose settings differ in every layer, and its training."""
    x, y = load_iris(return_X_y=True)
    names = ("a", "b", "c")
    y = y.astype(np.int32) if kind == "classification" else x[:, 0] + y
    classes = names if kind == "classification" else ()
    table = Table("iris", x, y, kind, classes, tuple("wxyz"), "label")
    outputs = len(classes) or 1
    network = Network((4, 5, outputs), kind, STEPS, 40, Form("linear", 3))
    rows = np.random.default_rng(0).permutation(150)
    problem, _ = problem_of(table, network, rows[:120], rows[120:], Whole.of(120))
    settings = {
        "rate": jnp.log(jnp.array([[0.2, 0.1], [0.3, 0.2], [0.1, 0.05]])),
        "decay": jnp.array([[2.0, 1.0], [1.0, 2.0], [2.5, 0.5]]),
        "weight_decay": jnp.array([-3.0, -4.0]),
        "scale": jnp.array([0.2, -0.1]),
    }
    asked = Asked(problem.test.x[:3], problem.test.y[:3])
    return problem, settings, Trained(problem, settings, asked)


def given(trained, causes, key):
    """What is asked, after a training with other causes."""
    params = trained.objective.run(causes, key).params
    return trained.queries(params, causes, key)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_as_they_were_the_causes_change_nothing(kind, key):
    problem, settings, trained = made(kind)
    expected = problem.objective.run(settings, key).params
    found = trained.objective.run(trained.causes(), key).params
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_each_cause_changes_what_it_says(kind, key):
    """Against trainings whose settings are changed by hand."""
    problem, settings, trained = made(kind)

    def queried(hyper, problem=problem):
        params = problem.objective.run(hyper, key).params
        outputs = predict(params, trained.asked.x)
        return losses_of(outputs, trained.asked.y) if kind == "classification" else outputs[:, 0]

    causes = trained.causes()
    factor = jnp.array([1.3, 0.8])
    decays = jax.nn.sigmoid(settings["decay"])
    changed = {
        "rate": settings | {"rate": settings["rate"] + jnp.log(factor)[None]},
        "weight_decay": settings | {"weight_decay": settings["weight_decay"] + jnp.log(factor)},
        "scale": settings | {"scale": settings["scale"] + jnp.log(factor)},
    }
    by = {
        "rate": causes["rate"] * factor[None],
        "weight_decay": causes["weight_decay"] * factor,
        "scale": causes["scale"] + jnp.log(factor),
    }
    for name, hyper in changed.items():
        found = given(trained, causes | {name: by[name]}, key)
        np.testing.assert_allclose(found, queried(hyper), rtol=2e-3, atol=1e-5)
        assert np.abs(found - queried(settings)).max() > 1e-3
    # the memory 1/(1 − decay), in a schedule that does not change, since logits are interpolated
    same = settings | {"decay": jnp.broadcast_to(settings["decay"][:1], (3, 2))}
    longer = 1 - (1 - decays[:1]) / factor[None]
    by_hand = settings | {"decay": jnp.broadcast_to(jnp.log(longer / (1 - longer)), (3, 2))}
    found = given(Trained(problem, same, trained.asked), causes | {"memory": factor}, key)
    np.testing.assert_allclose(found, queried(by_hand), rtol=2e-3, atol=1e-5)


def test_the_derivative_by_a_weight_is_right(key, x64):
    """Against finite differences, in float64."""
    _, _, trained = made()
    trained = jax.tree.map(_wide, trained)
    causes = trained.causes()
    mix = jnp.array([1.0, -2.0, 0.5])
    score = lambda weight: jnp.vdot(mix, given(trained, causes | {"weight": weight}, key))
    slopes = jax.grad(score)(causes["weight"])
    step = 1e-5
    for row in (7, 100):
        up, down = (score(causes["weight"].at[row].add(sign * step)) for sign in (1, -1))
        np.testing.assert_allclose(slopes[row], (up - down) / (2 * step), rtol=1e-5)


def _wide(x):
    return x.astype(jnp.float64) if x.dtype == jnp.float32 else x


def test_losses_have_all_digits_where_they_are_nearly_nothing(x64):
    outputs = jnp.array([[40.0, 0.0, 1.0], [0.0, 3.0, 0.0]])
    y = jnp.array([0, 1])
    exact = np.log1p([np.exp(-40) + np.exp(-39), 2 * np.exp(-3)])
    np.testing.assert_allclose(losses_of(outputs, y), exact, rtol=1e-12)
    narrow = losses_of(outputs.astype(jnp.float32), y)
    np.testing.assert_allclose(narrow, exact, rtol=1e-5)


@pytest.mark.parametrize("points", [5, 7, 60])
def test_outputs_over_time_end_with_those_of_the_training(points, key):
    """Also where the steps are no multiple of the pieces."""
    _, _, trained = made()
    times, outputs = outputs_over_time(trained, trained.asked.x, key, points=points)
    params = trained.objective.run(trained.causes(), key).params
    np.testing.assert_allclose(outputs[-1], predict(params, trained.asked.x), rtol=1e-3, atol=1e-4)
    assert times[0] == 0
    assert times[-1] == STEPS
    assert np.all(np.diff(times) > 0)
    half = trained.objective.run(trained.causes(), key, steps=int(times[2])).params
    np.testing.assert_allclose(outputs[2], predict(half, trained.asked.x), rtol=1e-3, atol=1e-4)

"""Forward against reverse: what is measured, and where the words say they cross."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
from experiments.franceschi2017 import modes as experiment
from experiments.franceschi2017 import modes_report as report
from hindgrad.progress import Bar as Line

SMALL = experiment.SMALL
STATE = 2 * 4
"""Bytes for each weight: itself and its velocity."""


def line(offset, slope, stored, *, size=1.0):
    """A network whose costs are known; memory is `size` times them."""
    counts = (1, 2, 4, 8, 16)
    ratio = {
        "Forward": {str(c): float(offset + slope * c) for c in counts},
        "Forward in blocks": {},
        "Stored": {str(c): float(stored) for c in counts},
    }
    sizes = {mode: {c: size * r for c, r in costs.items()} for mode, costs in ratio.items()}
    return {"weights": 100, "steps": 10, "ratio": ratio, "seconds": ratio, "bytes": sizes}


def test_everything_is_written_and_nothing_else(written):
    assert written == {"modes.png", "table.csv"}


def test_every_count_is_measured(results):
    (found,) = results["networks"]
    assert found["weights"] == 64 * 8 + 8 + 8 * 8 + 8 + 8 * 10 + 10
    for what in ("bytes", "seconds", "ratio"):
        assert list(found[what]["Forward"]) == list(found[what]["Stored"]) == ["1", "4"]
        assert list(found[what]["Forward in blocks"]) == ["4"]
        assert all(v > 0 for costs in found[what].values() for v in costs.values())


def test_forwards_memory_grows_with_the_hyperparameters(results):
    """By as many states as there are more of them."""
    (found,) = results["networks"]
    forward = found["bytes"]["Forward"]
    assert forward["4"] - forward["1"] > 2.5 * STATE * found["weights"]


@pytest.mark.slow
def test_memory_grows_with_the_steps_where_states_are_stored():
    found = experiment.over_lengths(dataclasses.replace(SMALL, lengths=(10, 100)), Line(2))
    state = STATE * found["weights"]
    lengths = {mode: list(sizes.values()) for mode, sizes in found["bytes"].items()}
    assert lengths["Forward"][1] < 1.1 * lengths["Forward"][0]
    assert lengths["Stored"][1] - lengths["Stored"][0] > 0.9 * 90 * state
    assert lengths["Reversible"][1] - lengths["Reversible"][0] < 0.2 * 90 * state


@pytest.mark.slow
def test_what_is_timed_is_the_hypergradient():
    run, _ = experiment.objective(SMALL, 8, 10)
    rates = jnp.linspace(0.05, 0.2, 4)
    expected = jax.value_and_grad(lambda r: run(r, adjoint=hg.Checkpointed()))(rates)
    assert (expected[1] != 0).all()
    for adjoint in experiment.Settings.by_count(SMALL, 4).values():
        found = experiment.compiled(run, 4, adjoint)(rates)
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(experiment.compiled(run, 4, None)(rates), expected[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("costs", "place"),
    [((1, 1, 4), 3), ((1, 1, 8.5), 7.5), ((1, 1, 41), 40), ((3, 1, 2), -1)],
    ids=["on a count", "between counts", "beyond", "before"],
)
def test_where_they_cross(costs, place):
    assert report.crossing(line(*costs), "ratio") == pytest.approx(place)
    assert report.crossing(line(*costs, size=100), "bytes") == pytest.approx(place)


def test_the_words_say_where_they_cross(results):
    for costs, words in (
        ((1, 1, 4), "they cross at 3.0 hyperparameters"),
        ((1, 1, 41), "they would cross at 40, more than were timed"),
        ((3, 1, 2), "forward is slower already with one"),
    ):
        results["networks"] = [line(*costs)]
        assert words in " ".join(experiment.report.summary(results))


def test_what_was_not_timed_is_said_to_be_expected(results):
    found = line(1, 2, 5)
    for what in ("ratio", "seconds"):
        found[what]["Forward"] = {c: r for c, r in found["bytes"]["Forward"].items() if int(c) <= 4}
    results["networks"] = [found]
    assert "Timed up to 4; for 16 the line says 33." in " ".join(experiment.report.summary(results))


def test_a_call_that_will_take_too_long_is_not_made():
    counts = SMALL.counts
    assert experiment.will_take(SMALL, counts[0], 2.0) == 8.0
    assert experiment.will_take(SMALL, counts[-1], 2.0) == 0.0


def test_the_full_settings_time_all_counts():
    assert set(experiment.DEFAULT.counts) <= set(experiment.FULL.counts)
    assert max(experiment.DEFAULT.counts) == 1000
    assert experiment.total(SMALL) == 2 + 1

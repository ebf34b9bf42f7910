"""Wrong labels: what ranks the rows, and how it is judged."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.attribution import attribution_flipped as experiment
from experiments.attribution import attribution_flipped_report as report
from experiments.attribution import rows as parts

SMALL = experiment.SMALL


@pytest.fixture(scope="module", autouse=True)
def without_clean():
    """`clean` compiles for long, and runs in the tests of `attribution-harmful`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "by_clean", lambda rows, _: -rows.wrong.astype(float))
        yield


def test_everything_is_written_and_nothing_else(written):
    assert written == {"attribution-flipped.png", "table.csv"}


def test_every_way_is_judged(results):
    found = [(one["model"], one["way"]) for one in results["found"]]
    linear = [(report.LINEAR, way) for way in report.WAYS if way != report.CLEAN]
    assert found == linear + [(report.NETWORK, way) for way in report.WAYS]
    for one in results["found"]:
        assert 0 <= one["missed"] <= 1
        assert one["auc"] > 0.5, one  # chance


def test_judged():
    wrong = np.array([True, False, True, False, False])
    assert experiment.judged(np.array([0.0, 2, 1, 3, 4]), wrong) == {"auc": 1, "missed": 0}
    assert experiment.judged(np.array([0.0, 1, 2, 3, 4]), wrong) == {
        "auc": pytest.approx(5 / 6),
        "missed": 0.5,
    }


def test_a_row_without_itself():
    """With a group for each row, it is what training without the row gives, to first order."""
    few = replace(SMALL, rows=12, size=12, hidden=0, steps=20)
    rows = parts.draw(few, 0.1, 0)
    objective, key = parts.objective_of(few, rows), jax.random.key(1)
    own, changes = experiment.by_itself(objective, rows, [key], parts.margins, 12)
    ones = jnp.ones(12)
    margins = lambda weights: parts.margins(objective.run(weights, key).params, rows.train)
    np.testing.assert_allclose(own, margins(ones), rtol=1e-5)
    step = 0.02
    for row in (0, 5):
        less, more = (margins(ones.at[row].add(d))[row] for d in (-step, step))
        np.testing.assert_allclose(changes[row], (less - more) / (2 * step), rtol=0.02)

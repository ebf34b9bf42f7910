"""Harmful rows: the ways to find them, and what is judged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.attribution import attribution_harmful as experiment
from experiments.attribution import attribution_harmful_report as report
from experiments.attribution import rows as parts
from experiments.models import Examples

SMALL = experiment.SMALL


@pytest.fixture(scope="module")
def rows():
    return experiment.draw(SMALL, 0.2, 0)


def test_everything_is_written_and_nothing_else(written):
    assert written == {"attribution-harmful.png", "table.csv"}


def test_every_way_is_judged(results):
    assert [one["way"] for one in results["found"]] == list(report.WAYS)
    for one in results["found"]:
        assert np.isfinite(one["loss"])
        assert 0 <= one["error"] <= 1
        assert one["flipped"] <= one["removed"] == 6
    assert results["found"][0]["flipped"] == 0


def test_rows_of_the_three_parts_differ(rows):
    parts = [{row.tobytes() for row in np.asarray(part.x)} for part in (rows.train, rows.valid)]
    assert not parts[0] & parts[1]
    assert rows.wrong.sum() == 12
    right = experiment.draw(SMALL, 0.0, 0)
    np.testing.assert_array_equal(rows.wrong, np.asarray(rows.train.y != right.train.y))


def test_a_row_left_out_has_no_weight(rows):
    """Its label is never read."""
    objective = experiment.objective_of(SMALL, rows)
    worth = np.arange(60.0)
    given = rows.train.y.at[:6].set((rows.train.y[:6] + 1) % 10)
    other = Examples(rows.train.x, given)
    turned = parts.Draw(other, rows.valid, rows.test, rows.wrong, rows.pixels, rows.classes)
    found = experiment.without(objective, rows, worth, 6, 0, 1)
    again = experiment.without(experiment.objective_of(SMALL, turned), turned, worth, 6, 0, 1)
    np.testing.assert_allclose(found["loss"], again["loss"], rtol=1e-5)


def test_attribution_foretells_a_removal(rows):
    key = jax.random.key(3)
    objective, ones = experiment.objective_of(SMALL, rows), jnp.ones(60)
    foretold = experiment.by_attribution(objective, rows, [key])
    row = int(np.argmax(np.abs(foretold)))
    changed = objective(ones.at[row].set(0.9), key) - objective(ones, key)
    np.testing.assert_allclose(changed, 0.1 * foretold[row], rtol=0.1)


def test_margins_and_losses_agree_on_the_label(rows):
    params = objective_params(rows)
    own = np.asarray(parts.logits(params, rows.train.x))
    right = own.argmax(1) == np.asarray(rows.train.y)
    np.testing.assert_array_equal(np.asarray(parts.margins(params, rows.train)) > 0, right)
    probability = np.exp(-np.asarray(parts.losses(params, rows.train)))
    softmax = np.asarray(jax.nn.softmax(own))[np.arange(60), np.asarray(rows.train.y)]
    np.testing.assert_allclose(probability, softmax, rtol=1e-5)


def objective_params(rows):
    objective = experiment.objective_of(SMALL, rows)
    return objective.run(jnp.ones(60), jax.random.key(0)).params

"""Who judges labels, and how many are found wrong."""

import jax
import numpy as np
import pytest

from hindgrad.apps.clean import judges
from hindgrad.apps.clean.suspicion import Learner, cleaning
from hindgrad.apps.clean.weighing import Rows, trust

KEY = jax.random.key(0)


def blobs(wrong, rows=240, trusted=0, seed=0):
    """Three groups of points in the plane that overlap a little, the first labels wrong, the last
    rows trusted."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, rows).astype(np.int32)
    x = rng.normal(size=(rows, 2)) * 0.7 + np.array([[0, 2], [2, -1], [-2, -1]])[y]
    y[:wrong] = (y[:wrong] + rng.integers(1, 3, wrong)) % 3
    known = np.arange(rows) >= rows - trusted
    return cleaning(x.astype(np.float32), y, known, Learner((2, 8, 3), 60))


def test_the_share_of_a_mixture():
    """Wrong labels get little confidence, right ones much, and some in between either."""
    rng = np.random.default_rng(0)
    wrong = lambda count: rng.beta(1, 6, count)
    for share in (0.05, 0.1, 0.4):
        count = round(share * 20_000)
        own = np.concatenate([wrong(count), rng.beta(6, 1, 20_000 - count)])
        found = judges.share_of_wrong(own, wrong(4000), classes=10**6)
        assert found == pytest.approx(share, rel=0.1)


def test_planted_labels_that_were_wrong_before_may_be_right():
    """Of two classes, changing a wrong label makes it right."""
    rng = np.random.default_rng(1)
    wrong, right = rng.beta(1, 9, 6000), rng.beta(9, 1, 14_000)
    planted = np.concatenate([rng.beta(1, 9, 1400), rng.beta(9, 1, 600)])
    own = np.concatenate([wrong, right])
    assert judges.share_of_wrong(own, planted, classes=2) == pytest.approx(0.3, rel=0.1)


def test_as_many_are_planted_as_asked_for_and_none_is_trusted():
    problem = blobs(0, trusted=100)
    other, mask = judges.planted(problem, 30, KEY)
    changed = np.asarray(other.y) != np.asarray(problem.y)
    np.testing.assert_array_equal(changed, mask)
    assert mask.sum() == 30
    assert not np.any(mask & np.asarray(problem.trusted))


def test_a_forest_has_not_seen_the_rows_that_it_is_asked_for():
    """It cannot know labels that are drawn at random."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 2)), rng.integers(0, 2, 300)
    problem = cleaning(x, y.astype(np.int32), np.zeros(300, bool), Learner((2, 2), 10))
    said = judges.forest(problem, KEY)
    np.testing.assert_allclose(said.sum(axis=1), 1)
    assert 0.4 < judges.own_label(said, y).mean() < 0.6


@pytest.mark.parametrize("wrong", [0, 24, 72])
def test_wrong_labels_are_counted(wrong):
    problem = blobs(wrong)
    found = judges.evidence(problem, judges.outside(problem, KEY), jax.random.key(1))
    assert abs(found.wrong - wrong) <= 4 + 0.2 * wrong
    best = max(found.precision.values())
    assert found.precision[found.judge] >= best - judges.BETTER


def test_nothing_is_asked_where_all_are_trusted():
    problem = blobs(0, trusted=240)
    assert judges.evidence(problem, judges.outside(problem, KEY), KEY).wrong == 0


@pytest.mark.parametrize("judge", judges.SHARES)
def test_as_many_weights_are_below_a_half_as_seem_wrong(judge):
    rng = np.random.default_rng(0)
    parts = {name: rng.random(50) for name in ("learned", "networks", "forest")}
    known = np.arange(50) >= 45
    rows = Rows(np.zeros((50, 1)), np.zeros(50, np.int32), known)
    share = judges.SHARES[judge]
    of_networks = (parts["learned"] + parts["networks"]) / 2
    mean = (1 - share) * of_networks + share * parts["forest"]
    for wrong in (0, 7, 45):
        weights = trust(rows, {**parts, "judge": judge, "wrong": wrong})
        assert np.sum(weights < 0.5) == wrong
        assert np.all((weights >= 0) & (weights <= 1))
        assert np.all(weights[known] == 1)
        order = np.argsort(mean[:45])
        assert np.all(np.diff(weights[:45][order]) >= 0)

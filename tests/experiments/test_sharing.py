"""Learned sharing: which drawings go where, what the matrices do, and what is written."""

import dataclasses

import jax
import numpy as np
import pytest

import hindgrad as hg
from experiments.maclaurin2015 import sharing as experiment
from experiments.maclaurin2015 import sharing_report as report
from hindgrad.apps import datasets
from hindgrad.objective import init_key

SMALL = experiment.SMALL
TASKS = SMALL.tasks
DRAWINGS = 15


def alphabets(name):
    """The digits as two alphabets of five characters, each drawn by fifteen people."""
    assert name == SMALL.data
    digits = load("digits")
    rows = np.concatenate([np.flatnonzero(digits.y == c)[:DRAWINGS] for c in range(10)])
    return dataclasses.replace(
        digits,
        x=digits.x[rows],
        y=digits.y[rows],
        classes=tuple(f"{'low' if c < 5 else 'high'} {c:02}" for c in range(10)),
        train=np.ones(len(rows), bool),
        groups={"drawer": np.tile(np.arange(DRAWINGS), 10)},
    )


load = datasets.load


@pytest.fixture(scope="module", autouse=True)
def data():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load", alphabets)
        yield


@pytest.fixture(scope="module")
def drawn(data):
    return experiment.draw(SMALL, 0)


def test_everything_is_written_and_nothing_else(written):
    assert written == {"matrices.png", "sharing.png", "table.csv"}


def test_the_tuning_changed_the_matrices_and_the_outcome(results):
    begin = experiment.matrices(TASKS, [SMALL.correlation] * SMALL.layers)
    for run in results["runs"]:
        assert len(run["learned"]["valid"]) == SMALL.steps_outer
        assert run["learned"]["valid"][-1] < run["learned"]["valid"][0]
        moved = np.array(run["learned"]["transforms"]) - np.array(begin)
        assert (np.abs(moved).max(axis=(1, 2)) > 1e-3).all()
        ways = run["ways"]
        assert len({way["test"] for way in ways.values()}) == len(ways)
    assert results["runs"][0]["ways"] != results["runs"][1]["ways"]
    assert results["weights"] == 65 * 8 + 9 * 6


def test_every_drawing_is_in_one_place(drawn):
    """Twelve of each character's drawings are divided, and the last three are by new people."""
    for train, test, new in zip(drawn.train, drawn.test, drawn.new, strict=True):
        assert [len(part.x[0]) for part in (train, test, new)] == [8, 4, 3]
        together = np.concatenate([train.x, test.x, new.x], axis=1)
        distinct = [len(np.unique(character, axis=0)) for character in together]
        assert distinct == [DRAWINGS] * 5
    other = experiment.draw(SMALL, 1)
    np.testing.assert_array_equal(drawn.new[0].x, other.new[0].x)
    assert (np.asarray(drawn.test[0].x) != np.asarray(other.test[0].x)).any()


def test_the_second_half_is_the_first_turned(drawn):
    """Up to the mean image, which is taken from all tasks alike."""
    upright, turned = (drawn.new[i].x.reshape(5, 3, 8, 8) for i in (0, len(SMALL.alphabets)))
    differ = lambda x: x[:, 1:] - x[:, :1]
    np.testing.assert_allclose(
        differ(np.rot90(upright, axes=(2, 3))), differ(np.asarray(turned)), atol=1e-6
    )


def test_holding_back_divides_each_character(drawn):
    task = drawn.train[1]
    kept, held = task.divide(jax.random.key(3), SMALL.valid)
    assert (kept.x.shape[1], held.x.shape[1]) == (6, 2)
    together = np.concatenate([kept.x, held.x], axis=1)
    for before, after in zip(task.x, together, strict=True):
        np.testing.assert_array_equal(np.unique(before, axis=0), np.unique(after, axis=0))
    again = task.divide(jax.random.key(4), SMALL.valid)[1]
    assert (held.x != again.x).any()
    assert held.images().y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_what_the_matrices_share(drawn):
    z = experiment.initial(SMALL, 64, jax.random.key(0))
    apart, tied = (
        experiment.weights(experiment.matrices(TASKS, c), z) for c in ([0.0, 0.0], [1.0, 0.0])
    )
    np.testing.assert_allclose(apart[0]["w"], z[0]["w"], atol=1e-6)
    mean = np.asarray(z[0]["w"]).mean(axis=0)
    for task in range(TASKS):
        np.testing.assert_allclose(tied[0]["w"][task], mean, atol=1e-6)
        np.testing.assert_allclose(tied[1]["b"][task], z[1]["b"][task], atol=1e-6)


def test_separate_networks_learn_alone(drawn):
    """With the identity, other tasks' drawings make no difference."""
    begin, same = jax.random.key(0), experiment.matrices(TASKS, [0.0, 0.0])
    other = dataclasses.replace(drawn, train=(drawn.train[0], *drawn.test[1:]))
    found, expected = (experiment.trained(SMALL, d, same, begin) for d in (other, drawn))
    np.testing.assert_allclose(found[0]["w"][0], expected[0]["w"][0], atol=1e-5)
    assert not np.allclose(found[0]["w"][1], expected[0]["w"][1], atol=1e-3)


@pytest.mark.slow
def test_the_objective_is_that_of_plain_differentiation(drawn):
    """Through `Reversible`, as through every state stored."""

    def stored(transforms):
        keys = jax.random.split(jax.random.key(2), len(drawn.train))
        pairs = [t.divide(k, SMALL.valid) for t, k in zip(drawn.train, keys, strict=True)]
        train, valid = zip(*pairs, strict=True)
        z = experiment.initial(SMALL, 64, init_key(jax.random.key(2)))
        run = experiment.training(SMALL, train)(z, transforms, adjoint=hg.Stored())
        return experiment.losses(experiment.weights(transforms, run.params), valid).mean()

    begin = experiment.matrices(TASKS, [0.3, 0.6])
    objective = experiment.Sharing(drawn.train, SMALL)
    found = jax.value_and_grad(objective)(begin, jax.random.key(2))
    expected = jax.value_and_grad(stored)(begin)
    assert float(found[0]) == pytest.approx(float(expected[0]), rel=1e-5)
    for a, b in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_correlations_of_turned_pairs():
    """Tasks 0 and 2 are one alphabet, 1 and 3 the other."""
    turned = np.eye(4) + 0.5 * np.roll(np.eye(4), 2, axis=0)
    rotated, others = report.strengths([np.eye(4), turned, np.full((4, 4), 0.25)])
    np.testing.assert_allclose(rotated, [0, 0.8, 1], atol=1e-12)
    np.testing.assert_allclose(others, [0, 0, 1], atol=1e-12)
    found = report.correlations([turned])[0]
    np.testing.assert_allclose(found[:2, :2], [[1, 0.8], [0.8, 1]])
    np.testing.assert_allclose(found[:2, 2:], 0, atol=1e-12)


@pytest.mark.parametrize(("learned", "words"), [(1.0, "; the authors' order"), (3.0, "; not the")])
def test_the_words_say_which_order_came_out(results, learned, words):
    for run in results["runs"]:
        for way, loss in ((report.SEPARATE, 2.5), (report.TIED, 2.0), (report.LEARNED, learned)):
            run["ways"][way] |= {"test": loss, "new": loss}
    lines = experiment.report.summary(results)
    assert all(words in line for line in lines[:2])


def test_the_full_settings_are_the_authors():
    full = experiment.FULL
    assert (full.hidden, full.outputs, full.tasks, full.steps) == ((400, 200), 55, 10, 50)
    assert (full.rate_outer, full.steps_outer, full.correlation) == (0.2, 20, 0.5)
    assert experiment.total(SMALL) == 2 * (3 + 15 + 4)

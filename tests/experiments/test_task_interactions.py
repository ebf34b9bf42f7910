"""Task interactions: the model, the splits, a small run and what it reports."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.franceschi2017 import task_interactions as experiment
from experiments.franceschi2017 import task_interactions_report as report
from experiments.franceschi2017.features import Whitening, learn_filters
from experiments.franceschi2017.task_interactions import (
    Learned,
    Loss,
    Shared,
    Single,
    accuracy,
    objective,
    split,
)
from experiments.franceschi2017.tasks import Tasks
from experiments.models import Examples
from hindgrad.progress import Bar as Line

KEY = jax.random.key(0)


def random_tasks(classes=4, rows=12, features=30):
    rng = np.random.default_rng(3)
    y = np.repeat(np.arange(classes, dtype=np.int32), rows)
    means = rng.normal(size=(classes, features))
    x = (means[y] + rng.normal(size=(len(y), features))).astype(np.float32) / 8
    names = [f"task {k}" for k in range(classes)]
    return Tasks(x, y, tuple(names), ("kind",) * classes)


@pytest.fixture(scope="module")
def pieces():
    return {}


@pytest.fixture(scope="module")
def results(pieces):
    """A small run, whose pieces are kept as a command keeps them."""

    def kept(name, compute):
        pieces[name] = json.dumps(compute(), allow_nan=False)
        return json.loads(pieces[name])

    with Line(experiment.total(experiment.SMALL)) as line:
        found = experiment.run(experiment.SMALL, kept, line)
    return {"call": dataclasses.asdict(experiment.SMALL), **found}


def test_the_loss_is_the_papers():
    rng = np.random.default_rng(0)
    w, c = rng.normal(size=(5, 3)), np.abs(rng.normal(size=(3, 3)))
    c = (c + c.T) * (1 - np.eye(3))
    x, y = rng.normal(size=(7, 5)), np.array([0, 1, 2, 0, 1, 2, 0])
    scores = x @ w
    expected = np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(7), y])
    expected += 0.3 * np.sum(w**2)
    for j in range(3):
        for k in range(3):
            expected += c[j, k] * np.sum((w[:, j] - w[:, k]) ** 2)
    batch = Examples(jnp.asarray(x, jnp.float32), jnp.asarray(y))
    hyper = {"rho": 0.3, "C": jnp.asarray(c, jnp.float32)}
    loss = Loss(Learned())(jnp.asarray(w, jnp.float32), hyper, FakeBatch(batch))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@dataclasses.dataclass
class FakeBatch:
    data: Examples


def test_one_shared_strength_is_a_larger_rho():
    first, _ = split(random_tasks(), 3, seed=1)
    shared = objective(Shared(), first, 4, rate=1.0, steps=20)
    single = objective(Single(), first, 4, rate=1.0, steps=20)
    larger = 0.01 + 2 * 0.02 * 4
    value = shared({"rho": 0.01, "c": 0.02})
    assert float(value) == pytest.approx(float(single({"rho": larger})), rel=1e-5)
    assert abs(float(value) - float(single({"rho": 0.01}))) > 1e-3


def test_splits_share_no_row_and_are_balanced():
    tasks = random_tasks()
    first, both = split(tasks, 3, seed=1)
    other, _ = split(tasks, 3, seed=2)
    for examples, count in ((first.train, 3), (first.valid, 3), (first.test, 6), (both.train, 6)):
        assert np.bincount(examples.y).tolist() == [count] * 4
    drawn = np.concatenate([part.x for part in (first.train, first.valid, first.test)])
    assert len(np.unique(drawn, axis=0)) == len(tasks.y)
    assert not np.array_equal(first.train.x, other.train.x)


def test_the_span_of_the_training_rows_loses_nothing():
    tasks = random_tasks()
    first, _ = split(tasks, 3, seed=1)
    order = np.random.default_rng(1)
    rows = [order.permutation(np.flatnonzero(tasks.y == k)) for k in range(4)]
    train = np.concatenate([r[:3] for r in rows])
    test = np.concatenate([r[6:] for r in rows])
    full = dataclasses.replace(
        first,
        train=Examples(jnp.asarray(tasks.x[train]), jnp.asarray(tasks.y[train])),
        test=Examples(jnp.asarray(tasks.x[test]), jnp.asarray(tasks.y[test])),
    )
    scores = []
    for drawn in (first, full):
        w = objective(Single(), drawn, 4, rate=1.0, steps=20).run({"rho": 0.01}, KEY).params
        scores.append(np.asarray(drawn.test.x @ w))
    assert scores[0].shape[1] == 4
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    assert accuracy(w, full.test) > 50


def test_features_do_not_depend_on_what_is_described_with_them():
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    filters = learn_filters(images, filters=7, size=3, patches=500, seed=0)
    together = filters.describe(images)
    assert together.shape == (60, 4 * 7)
    np.testing.assert_allclose(filters.describe(images[57:58]), together[57:58], rtol=1e-4)
    assert (together >= 0).all()
    again = learn_filters(images, filters=7, size=3, patches=500, seed=0)
    np.testing.assert_array_equal(again.centroids, filters.centroids)


def test_whitened_features_are_centred_and_of_length_one():
    rng = np.random.default_rng(0)
    responses = rng.gamma(2, size=(200, 6)) * np.array([[1, 5, 10, 1, 1, 0]])
    loose = Whitening.by(responses, kept=4, spread=10.0)(responses)
    white = Whitening.by(responses, kept=4, spread=0.0)(responses)
    for x in (loose, white):
        assert x.shape == (200, 4)
        np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-9)
        assert np.sum(x**2) / len(x) == pytest.approx(1)
    np.testing.assert_allclose(np.cov(white.T, bias=True), np.eye(4) / 4, atol=1e-9)


def test_learned_interactions_obey_their_constraints(results):
    radius = experiment.SMALL.radius[0]
    ways = results["found"]["digits"]["ways"]
    assert list(ways) == [report.SINGLE, report.SHARED, report.LEARNED, report.SPARSE]
    for name in (report.LEARNED, report.SPARSE):
        for found in ways[name]:
            c = np.array(found["C"])
            np.testing.assert_array_equal(c, c.T)
            assert c.max() > 0
            assert c.min() >= 0
            assert np.trace(c) == 0
    assert max(np.sum(found["C"]) for found in ways[report.SPARSE]) <= radius * (1 + 1e-5)
    assert np.sum(ways[report.LEARNED][0]["C"]) > 2 * radius
    assert np.sum(ways[report.SINGLE][0]["C"]) == 0


def test_all_ways_begin_at_the_same_value_and_improve_it(results):
    runs = results["found"]["digits"]["ways"]
    for split_runs in zip(*runs.values(), strict=True):
        starts = [found["values"][0] for found in split_runs]
        assert np.ptp(starts) < 1e-5
        assert all(found["valid_loss"] < found["values"][0] for found in split_runs)
        assert all(found["test"] > 50 for found in split_runs)


def test_a_resumed_run_computes_nothing_again(results, pieces):
    def kept(name, compute):
        return json.loads(pieces[name])

    with Line(experiment.total(experiment.SMALL)) as line:
        assert experiment.run(experiment.SMALL, kept, line)["found"] == results["found"]


def test_tables_words_and_pictures_are_written(results, tmp_path):
    experiment.report.write(results, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"table.csv", "table.md", "digits.png"}
    rows = (tmp_path / "table.csv").read_text().splitlines()
    assert len(rows) == 1 + 4 * 2
    assert experiment.report.table(results).row_count == 1 + 4
    first = experiment.report.summary(results)[0]
    assert "digits: 10 tasks, 30 training and 30 validation" in first


def with_accuracies(results, accuracies):
    """The results, with other test accuracies."""
    changed = json.loads(json.dumps(results))
    for runs, value in zip(changed["found"]["digits"]["ways"].values(), accuracies, strict=True):
        for i, found in enumerate(runs):
            found["test"] = value + 0.1 * i
    return changed


def test_the_summary_says_which_order_came_out(results):
    words = " ".join(experiment.report.summary(with_accuracies(results, (50, 50, 52, 53))))
    assert "The paper's order comes out: single task < learned interactions < learned and" in words
    assert "Within the noise" not in words
    assert "learned and sparse +3.00 points [+3.00, +3.00], higher on 2 of 2" in words
    words = " ".join(experiment.report.summary(with_accuracies(results, (50, 50, 49, 53))))
    assert "does not come out; here learned interactions < single task < learned and" in words
    assert "45 numbers fitted to 30 validation examples" in words
    words = " ".join(experiment.report.summary(with_accuracies(results, (50, 50, 53, 52))))
    assert "comes out but for the bound" in words


def test_the_summary_says_what_is_within_the_noise(results):
    changed = with_accuracies(results, (50, 50, 52, 53))
    changed["found"]["digits"]["ways"][report.SPARSE][1]["test"] = 60.0
    words = " ".join(experiment.report.summary(changed))
    assert "Within the noise of the splits: learned interactions < learned and sparse." in words

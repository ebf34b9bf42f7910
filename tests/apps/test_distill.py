"""The command from end to end, on small real data."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread
from sklearn.datasets import load_wine

import hindgrad as hg
from hindgrad.apps.cli import main
from hindgrad.apps.distill import command as module
from hindgrad.apps.distill import outputs as distill_outputs
from hindgrad.apps.distill.distillation import Distillation, Learner, Rows
from hindgrad.apps.model import fresh
from hindgrad.apps.table import Table

SMALL = ["--hidden", "0", "--steps", "4", "--steps-outer", "40"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Wine with names as labels, and a column that is always the same."""
    folder = tmp_path_factory.mktemp("data")
    wine = load_wine(as_frame=True)
    frame = wine.frame.assign(target=wine.target_names[wine.target], batch=7.0)
    frame.to_csv(folder / "wine.csv", index=False)
    return folder


def distilled(data, out, *arguments):
    assert main(["distill", str(data), "--out", str(out), *SMALL, *arguments]) == 0
    return json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A finished run, uninterrupted, with one learned example for each kind of wine."""
    out = tmp_path_factory.mktemp("finished") / "wine"
    distilled(data / "wine.csv", out, "--label", "target")
    return out


def test_everything_is_written_and_nothing_else(finished):
    names = {"report.html", "distilled.npz", "distilled.csv", "outcome.png", "results.json"}
    assert {path.name for path in finished.iterdir()} == names


def test_the_table_has_the_datas_columns_and_units(data, finished):
    given, learned = pd.read_csv(data / "wine.csv"), pd.read_csv(finished / "distilled.csv")
    features = [name for name in given.columns if name != "target"]
    assert list(learned.columns) == [*features, "target"]
    assert learned["target"].tolist() == ["class_0", "class_1", "class_2"]
    assert (learned["batch"] == 7).all()
    means, spread = given[features].mean(), given[features].std() + 1e-9
    assert (((learned[features] - means) / spread).abs() < 6).to_numpy().all()
    with np.load(finished / "distilled.npz") as file:
        np.testing.assert_allclose(file["x"], learned[features], rtol=1e-5)
        assert file["y"].tolist() == learned["target"].tolist()
        assert file["classes"].tolist() == ["class_0", "class_1", "class_2"]


def test_the_files_are_enough_to_train_on(data, finished, results):
    """A training written by hand, from the files alone, does on the test rows as reported."""
    with np.load(finished / "distilled.npz") as file:
        x, y = (file["x"] - file["mean"]) / file["scale"], results["examples"]["y"]
        mean, scale = file["mean"], file["scale"]
    training, right = results["training"], np.eye(3)[y]
    softmax = lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    given = pd.read_csv(data / "wine.csv")
    labels = np.unique(given["target"], return_inverse=True)[1]
    *_, rows = module.divide(labels, 0.2, 0.2, 0)
    real = (given.drop(columns="target").to_numpy() - mean) / scale
    accuracies = []
    for seed in range(5):
        w = np.random.default_rng(seed).normal(size=(x.shape[1], 3)) / np.sqrt(x.shape[1])
        b, vw, vb, keep = np.zeros(3), 0, 0, training["decay"]
        for (rate,) in training["rates"]:
            wrong = (softmax(x @ w + b) - right) / len(x)
            vw = keep * vw - (1 - keep) * x.T @ wrong
            vb = keep * vb - (1 - keep) * wrong.sum(axis=0)
            w, b = w + rate * vw, b + rate * vb
        accuracies.append(np.mean((real[rows] @ w + b).argmax(axis=1) == labels[rows]))
    reported = np.mean(results["arms"]["learned"]["accuracy"])
    assert np.mean(accuracies) == pytest.approx(reported, abs=0.06)
    assert reported > 0.85


def test_the_hypergradient_descends(results):
    losses = results["losses"]
    assert len(losses) == 40
    assert np.mean(losses[-5:]) < 0.6 * losses[0]
    assert len(results["valid"]) == module.ROUNDS


def test_what_is_printed(data, finished, results, tmp_path, capsys):
    out = tmp_path / "again"
    shutil.copytree(finished, out)
    distilled(data / "wine.csv", out, "--label", "target", "--resume")
    printed = capsys.readouterr().out
    accuracy = np.mean(results["arms"]["learned"]["accuracy"])
    for expected in (
        "is finished",
        "class means",
        f"1 learned example for each class gets {accuracy:.3f} of 36 test rows right, ",
        "of the accuracy that all 106 rows give",
        str(out / "distilled.csv"),
    ):
        assert expected in printed


def test_the_words_say_which_is_better(results):
    for value, words in ((1.0, "points more than"), (0.0, "learning them was not worth it")):
        results["arms"]["learned"]["accuracy"] = [value] * 5
        results["arms"]["centres"]["accuracy"] = [0.9] * 5
        assert words in distill_outputs.summary(results)[0]


def test_an_interrupted_run_resumes_with_the_same_result(data, finished, tmp_path, monkeypatch):
    out = tmp_path / "wine"
    call = ["distill", str(data / "wine.csv"), "--out", str(out), *SMALL, "--label", "target"]
    learn, seen = module.learn, []

    def interrupted(*arguments, **options):
        seen.append(options)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return learn(*arguments, **options)

    monkeypatch.setattr(module, "learn", interrupted)
    assert main(call) == 130
    assert [path.name for path in out.iterdir()] == [".work"]
    assert main([*call, "--resume"]) == 0
    assert len(seen) == 1 + module.ROUNDS
    assert (out / "distilled.csv").read_bytes() == (finished / "distilled.csv").read_bytes()


@pytest.mark.parametrize(
    ("shape", "sheet"), [((8, 8), True), ((4, 4, 4), True), ((16, 2, 2), False)]
)
def test_images_get_a_sheet_and_keep_their_shape_and_labels(results, tmp_path, shape, sheet):
    classes = ("3", "4", "5")
    x = np.random.default_rng(0).uniform(0, 9, (30, 64)).astype(np.float32)
    y = np.arange(30, dtype=np.int32) % 3
    names = tuple(f"x{i}" for i in range(64))
    table = Table("some", x, y, "classification", classes, names, "y", shape)
    given = {"x": x[:6] - 5, "y": [0, 0, 1, 1, 2, 2], "mean": x[0], "scale": x[1]}
    results["examples"] = {name: np.array(v).tolist() for name, v in given.items()}
    results["data"]["classes"] = list(classes)
    distill_outputs.write(tmp_path, results, table)
    names = {"report.html", "distilled.npz", "outcome.png"} | ({"sheet.png"} if sheet else set())
    assert {path.name for path in tmp_path.iterdir()} == names
    if sheet:
        assert min(imread(tmp_path / "sheet.png").shape[:2]) > 200
    with np.load(tmp_path / "distilled.npz") as file:
        flat = file["x"].reshape(6, 64)
        assert file["x"].shape == (6, *shape)
        assert file["y"].tolist() == [3, 3, 4, 4, 5, 5]
        np.testing.assert_allclose(flat, x[0] + x[1] * (x[:6] - 5), rtol=1e-4)


def test_more_examples_than_rows_are_refused(data, tmp_path, capsys):
    call = ["distill", str(data / "wine.csv"), "--label", "target", "--per-class", "60"]
    assert main([*call, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "--per-class 60 is more than the 28 rows of class 'class_2'" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("counts", [(3, 3, 3), (50, 10, 4)])
def test_every_part_has_every_class(counts):
    y = np.repeat(np.arange(len(counts)), counts)
    parts = module.divide(y, 0.2, 0.3, 1)
    assert sorted(np.concatenate(parts)) == list(range(len(y)))
    for part in parts:
        assert set(y[part]) == set(range(len(counts)))


def test_features_that_never_vary_are_not_learned():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(30, 4)), jnp.float32)
    varies = jnp.array([True, False, True, True])
    learner = Learner((4, 2), steps=3)
    problem = Distillation(Rows(x, jnp.arange(30) % 2), jnp.arange(2), varies, 0.0, learner)
    params, batch = fresh(learner.sizes, jax.random.key(0)), hg.full_batch(jnp.arange(2))(0)
    loss = lambda x: problem.loss(params, {"x": x}, batch)
    assert ((jax.grad(loss)(x[:2]) != 0).all(axis=0) == varies).all()
    assert loss(x[:2]) == loss(x[:2].at[:, 1].add(3))


def test_keys_draw_fresh_initialisations():
    learner = Learner((4, 8, 2), steps=3)
    first, again, other = (fresh(learner.sizes, jax.random.key(k)) for k in (0, 0, 1))
    assert (first[0]["w"] == again[0]["w"]).all()
    assert (first[0]["w"] != other[0]["w"]).all()

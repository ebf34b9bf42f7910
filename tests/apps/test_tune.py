"""The command from end to end, on small real problems."""

import csv
import json
import shutil
import subprocess
import sys
import time

import numpy as np
import optuna
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_wine
from sklearn.dummy import DummyClassifier

from hindgrad.apps.cli import main
from hindgrad.apps.model import Form, Network
from hindgrad.apps.saved import load
from hindgrad.apps.splits import set_aside
from hindgrad.apps.table import read
from hindgrad.apps.tune import rivals, seeds
from hindgrad.apps.tune.hyperfile import read_hyper
from hindgrad.apps.tune.outputs import FILES
from hindgrad.apps.tune.studies import Studies, distributions
from hindgrad.tuning.state import Record

SMALL = ["--hidden", "6", "--steps", "10", "--batch", "16", "--steps-outer", "2", "--seeds", "2"]
SMALL += ["--no-rivals"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Wine as CSV and NPZ, diabetes as Parquet."""
    folder = tmp_path_factory.mktemp("data")
    wine, diabetes = load_wine(as_frame=True), load_diabetes(as_frame=True)
    frame = wine.frame.assign(target=wine.target_names[wine.target])
    frame.to_csv(folder / "wine.csv", index=False)
    np.savez(folder / "wine.npz", x=wine.data.to_numpy(), y=wine.target.to_numpy())
    diabetes.frame.to_parquet(folder / "diabetes.parquet")
    return folder


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A finished run, uninterrupted."""
    out = tmp_path_factory.mktemp("finished") / "wine"
    assert main(["tune", str(data / "wine.csv"), "--out", str(out), *SMALL]) == 0
    return out


def results(out):
    return json.loads((out / "results.json").read_text())


def test_everything_is_written_and_nothing_else(finished):
    assert {path.name for path in finished.iterdir()} == set(FILES)
    arms = results(finished)["runs"][0]["arms"]
    assert list(arms) == ["defaults", *seeds.SEARCHES, "tuned"]


def test_all_arms_but_the_defaults_have_the_same_budget(finished):
    for run in results(finished)["runs"]:
        spent = {name: arm["evaluations"] for name, arm in run["arms"].items()}
        assert spent.pop("defaults") == 0
        (evaluations,) = set(spent.values())
        assert evaluations in {(4 * 2 + candidates * 5) * 10 for candidates in (2, 3)}


def test_what_is_printed(data, finished, tmp_path, capsys):
    out = tmp_path / "again"
    shutil.copytree(finished, out)
    call = ["tune", str(data / "wine.csv"), "--out", str(out), "--resume", *SMALL]
    assert main(call) == 0
    printed = capsys.readouterr().out
    for expected in ("is finished", "defaults", "random, ", "TPE, ", "tuned", "test loss"):
        assert expected in printed
    assert "wine: 178 rows, 13 features, classification; seeds 0 to 1" in printed
    assert str(out / "overview.png") in printed
    assert results(out) == results(finished)


def test_the_kept_model_has_the_test_error_that_is_stated(data, finished):
    """On raw rows, those that its seed has set aside."""
    kept, table = results(finished)["kept"], read(str(data / "wine.csv"))
    pool, tested = set_aside(table, 0.2, kept["seed"])
    assert (len(pool), len(tested)) == (kept["rows"], kept["test_rows"])
    frame = pd.read_csv(data / "wine.csv")
    model = load(finished)
    said = model.predict(frame.iloc[tested])
    assert np.mean(said != frame["target"][tested]) == pytest.approx(kept["test_error"], abs=1e-6)
    chances = model.predict_proba(frame.iloc[tested])
    right = chances[np.arange(len(tested)), table.y[tested]]
    assert -np.log(right).mean() == pytest.approx(kept["test_loss"], rel=1e-4)


def test_what_is_kept_is_what_validates_best(finished):
    content = results(finished)
    runs, kept = content["runs"], content["kept"]
    means = {
        name: np.mean([run["arms"][name]["valid_loss"] for run in runs]) for name in runs[0]["arms"]
    }
    assert kept["arm"] == min(means, key=means.get)
    losses = {run["seed"]: run["arms"][kept["arm"]]["valid_loss"] for run in runs}
    assert kept["seed"] == min(losses, key=losses.get)
    file = json.loads((finished / "hyperparameters.json").read_text())
    assert (file["arm"], file["seed"]) == (kept["arm"], kept["seed"])
    assert json.loads((finished / "model/model.json").read_text())["about"]["arm"] == kept["arm"]


def test_the_hyperparameters_can_be_used_again(data, finished, tmp_path):
    start = finished / "hyperparameters.json"
    out = tmp_path / "given"
    call = ["tune", str(data / "wine.csv"), "--out", str(out), "--from", str(start), *SMALL]
    assert main([*call, "--steps-outer", "0"]) == 0
    arms = results(out)["runs"][0]["arms"]
    assert list(arms) == ["defaults", "given"]
    kept = results(finished)["kept"]
    before = results(finished)["runs"][kept["seed"]]["arms"][kept["arm"]]
    given = results(out)["runs"][kept["seed"]]["arms"]["given"]
    assert given["test_loss"] == pytest.approx(before["test_loss"], rel=1e-4)
    assert not (out / "progress.png").exists()


def test_hyperparameters_of_other_schedules_are_refused(data, finished, tmp_path, capsys):
    start = finished / "hyperparameters.json"
    call = ["tune", str(data / "wine.csv"), "--out", str(tmp_path / "no"), "--from", str(start)]
    for other in (["--schedule", "linear"], ["--knots", "5"]):
        assert main([*call, *SMALL, *other]) == 2
        message = " ".join(capsys.readouterr().err.split())
        assert "its schedules are of another form" in message
        assert "Give --schedule spline --knots 4" in message


def test_a_spline_of_one_knot_is_refused(tmp_path, capsys):
    assert main(["tune", "digits", "--out", str(tmp_path / "no"), "--knots", "1"]) == 2
    assert "--knots is 1; it must be at least 2" in capsys.readouterr().err


def test_hyperparameters_of_the_first_format_are_windows(finished, tmp_path):
    content = json.loads((finished / "hyperparameters.json").read_text())
    del content["schedule"]
    (tmp_path / "old.json").write_text(
        json.dumps(content | {"format": "hindgrad hyperparameters 1"})
    )
    network = Network((13, 6, 3), "classification", 10, 16, Form("windows", 4))
    assert read_hyper(tmp_path / "old.json", network)["rate"].shape == (4, 2)


def test_windows_are_tuned_drawn_and_used_again(data, tmp_path, capsys):
    call = ["tune", str(data / "wine.csv"), "--no-searches", *SMALL, "--schedule", "windows"]
    out, again = tmp_path / "windows", tmp_path / "again"
    assert main([*call, "--knots", "3", "--out", str(out)]) == 0
    assert "How seed" in capsys.readouterr().out
    file = json.loads((out / "hyperparameters.json").read_text())
    assert file["schedule"] == {"kind": "windows", "knots": 3}
    assert np.shape(file["hyper"]["rate"]) == (3, 2)
    start = ["--from", str(out / "hyperparameters.json"), "--steps-outer", "0"]
    assert main([*call, "--knots", "3", "--out", str(again), *start]) == 0
    kept = results(out)["kept"]
    before, given = (results(o)["runs"][kept["seed"]]["arms"] for o in (out, again))
    assert given["given"]["test_loss"] == pytest.approx(before[kept["arm"]]["test_loss"], rel=1e-4)


def test_regression_from_parquet_without_searches(data, tmp_path, capsys):
    out = tmp_path / "diabetes"
    call = ["tune", str(data / "diabetes.parquet"), "--no-searches", "--out", str(out), *SMALL]
    assert main(call) == 0
    arms = results(out)["runs"][0]["arms"]
    assert list(arms) == ["defaults", "tuned"]
    spread = load_diabetes().target.std()
    assert 0.5 * spread < arms["tuned"]["test_error"] < 1.5 * spread
    assert "test RMSE" in capsys.readouterr().out


def test_ordinary_hypergradients_of_a_regression_are_no_end(tmp_path, capsys):
    """Without noise in the target the loss falls by orders, and its logarithm moves fast."""
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(rng.normal(size=(60, 2)).round(2), columns=["a", "b"])
    frame.assign(target=3 * frame["a"] - 2 * frame["b"]).to_csv(tmp_path / "line.csv", index=False)
    call = ["tune", str(tmp_path / "line.csv"), "--no-searches", "--out", str(tmp_path / "out")]
    call += ["--hidden", "16", "--steps", "100", "--batch", "16", "--steps-outer", "3"]
    assert main([*call, "--seeds", "1"]) == 0
    assert "1 undone" not in capsys.readouterr().out
    arms = results(tmp_path / "out")["runs"][0]["arms"]
    assert arms["tuned"]["valid_loss"] < arms["defaults"]["valid_loss"]


def test_an_interrupted_run_resumes_with_the_same_result(data, finished, tmp_path, monkeypatch):
    out = tmp_path / "wine"
    call = ["tune", str(data / "wine.csv"), "--out", str(out), *SMALL]
    search, seen = seeds._search, []

    def interrupted(job, name, budget):
        seen.append(name)
        if len(seen) == 6:
            raise KeyboardInterrupt
        return search(job, name, budget)

    monkeypatch.setattr(seeds, "_search", interrupted)
    assert main(call) == 130
    assert [path.name for path in out.iterdir()] == [".work"]
    assert main([*call, "--resume"]) == 0
    assert len(seen) == 9
    assert (out / "results.json").read_bytes() == (finished / "results.json").read_bytes()
    name = "hyperparameters.json"
    assert (out / name).read_bytes() == (finished / name).read_bytes()


def test_a_killed_run_resumes_with_the_same_result(data, finished, tmp_path):
    out = tmp_path / "wine"
    call = ["tune", str(data / "wine.csv"), "--out", str(out), *SMALL]
    process = subprocess.Popen(
        [sys.executable, "-m", "hindgrad.apps.cli", *call], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (out / ".work/seed-0/tuned.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (out / "results.json").exists()
    assert main([*call, "--resume"]) == 0
    assert (out / "results.json").read_bytes() == (finished / "results.json").read_bytes()


def test_overwriting_keeps_the_old_results_until_the_new_are_there(
    data, finished, tmp_path, monkeypatch
):
    out = tmp_path / "wine"
    shutil.copytree(finished, out)
    (out / "mine.txt").write_text("mine")

    def interrupted(job, name, budget):
        raise KeyboardInterrupt

    monkeypatch.setattr(seeds, "_search", interrupted)
    call = ["tune", str(data / "wine.csv"), "--out", str(out), "--overwrite", *SMALL]
    assert main(call) == 130
    assert results(out) == results(finished)
    monkeypatch.undo()
    assert main([*call, "--seed", "3", "--no-searches"]) == 0
    assert [run["seed"] for run in results(out)["runs"]] == [3, 4]
    assert (out / "mine.txt").read_text() == "mine"


def test_rivals_stand_in_every_table(data, tmp_path, capsys):
    """In a table with a rare class, recalls too; the words say which is better."""
    frame = pd.read_csv(data / "wine.csv")
    frame = frame.drop(index=frame.index[frame["target"] == "class_0"][12:])
    frame.to_csv(tmp_path / "wine.csv", index=False)
    out = tmp_path / "out"
    call = ["tune", str(tmp_path / "wine.csv"), "--out", str(out), "--no-searches", *SMALL[:-1]]
    assert main(call) == 0
    printed = capsys.readouterr().out
    markdown = (out / "table.md").read_text()
    lines = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    content = results(out)
    assert content["data"]["counts"] == [12, 71, 48]
    for name in rivals.CLASSIFIERS:
        assert name in printed
        assert markdown.count(f"| {name} |") == 3  # metrics, differences, recalls
        found = [run["rivals"][name] for run in content["runs"]]
        errors = [float(line["test_error"]) for line in lines if line["arm"] == name]
        assert errors == [one["test_error"] for one in found]
    page = (out / "report.html").read_text()
    assert page.count("gradient boosting") >= 3
    assert "Test rows of each class that are predicted as it" in page
    assert "| recall of | class_0 | class_2 | class_1 |" in markdown
    assert "| always the same | 0% | 0% | 100% |" in markdown
    best = min(
        rivals.CLASSIFIERS,
        key=lambda n: np.mean([run["rivals"][n]["valid_error"] for run in content["runs"]]),
    )
    assert f"Here you may do better with {best}." in " ".join(printed.split())


def test_a_rival_that_cannot_be_trained_is_left_behind(data, tmp_path, capsys, monkeypatch):
    class Picky(DummyClassifier):
        def fit(self, X, y):
            raise ValueError("These rows are not to my taste.\nMore follows.")

    monkeypatch.setitem(rivals.CLASSIFIERS, "gradient boosting", lambda _: Picky())
    frame = pd.read_csv(data / "wine.csv").iloc[50:]
    frame.to_csv(tmp_path / "wine.csv", index=False)
    call = ["tune", str(tmp_path / "wine.csv"), "--out", str(tmp_path / "out"), *SMALL[:-1]]
    assert main([*call, "--steps-outer", "0", "--seeds", "1"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "gradient boosting could not be trained: These rows are not to my taste." in printed
    assert results(tmp_path / "out")["runs"][0]["rivals"]["gradient boosting"]["test_error"] is None
    assert "nan" not in printed


def test_where_nothing_is_tuned_the_words_say_so(data, tmp_path, capsys):
    call = ["tune", str(data / "wine.csv"), "--out", str(tmp_path / "out"), *SMALL]
    assert main([*call, "--steps-outer", "0", "--seeds", "1"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "; seed 0, 10 training steps. Nothing was tuned. Kept:" in printed


def test_rivals_that_are_not_there_are_refused(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "catboost", None)
    call = ["tune", str(data / "wine.csv"), "--out", str(tmp_path / "no"), "--also", "catboost"]
    assert main(call) == 2
    assert "--also catboost: catboost is not installed" in capsys.readouterr().err
    assert main([*call, "--no-rivals"]) == 2
    assert "--no-rivals leaves them out" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_trials_are_entered_in_a_storage(data, tmp_path, capsys):
    """The searches' and the tuning's, as they end; another call of the same replaces them."""
    storage = f"sqlite:///{tmp_path / 'trials.db'}"
    call = ["tune", str(data / "wine.csv"), "--out", str(tmp_path / "wine"), *SMALL, "--overwrite"]
    for _ in range(2):
        assert main([*call, "--seeds", "1", "--storage", storage]) == 0
    studies = optuna.study.get_all_study_summaries(storage)
    arms = {summary.study_name.split(", ", 2)[2] for summary in studies}
    assert arms == {*seeds.SEARCHES, "tuned"}
    (run,) = results(tmp_path / "wine")["runs"]
    for summary in studies:
        study = optuna.load_study(study_name=summary.study_name, storage=storage)
        name = summary.study_name.split(", ", 2)[2]
        if name != "tuned":
            assert min(trial.value for trial in study.trials) > 0
            continue
        np.testing.assert_allclose([t.value for t in study.trials], run["history"], rtol=1e-6)
        assert "rate 0" in study.trials[0].params
    capsys.readouterr()
    assert main([*call, "--storage", "nosuch://here"]) == 2
    assert "--storage nosuch://here cannot be opened" in capsys.readouterr().err


def test_a_tuning_that_goes_on_is_entered_once(tmp_path):
    journal = str(tmp_path / "trials.log")
    space = distributions({"x": (-1.0, 1.0)})
    record = lambda step, value: Record(step, value, 1.0, 1.0, "accepted")
    for steps, anew in ((3, True), (5, False)):  # killed after the third, then resumed
        enter = Studies(journal).recorder("tuned", lambda hyper: {"x": hyper}, space, anew=anew)
        for step in range(max(0, steps - 3), steps):
            enter(record(step, float("nan") if step == 1 else 0.1 * step), 0.1)
    study = optuna.load_study(study_name="tuned", storage=Studies(journal).storage)
    assert [trial.user_attrs["step"] for trial in study.trials] == list(range(5))
    assert study.trials[1].state.name == "FAIL"
    assert study.best_value == pytest.approx(1.0)

"""The command from end to end, on small real data."""

import csv
import json
import re
import shutil
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits, load_iris

from hindgrad.apps.cli import main
from hindgrad.apps.explain import command as module
from hindgrad.apps.explain.attribution import explained
from hindgrad.apps.explain.causes import Asked, Trained
from hindgrad.apps.model import Network, problem_of
from hindgrad.apps.saved import load
from hindgrad.apps.splits import Whole, set_aside
from hindgrad.apps.table import Table, read

SMALL = ["--hidden", "6", "--steps", "30", "--runs", "10", "--without", "0.05"]
FILES = {
    "report.html",
    "predictions.csv",
    "influences.csv",
    "effects.csv",
    "labels.csv",
    "moments.csv",
    "settings.csv",
    "results.json",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Iris with names that look like markup; the same rows without labels; a few digits."""
    folder = tmp_path_factory.mktemp("data")
    iris = load_iris(as_frame=True)
    frame = iris.frame.sample(frac=1, random_state=0, ignore_index=True)
    kinds = np.array(["<b>x</b>", "</script>", "{{ plain }}"])
    frame = frame.assign(target=kinds[frame["target"]])
    frame = frame.rename(columns={frame.columns[0]: "<i>sepal</i>"})
    frame.insert(4, "note", np.where(np.arange(150) % 2, "<u>odd</u>", "even & plain"))
    frame.loc[3, "target"] = ""
    frame.to_csv(folder / "iris.csv", index=False)
    frame.assign(target="rose").iloc[5:7].to_csv(folder / "rose.csv", index=False)
    frame.iloc[:60].to_csv(folder / "many.csv", index=False)
    frame[["note", "target"]].iloc[:3].to_csv(folder / "other.csv", index=False)
    digits = load_digits()
    few = digits.target < 3
    np.savez(folder / "digits.npz", x=digits.images[few][:90], kind=digits.target[few][:90])
    np.savez(folder / "new.npz", x=digits.images[few][90:93])
    return folder


def explain(data, out, *arguments):
    assert main(["explain", str(data), "--out", str(out), *SMALL, *arguments]) == 0
    return json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "iris"
    explain(data / "iris.csv", out, "--label", "target", "--worst", "2")
    return out


def table(out, name):
    with (out / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_everything_is_written_and_nothing_else(finished):
    assert {path.name for path in finished.iterdir()} == FILES


def test_the_worst_are_those_to_test_on_with_the_least_chance_for_their_label(
    data, finished, results
):
    assert [entry["part"] for entry in results["queries"]] == ["test", "test"]
    chances = [entry["chances"][entry["right"]] for entry in results["queries"]]
    assert chances == sorted(chances)
    assert results["data"]["tested"] == 30
    given = pd.read_csv(data / "iris.csv", keep_default_na=False)["target"]
    for entry, line in zip(results["queries"], table(finished, "predictions.csv"), strict=True):
        assert line["label"] == given[entry["row"]] == entry["label"]
        assert int(line["row"]) == entry["row"]
        own = float(line[f"probability of {entry['label']}"])
        np.testing.assert_allclose(own, np.exp(-entry["value"]), rtol=1e-3)


def test_effects_are_those_of_the_training_rows(data, finished, results):
    """All of them, none to test on, each with its label in the file."""
    effects = table(finished, "effects.csv")
    rows = [int(line["row"]) for line in effects]
    assert len(set(rows)) == results["data"]["trained"] == 119
    assert not {3, *(entry["row"] for entry in results["queries"])} & set(rows)
    given = pd.read_csv(data / "iris.csv", keep_default_na=False)["target"]
    assert [line["label"] for line in effects] == given[rows].tolist()
    for entry in results["queries"]:
        values = np.array([float(line[entry["name"]]) for line in effects])
        top = {rows[i] for i in np.argsort(-values)[:8]}
        lines = [x for x in table(finished, "influences.csv") if x["prediction"] == entry["name"]]
        assert {int(x["row"]) for x in lines if x["spoke"] == "for"} == top
        for x in lines:
            assert (float(x["without it"]) < float(x["with it"])) == (x["spoke"] == "for")
            assert x["note"] in ("<u>odd</u>", "even & plain")


def test_the_page_has_the_certificate_first_and_all_predictions(finished, results):
    page = (finished / "report.html").read_text()
    text = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    certificate, head = text.index('class="verdict'), text.index("<h2>The predictions")
    assert certificate < head
    for entry in results["queries"]:
        assert f'id="row-{entry["row"]}"' in text
    for odd in ("<b>", "<i>sepal", "<u>"):
        assert odd not in text
    for shown in ("&lt;i&gt;sepal&lt;/i&gt;", "&lt;u&gt;odd&lt;/u&gt;"):
        assert shown in text


def test_the_page_is_drawn_in_a_browser(browser, finished, results):
    """A figure of the training and one of the settings for each prediction; names are text."""
    browser.get((finished / "report.html").as_uri())
    assert browser.get_log("browser") == []
    find = browser.find_elements
    assert len(find("css selector", ".js-plotly-plot .main-svg")) >= 4
    assert find("css selector", "td b, td u, th i") == []
    assert "<i>sepal</i>" in [title.text for title in find("css selector", "th")]
    names = [text.text for text in find("css selector", ".legendtext")]
    for entry in results["queries"]:
        assert f"'{entry['label']}' (label)" in names
    wide = "return document.documentElement.scrollWidth <= innerWidth"
    assert browser.execute_script(wide)


def test_what_is_printed(data, finished, tmp_path, capsys):
    out = tmp_path / "again"
    shutil.copytree(finished, out)
    again = ["--label", "target", "--worst", "2", "--resume"]
    results = explain(data / "iris.csv", out, *again)
    printed = capsys.readouterr().out
    for expected in (
        "is finished",
        "trained on 119 of 149 rows, 5 columns, with default settings",
        "the 2 rows to test on that it gets most wrong",
        f"row {results['queries'][0]['row']}: '",
        "The network was trained again 10 times, each time without 6 of its 119 training rows",
        f"open {out / 'report.html'} in a browser",
    ):
        assert expected in printed
    assert "hyper" not in printed


def test_an_interrupted_run_resumes_with_the_same_result(data, finished, tmp_path, monkeypatch):
    out = tmp_path / "iris"
    call = ["--label", "target", "--worst", "2"]

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "certified", interrupted)
        command = ["explain", str(data / "iris.csv"), "--out", str(out), *SMALL, *call]
        assert main(command) == 130
    with monkeypatch.context() as patched:
        patched.setattr(module, "explained", interrupted)  # it is kept, and not computed again
        resumed = explain(data / "iris.csv", out, *call, "--resume")
    expected = json.loads((finished / "results.json").read_text())
    for results in (resumed, expected):
        del results["call"]
    assert resumed == expected
    for name in FILES - {"results.json", "report.html"}:
        assert (out / name).read_bytes() == (finished / name).read_bytes()


def test_rows_named_are_explained_in_their_order(data, tmp_path):
    """A row that was trained on speaks for itself; --without decides how many are left out."""
    read_ = read(str(data / "iris.csv"), label="target")
    trained = int(read_.numbers[set_aside(read_, 0.2, 0)[0][0]])
    rows = ["--label", "target", "--rows", f"5,{trained}"]
    results = explain(data / "iris.csv", tmp_path / "b", *rows)
    assert [entry["row"] for entry in results["queries"]] == [5, trained]
    entry = results["queries"][1]
    assert entry["part"] == "train"
    lines = [x for x in table(tmp_path / "b", "influences.csv") if x["prediction"] == entry["name"]]
    assert str(trained) in [x["row"] for x in lines if x["spoke"] == "for"]
    assert str(trained) not in [x["row"] for x in table(tmp_path / "b", "labels.csv")]
    assert results["certificate"]["dropped"] == 6


def test_a_model_that_was_tuned_is_explained_as_it_predicts(data, tmp_path):
    """With the best of its networks, the label and the rows to test on of the tuning; rows of
    another table, which have no label; and images are shown as such."""
    tuned, out = tmp_path / "tuned", tmp_path / "out"
    options = ["--hidden", "5", "--steps", "25", "--steps-outer", "0", "--seeds", "1"]
    options += ["--seed", "3", "--label", "kind", "--test", "0.3"]
    path, new = str(data / "digits.npz"), str(data / "new.npz")
    assert main(["tune", path, "--out", str(tuned), *options]) == 0
    arguments = ["--runs", "10", "--without", "0.05", "--from", str(tuned), "--new", new]
    assert main(["explain", path, "--out", str(out), *arguments]) == 0
    results = json.loads((out / "results.json").read_text())
    kept = json.loads((tuned / "results.json").read_text())["kept"]
    assert results["network"]["sizes"] == [64, 5, 3]
    assert results["network"]["seed"] == 3
    assert results["data"]["tested"] == kept["test_rows"]
    assert kept["networks"] > 1
    assert any("the mean of" in note for note in results["data"]["notes"])
    model = load(tuned)
    best = replace(model, networks=model.networks[:1])
    predicted = best.predict_proba(np.load(new)["x"].reshape(-1, 64))
    for entry, expected in zip(results["queries"], predicted, strict=True):
        assert entry["label"] == ""
        np.testing.assert_allclose(entry["chances"], expected, rtol=1e-3, atol=1e-5)
        assert entry["explained"] == int(np.argmax(entry["chances"]))
        assert entry["suspects"] == []
    assert (out / "report.html").read_text().count("data:image/png;base64,") > 20


def test_a_quantity_is_explained_by_its_answer(tmp_path):
    """In its own units, towards and away from the label."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 2))
    y = 1000 + 50 * x[:, 0] + rng.normal(size=120)
    y[7] += 400
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "price": y})
    frame.to_csv(tmp_path / "prices.csv", index=False)
    out = tmp_path / "out"
    results = explain(tmp_path / "prices.csv", out, "--label", "price", "--worst", "1")
    (entry,) = results["queries"]
    assert entry["right"] == pytest.approx(y[entry["row"]])
    assert 700 < entry["answer"] < 1500
    assert entry["chances"] is None
    sign = 1 if entry["answer"] >= entry["right"] else -1
    for line in table(out, "influences.csv"):
        moved = sign * (float(line["without it"]) - float(line["with it"]))
        assert (moved > 0) == (line["spoke"] == "for")
    assert "Pulled towards the label" in (out / "report.html").read_text()


REFUSED = [
    ("--rows 17,x", "--rows: 'x' is no row number; give numbers with commas, 17,42, from 0."),
    ("--rows 150", "--rows: there is no row 150; the rows of 'iris' are 0 to 149"),
    ("--rows 3", "--rows: row 3 is not among those that are learned from and tested on"),
    ("--rows 1 --worst 2", "--rows and --worst exclude each other"),
    ("--worst 0", "--worst is 0; it must be at least 1"),
    ("--worst 51", "--worst: 51 rows are too many to explain at once; give at most 50."),
    ("--worst 40", "--worst 40 is more than the 30 rows to test on; lower it."),
    ("--new {data}/many.csv", "--new {data}/many.csv: 60 rows are too many"),
    ("--new nothing.csv", "--new: nothing.csv: no such file"),
    ("--new {data}/other.csv", "--new: the model needs the columns"),
    ("--runs 5", "--runs is 5; it must be at least 10"),
    ("--without 1", "--without is 1; a share above 0, and at most 0.9, is needed."),
    ("--test 0", "--test is 0; a share above 0"),
    ("--batch 500", "--batch 500 is more than the 119 rows to train on; lower it."),
    ("--from nothing", "--from nothing: No such file or directory; name the --out of hindgrad"),
    ("--from {data}", "--from {data}: there is no hyperparameters.json in this folder"),
    ("--from {data}/iris.csv", "--from {data}/iris.csv: "),
    ("--hidden 1000000 1000000", "--hidden would take"),
    ("--resume --overwrite", "--resume and --overwrite exclude each other"),
]


@pytest.mark.parametrize(("arguments", "expected"), REFUSED)
def test_what_cannot_be_done_is_said_in_one_line(data, tmp_path, capsys, arguments, expected):
    out = tmp_path / "out"
    options = arguments.format(data=data).split()
    given = ["explain", str(data / "iris.csv"), "--label", "target", "--out", str(out), *options]
    small = [] if "--runs" in options or "--without" in options else SMALL[4:]
    assert main([*given, *small]) == 2
    said = capsys.readouterr().err
    assert expected.format(data=data) in said
    assert said.count("\n") == 1
    assert not (out / "results.json").exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"rate": [[1e-44, 1e-44]] * 4}, "no training row matters to any of these predictions"),
        ({"rate": [[1e9, 1e9]] * 4}, "training diverges or is chaotic with these settings"),
    ],
)
def test_settings_that_learn_nothing_are_refused(data, tmp_path, capsys, change, expected):
    path = tmp_path / "hyperparameters.json"
    path.write_text(json.dumps(settings_file(change)))
    given = ["explain", str(data / "iris.csv"), "--label", "target", "--drop", "note"]
    assert main([*given, "--from", str(path), "--out", str(tmp_path / "out")]) == 2
    assert expected in capsys.readouterr().err


def settings_file(change=None, sizes=(4, 6, 3)):
    hyper = {
        "rate": [[0.1, 0.1]] * 4,
        "decay": [[0.9, 0.9]] * 4,
        "weight_decay": [1e-4, 1e-4],
        "scale": [1.0, 1.0],
    }
    return {
        "schedule": {"kind": "spline", "knots": 4},
        "sizes": list(sizes),
        "steps": 20,
        "batch": 32,
        "seed": 0,
        "hyper": hyper | (change or {}),
    }


def test_settings_of_another_network_are_refused(data, tmp_path, capsys):
    path = tmp_path / "hyperparameters.json"
    path.write_text(json.dumps(settings_file(sizes=(7, 6, 3))))
    given = ["explain", str(data / "iris.csv"), "--label", "target", "--from", str(path)]
    assert main([*given, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "it was tuned for 7 inputs, hidden layers [6] and 3 outputs" in said
    assert "this table, label and --hidden make" in said


def test_a_label_that_is_no_class_is_told(data, tmp_path):
    out = tmp_path / "out"
    results = explain(data / "iris.csv", out, "--label", "target", "--new", str(data / "rose.csv"))
    assert [entry["right"] for entry in results["queries"]] == [None, None]
    assert "&#39;rose&#39; is no label that the network knows" in (out / "report.html").read_text()


def test_labels_that_were_flipped_are_found(key):
    """Among the rows that look wrong, most are."""

    x, y = load_digits(return_X_y=True)
    x, y = x[:400], y[:400].astype(np.int32)
    flipped = np.arange(400) % 10 == 0
    noisy = np.where(flipped, (y + 1) % 10, y).astype(np.int32)
    names = tuple(map(str, range(10)))
    features = tuple(f"x{i}" for i in range(64))
    digits = Table("digits", x, noisy, "classification", names, features, "y")
    network = Network((64, 16, 10), "classification", 100, 50)
    rows = np.arange(400)
    problem, _ = problem_of(digits, network, rows[:320], rows[320:], Whole.of(320))
    asked = Asked(problem.test.x[:3], jnp.asarray(y[320:323]))
    found = explained(Trained(problem, network.defaults(), asked), key)
    right = found.suspicious == flipped[:320]
    assert np.mean(right) > 0.9
    assert np.mean(found.suspicious[flipped[:320]]) > 0.8
    assert np.mean(found.likelier[flipped[:320]] == y[:320][flipped[:320]]) > 0.7
    jax.clear_caches()

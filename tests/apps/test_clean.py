"""The command from end to end, on small real data with some labels flipped."""

import csv
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits, load_wine
from sklearn.metrics import roc_auc_score

from hindgrad.apps.clean import weighing as module
from hindgrad.apps.clean.outputs import _write_cleaned
from hindgrad.apps.cli import main
from hindgrad.apps.table import read

SMALL = ["--hidden", "0", "--steps", "20", "--steps-outer", "6", "--repeats", "2"]
FLIPPED = 24


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Wine, the labels of its first shuffled rows flipped, in all formats."""
    folder = tmp_path_factory.mktemp("data")
    wine = load_wine(as_frame=True)
    frame = wine.frame.sample(frac=1, random_state=0, ignore_index=True)
    right = frame["target"].to_numpy()
    noisy = np.where(np.arange(178) < FLIPPED, (right + 1) % 3, right)
    frame = frame.assign(target=wine.target_names[noisy])
    frame.insert(0, "bottle", [f"{i:04}" for i in range(178)])
    frame.to_csv(folder / "wine.csv", index=False)
    frame.set_index("bottle").to_parquet(folder / "wine.parquet")
    known = frame.assign(target=wine.target_names[right]).iloc[FLIPPED:100]
    known[[*reversed(frame.columns)]].to_csv(folder / "known.csv", index=False)
    known.drop(columns="alcohol").to_csv(folder / "other.csv", index=False)
    known.assign(target="vinegar").to_csv(folder / "vinegar.csv", index=False)
    digits = load_digits()
    few = digits.target < 3
    labels, names = digits.target[few][:90], np.arange(90)
    np.savez(folder / "digits.npz", x=digits.images[few][:90], y=labels, name=names, note="mine")
    return folder


def cleaned(data, out, *arguments):
    assert main(["clean", str(data), "--out", str(out), *SMALL, *arguments]) == 0
    return json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A finished run, uninterrupted."""
    out = tmp_path_factory.mktemp("finished") / "wine"
    cleaned(data / "wine.csv", out, "--label", "target", "--drop", "bottle")
    return out


def suspects(out):
    with (out / "suspects.csv").open() as file:
        return list(csv.DictReader(file))


def test_everything_is_written_and_nothing_else(finished):
    names = {"report.html", "suspects.csv", "cleaned.csv", "found.png", "results.json"}
    assert {path.name for path in finished.iterdir()} == names


def test_every_row_is_listed_and_wrong_labels_come_first(data, finished):
    listed = suspects(finished)
    rows = [int(line["row"]) for line in listed]
    assert list(listed[0]) == ["row", "label", "likelier", "weight"]
    assert sorted(rows) == list(range(178))
    given = pd.read_csv(data / "wine.csv")["target"]
    assert [line["label"] for line in listed] == given[rows].tolist()
    weights = [float(line["weight"]) for line in listed]
    assert weights == sorted(weights)
    assert 0 <= weights[0] < 0.4 < 0.8 < weights[-1] <= 1
    assert roc_auc_score(np.array(rows) < FLIPPED, -np.array(weights)) > 0.97
    right = {"class_0": "class_2", "class_1": "class_0", "class_2": "class_1"}
    likelier = {int(line["row"]): line["likelier"] for line in listed}
    assert np.mean([likelier[row] == right[given[row]] for row in range(FLIPPED)]) > 0.8


def test_the_cleaned_data_set_is_the_given_one_without_the_suspicious_rows(data, finished):
    results = json.loads((finished / "results.json").read_text())
    below = {int(line["row"]) for line in suspects(finished) if float(line["weight"]) < 0.5}
    assert set(results["removed"]) == below
    assert 0.5 * FLIPPED < len(below) < 2 * FLIPPED
    given = (data / "wine.csv").read_text().splitlines()
    left = [line for i, line in enumerate(given) if i - 1 not in below]
    assert (finished / "cleaned.csv").read_text().splitlines() == left


def test_the_cleaned_table_has_the_header_of_the_given_one(data, tmp_path):
    """Nameless and doubled columns too, which pandas names otherwise."""
    path = tmp_path / "odd.csv"
    text = ",a,a,label\n" + "".join(f"00{i},{i}.50,1e3,{i % 2}\n" for i in range(30))
    path.write_text(text)
    _write_cleaned(tmp_path, np.array([0, 29]), read(str(path)))
    lines = text.splitlines()
    assert (tmp_path / "cleaned.csv").read_text().splitlines() == [lines[0], *lines[2:-1]]


def test_rows_without_a_label_stay_and_text_and_groups_are_used(tmp_path):
    """The numbers in suspects.csv are those of the rows in the file."""
    rng = np.random.default_rng(0)
    kind = np.arange(90) % 2
    lines = [
        f"{2 * k + rng.normal():.3f};{['red', 'blue'][k]};p{i // 3};{['yes', 'no'][k]}"
        for i, k in enumerate(kind)
    ]
    lines[4] = "1.5;red;p1;"
    lines[7] = lines[7].replace("no", "yes")
    path = tmp_path / "a.csv"
    path.write_text("a;color;patient;answer\n" + "\n".join(lines) + "\n")
    out = tmp_path / "out"
    results = cleaned(path, out, "--label", "answer", "--group", "patient", "--remove", "0.02")
    assert results["data"]["rows"] == len(results["rows"]) == 89
    assert 4 not in results["rows"]
    assert 7 in results["removed"]
    assert next(line["row"] for line in suspects(out)) == "7"
    kept = [line for i, line in enumerate(lines) if i not in results["removed"]]
    assert (out / "cleaned.csv").read_text().splitlines()[1:] == kept


def test_what_is_printed(data, finished, tmp_path, capsys):
    out = tmp_path / "again"
    shutil.copytree(finished, out)
    again = ["--label", "target", "--drop", "bottle", "--resume"]
    results = cleaned(data / "wine.csv", out, *again)
    printed = capsys.readouterr().out
    first = suspects(out)[0]
    for expected in (
        "is finished",
        "wine: 178 rows, 3 classes. ",
        f"{results['suspicious']} labels look wrong (weight below .5; ",
        f"Judged by {results['judge']}. Of labels that were made wrong",
        f"row {first['row']}: {first['label']} → {first['likelier']}, weight 0.",
        f"leaves out {results['suspicious']} rows and keeps {178 - results['suspicious']}.",
        str(out / "suspects.csv"),
    ):
        assert expected in printed


def test_an_interrupted_run_resumes_with_the_same_result(data, finished, tmp_path, monkeypatch):
    out = tmp_path / "wine"
    call = ["clean", str(data / "wine.csv"), "--out", str(out), *SMALL]
    call += ["--label", "target", "--drop", "bottle"]
    learn, seen = module.learn, []

    def interrupted(problem, **options):
        seen.append(options)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return learn(problem, **options)

    monkeypatch.setattr(module, "learn", interrupted)
    assert main(call) == 130
    assert [path.name for path in out.iterdir()] == [".work"]
    assert main([*call, "--resume"]) == 0
    assert len(seen) == 3
    for name in ("results.json", "suspects.csv", "cleaned.csv"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()


def test_parquet_keeps_its_index_and_a_share_is_left_out(data, tmp_path):
    results = cleaned(
        data / "wine.parquet", tmp_path / "out", "--label", "target", "--remove", "0.25"
    )
    assert len(results["removed"]) == round(0.25 * 178)
    given = pd.read_parquet(data / "wine.parquet")
    kept = np.setdiff1d(np.arange(178), results["removed"])
    left = pd.read_parquet(tmp_path / "out" / "cleaned.parquet")
    pd.testing.assert_frame_equal(left, given.iloc[kept])


def test_images_get_a_sheet_and_the_other_arrays_stay(data, tmp_path):
    out = tmp_path / "out"
    results = cleaned(data / "digits.npz", out, "--label", "y", "--hidden", "4")
    assert (out / "suspects.png").exists()
    kept = np.setdiff1d(np.arange(90), results["removed"])
    with np.load(data / "digits.npz") as given, np.load(out / "cleaned.npz") as left:
        for name in ("x", "y", "name"):
            np.testing.assert_array_equal(left[name], given[name][kept])
        assert left["note"] == "mine"


def test_a_trusted_share_keeps_its_labels(data, tmp_path):
    out = tmp_path / "out"
    arguments = ["--label", "target", "--drop", "bottle", "--trusted", "0.3"]
    results = cleaned(data / "wine.csv", out, *arguments)
    assert results["data"]["trusted"] == 53
    last = suspects(out)[-53:]
    assert all(float(line["weight"]) == 1 for line in last)
    assert all(line["label"] == line["likelier"] for line in last)


def test_a_trusted_file_helps_and_is_not_listed(data, tmp_path):
    out = tmp_path / "out"
    known = str(data / "known.csv")
    arguments = ["--label", "target", "--drop", "bottle", "--trusted", known]
    results = cleaned(data / "wine.csv", out, *arguments)
    assert results["data"]["trusted"] == 76
    assert results["data"]["rows"] == len(suspects(out)) == len(results["weight"]) == 178
    wrong = np.arange(178) < FLIPPED
    assert roc_auc_score(wrong, -np.array(results["weight"])) > 0.97


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other.csv", "has other columns than"),
        ("vinegar.csv", "has the class 'vinegar', which"),
        ("digits.npz", "no column 'target'"),
        ("missing.csv", "missing.csv: no such file"),
    ],
)
def test_a_trusted_file_that_does_not_fit_is_refused(data, tmp_path, capsys, name, message):
    call = ["clean", str(data / "wine.csv"), "--label", "target", "--drop", "bottle"]
    assert main([*call, "--out", str(tmp_path / "out"), "--trusted", str(data / name)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "--trusted" in said
    assert said.count("\n") == 1


def test_a_quantity_is_refused_unless_it_is_said_to_be_a_class(tmp_path, capsys):
    rng = np.random.default_rng(0)
    many = np.arange(90) % 30
    frame = pd.DataFrame({"a": rng.normal(size=90) + many, "label": many})
    frame.to_csv(tmp_path / "many.csv", index=False)
    call = ["clean", str(tmp_path / "many.csv"), "--out", str(tmp_path / "out"), *SMALL]
    assert main(call) == 2
    said = capsys.readouterr().err
    assert "the label 'label' is a quantity (30 values)" in said
    assert said.count("\n") == 1
    assert main([*call, "--task", "classification"]) == 0

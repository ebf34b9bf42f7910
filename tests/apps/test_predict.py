"""The answers of a kept model for files as people have them."""

import json

import numpy as np
import pandas as pd
import pytest

from hindgrad.apps.cli import main
from hindgrad.apps.saved import Model, load
from hindgrad.apps.table import DataError, read
from hindgrad.files import read_arrays, write_arrays

ROWS = 60


def kept(folder, frame, **asked):
    """A network of one layer that was not trained, for a table."""
    path = folder / "train.csv"
    frame.to_csv(path, index=False)
    table = read(str(path), **asked)
    numbers, columns = table.encoded(np.arange(len(table.y)))
    outputs = max(1, len(table.classes))
    layer = np.random.default_rng(0).normal(size=(numbers.shape[1], outputs))
    mean, std = numbers.mean(axis=0), numbers.std(axis=0) + 1.0
    model = Model(
        columns, mean, std, (((layer, np.zeros(outputs)),),), table.label, table.classes, 5.0, 2.0
    )
    model.save(folder / "model")
    return model


def predict(folder, content, capsys, name="more.csv"):
    """What the command returns and says, and its answers."""
    data, out = folder / name, folder / "answers.csv"
    out.unlink(missing_ok=True)
    if isinstance(content, pd.DataFrame):
        content.to_parquet(data)
    else:
        data.write_text(content)
    capsys.readouterr()
    code = main(["predict", str(folder), str(data), "--out", str(out)])
    said = capsys.readouterr()
    answers = pd.read_csv(out, dtype=str) if out.exists() else None
    return code, " ".join((said.out + said.err).split()), answers


def letters(label=("yes", "no"), zips=("01234", "1234", "K1A", "1.10")):
    i = np.arange(ROWS)
    return pd.DataFrame(
        {
            "a": (7 * i) % 11 / 4,
            "zip": np.array(zips)[i % len(zips)],
            "day": pd.date_range("2024-01-01", periods=ROWS).strftime("%d.%m.%Y"),
            "label": np.array(label)[(i // 2) % len(label)],
        }
    )


def edited(folder, edit):
    """Changes the JSON of a kept model."""
    path = folder / "model/model.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


DAMAGES = {
    "no networks": lambda c: c.update(networks=[]),
    "fewer layers": lambda c: c.update(networks=[0]),
    "more layers": lambda c: c.update(networks=[2]),
    "no columns": lambda c: c.update(columns=[]),
    "fewer columns": lambda c: c["columns"].pop(),
    "no classes": lambda c: c.update(classes=[]),
    "fewer classes": lambda c: c["classes"].pop(),
    "the same classes": lambda c: c.update(classes=["yes", "yes"]),
    "nothing kept": lambda c: c["columns"][0].update(state={}),
    "fewer values": lambda c: c["columns"][1]["state"]["values"].pop(),
    "fewer levels": lambda c: c["columns"][1]["levels"].pop(),
    "another kind": lambda c: c["columns"][0].update(kind="date"),
    "no scale": lambda c: c.update(target=None),
    "words for a scale": lambda c: c.update(target={"mean": "a", "std": 1.0}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_models_are_refused(tmp_path, damage):
    kept(tmp_path, letters())
    load(tmp_path)
    edited(tmp_path, DAMAGES[damage])
    with pytest.raises(DataError, match="the model is damaged: "):
        load(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path):
    for name, zips in (("one", ("a", "b")), ("other", ("a", "b", "c"))):
        (tmp_path / name).mkdir()
        kept(tmp_path / name, letters(zips=zips))
    weights = [tmp_path / name / "model/weights.safetensors" for name in ("one", "other")]
    weights[0].write_bytes(weights[1].read_bytes())
    with pytest.raises(DataError, match="the model is damaged: it has other inputs than"):
        load(tmp_path / "one")


BENDS = {
    "columns": np.array([7]),
    "quantiles": np.zeros((5, 1)),
    "frequencies": np.ones((1, 1)),
}


@pytest.mark.parametrize("damage", [{name: BENDS[name]} for name in BENDS], ids=str)
def test_damaged_bends_are_refused(tmp_path, damage):
    kept(tmp_path, letters())
    path = tmp_path / "model/weights.safetensors"
    arrays, _ = read_arrays(path)
    write_arrays(path, arrays | {f"bends.{name}": array for name, array in damage.items()})
    with pytest.raises(DataError, match="the model is damaged: its bends are"):
        load(tmp_path)


def csv(rows, columns="a,zip,day"):
    return "\n".join([columns, *rows, ""])


def test_categories_do_not_depend_on_the_other_rows(tmp_path, capsys):
    """Without the rows of text, the zip codes of the file are numbers."""
    model = kept(tmp_path, letters())
    frame = letters().assign(a=0.5, day="01.01.2024")[["a", "zip", "day"]]
    lines = [f"0.5,{code},01.01.2024" for code in ("01234", "1234", "1.10")]
    code, said, answers = predict(tmp_path, csv(lines), capsys)
    assert code == 0
    assert "missing" not in said
    assert answers is not None
    expected = model.predict_proba(frame.iloc[[0, 1, 3]])
    found = answers.iloc[:, 1:].to_numpy(float)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(expected[:, 0])) == 3


@pytest.mark.parametrize(
    ("levels", "others"),
    [(("1", "2", "x"), [1.0, 2.0, 1.0]), (("true", "false"), [True, False, True])],
)
def test_numbers_and_booleans_are_known_in_other_formats(tmp_path, capsys, levels, others):
    kept(tmp_path, letters(zips=levels))
    lines = [f"0.5,{level},01.01.2024" for level in (levels[0], levels[1], levels[0])]
    _, _, expected = predict(tmp_path, csv(lines), capsys)
    frame = pd.DataFrame({"a": 0.5, "zip": others, "day": "01.01.2024"})
    code, said, answers = predict(tmp_path, frame, capsys, "more.parquet")
    assert code == 0
    assert "missing" not in said
    pd.testing.assert_frame_equal(answers, expected)


def test_what_cannot_be_used_is_said(tmp_path, capsys):
    kept(tmp_path, letters())
    rows = ["1,K1A,01.01.2024", "many,XYZ,2024-01-01", "?,,"]
    code, said, _ = predict(tmp_path, csv(rows), capsys)
    assert code == 0
    assert "a: 1 of 2 values is no number" in said
    assert "zip: 1 of 2 values was never seen" in said
    assert "day: 1 of 2 values is no date written as before" in said


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("many,K1A,01.01.2024", "a: 2 of 2 values are no numbers"),
        ("1,K1A,2024-01-01", "day: 2 of 2 values are no dates written as before"),
        ("1,K1A,45000", "day: 2 of 2 values are no dates written as before"),
    ],
)
def test_a_column_of_another_kind_is_refused(tmp_path, capsys, row, message):
    kept(tmp_path, letters())
    code, said, answers = predict(tmp_path, csv([row, row]), capsys)
    assert (code, answers) == (2, None)
    assert message in said


def test_lists_are_refused(tmp_path, capsys):
    kept(tmp_path, letters())
    records = [{"a": 1, "zip": ["K1A"], "day": "01.01.2024"}] * 2
    code, said, answers = predict(tmp_path, json.dumps(records), capsys, "more.json")
    assert (code, answers) == (2, None)
    assert "the column 'zip' holds lists or the like" in said


def test_structures_of_arrays_are_no_labels(tmp_path, capsys):
    x = np.arange(2.0 * ROWS).reshape(-1, 2)
    frame = pd.DataFrame(x, columns=["x0", "x1"]).assign(y=["a", "b"] * (ROWS // 2))
    kept(tmp_path, frame, label="y")
    np.savez(tmp_path / "more.npz", x=x[:2], y=np.zeros(2, [("u", "f8")]))
    out = tmp_path / "answers.csv"
    assert main(["predict", str(tmp_path), str(tmp_path / "more.npz"), "--out", str(out)]) == 2
    assert "give an array of numbers or text" in " ".join(capsys.readouterr().err.split())


def test_classes_come_as_they_were_written(tmp_path, capsys):
    kept(tmp_path, letters(label=("01", "1")))
    rows = ["1,K1A,01.01.2024,01", "1,K1A,01.01.2024,01"]
    _, said, answers = predict(tmp_path, csv(rows, "a,zip,day,label"), capsys)
    assert answers is not None
    assert set(answers["label"]) <= {"01", "1"}
    assert list(answers.columns[1:]) == ["probability of 01", "probability of 1"]
    assert f"{np.mean(answers['label'] != '01'):.4f}" in said
    kept(tmp_path, letters(label=("1_0", "2_0")))
    assert set(load(tmp_path).predict(letters())) <= {"1_0", "2_0"}


@pytest.mark.parametrize(("given", "written"), [("yes", "yes "), ("True", "TRUE"), ("1", "1.0")])
def test_labels_are_the_same_however_written(tmp_path, capsys, given, written):
    kept(tmp_path, letters(label=(given, "no")))
    lines = [f"{i / 9},K1A,01.01.2024," for i in range(9)]
    _, plain, _ = predict(tmp_path, csv([x + given for x in lines], "a,zip,day,label"), capsys)
    said = predict(tmp_path, csv([x + written for x in lines], " a,zip,day, label"), capsys)[1]
    assert said == plain
    assert "Error on the 9 rows with 'label'" in said
    assert "Counted as wrong" not in said


def test_a_label_called_as_a_probability_is_not_lost(tmp_path, capsys):
    frame = letters().rename(columns={"label": "probability of yes"})
    kept(tmp_path, frame, label="probability of yes")
    _, _, answers = predict(tmp_path, csv(["1,K1A,01.01.2024"]), capsys)
    assert answers is not None
    names = ["probability of yes", "probability of no", "probability of yes.1"]
    assert list(answers.columns) == names
    assert answers[names[0]][0] in ("yes", "no")


def test_labels_are_checked_before_answers_are_written(tmp_path, capsys):
    kept(tmp_path, letters())
    record = {"a": 1, "zip": "K1A", "day": "01.01.2024"}
    records = [record | {"label": [1]}, record | {"label": "yes"}]
    code, said, answers = predict(tmp_path, json.dumps(records), capsys, "more.json")
    assert (code, answers) == (2, None)
    assert "the label 'label' holds lists" in said


def test_classes_that_the_model_lacks_are_named(tmp_path, capsys):
    kept(tmp_path, letters())
    rows = ["1,K1A,01.01.2024,maybe", "1,K1A,01.01.2024,maybe", "1,K1A,01.01.2024,yes"]
    code, said, _ = predict(tmp_path, csv(rows, "a,zip,day,label"), capsys)
    assert code == 0
    assert "Counted as wrong: classes that the model does not have, 'maybe' (2)." in said


def test_labels_of_a_quantity_that_are_no_numbers_are_counted(tmp_path, capsys):
    kept(tmp_path, letters().drop(columns="label"), label="a")
    code, said, _ = predict(tmp_path, "zip,day,a\nK1A,01.01.2024,low\nK1A,01.01.2024,\n", capsys)
    assert code == 0
    assert "Labels 'a' that are no numbers: 1." in said
    assert "RMSE" not in said
    rows = "zip,day,a\nK1A,01.01.2024,low\nK1A,01.01.2024,$4\nK1A,01.01.2024,NA\n"
    _, said, answers = predict(tmp_path, rows, capsys)
    assert answers is not None
    assert f"RMSE on the 1 row with 'a': {abs(float(answers['a'][1]) - 4):.5g}." in said


def test_the_table_is_not_replaced_by_its_answers(tmp_path, capsys):
    kept(tmp_path, letters())
    data = tmp_path / "more.csv"
    data.write_text(csv(["1,K1A,01.01.2024"]))
    before = data.read_bytes()
    for out in (data, tmp_path / "model/../more.csv"):
        call = ["predict", str(tmp_path), str(data), "--overwrite", "--out", str(out)]
        assert main(call) == 2
        assert "is the table to predict; name another" in " ".join(capsys.readouterr().err.split())
    assert data.read_bytes() == before


@pytest.mark.parametrize("command", ["tune", "clean", "distill"])
def test_a_table_in_the_folder_of_the_results_is_not_replaced(tmp_path, capsys, command):
    (tmp_path / "mine/more").mkdir(parents=True)
    for data in (tmp_path / "mine/table.csv", tmp_path / "mine/more/table.csv"):
        letters().to_csv(data, index=False)
        before = data.read_bytes()
        assert main([command, str(data), "--out", str(tmp_path / "mine"), "--overwrite"]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert "which could be replaced by the results; name another folder" in said
        assert data.read_bytes() == before


def test_a_column_that_is_not_there_is_named(tmp_path, capsys):
    kept(tmp_path, letters())
    code, said, _ = predict(tmp_path, csv(["1,01.01.2024"], "a,day"), capsys)
    assert code == 2
    assert "the model needs the column 'zip', which is not there; found 'a', 'day'." in said

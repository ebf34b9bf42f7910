"""Models that are kept, and the command that uses them."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import hindgrad as hg
from hindgrad.apps.cli import main
from hindgrad.apps.datasets import DataError
from hindgrad.apps.saved import Model, load
from hindgrad.apps.table import Table, read
from hindgrad.apps.tables.text import ROUND_TRIP
from hindgrad.files import read_arrays, write_arrays

ROWS = 60
COLORS = np.array(["red", "blue", "white"])
SMALL = ["--hidden", "6", "--steps", "40", "--batch", "16", "--steps-outer", "0", "--seeds", "1"]


def flowers(rows=ROWS, seed=0):
    rng = np.random.default_rng(seed)
    kind = np.arange(rows) % 3
    return pd.DataFrame(
        {
            "long": rng.normal(size=rows) + 2 * kind,
            "color": np.where(
                rng.random(rows) < 0.8, np.array(["red", "blue", "white"])[kind], None
            ),
            "seen": pd.date_range("2024-01-01", periods=rows).strftime("%Y-%m-%d"),
            "species": np.array(["iris", "rose", "tulip"])[kind],
            "height": 5.0 + 3 * kind + 0.1 * rng.normal(size=rows),
        }
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Models of a class and of a quantity, and the data."""
    folder = tmp_path_factory.mktemp("kept")
    flowers().to_csv(folder / "flowers.csv", index=False)
    for label in ("species", "height"):
        call = ["tune", str(folder / "flowers.csv"), "--label", label, "--out"]
        assert main([*call, str(folder / label), *SMALL]) == 0
    return folder


def predicted(kept, label, frame, tmp_path, suffix=".csv"):
    frame.to_csv(tmp_path / "more.csv", index=False)
    out = tmp_path / f"answers{suffix}"
    call = ["predict", str(kept / label), str(tmp_path / "more.csv"), "--out", str(out)]
    assert main(call) == 0
    return pd.read_csv(out, **ROUND_TRIP) if suffix == ".csv" else pd.read_parquet(out)


def test_no_pickle_is_written(kept):
    names = {path.name for path in (kept / "species/model").iterdir()}
    assert names == {"model.json", "weights.safetensors"}


def test_classes_come_by_name_with_their_probabilities(kept, tmp_path, capsys):
    frame = flowers(30, seed=1)
    answers = predicted(kept, "species", frame, tmp_path)
    chances = answers[[f"probability of {name}" for name in ("iris", "rose", "tulip")]]
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-5)
    names = np.array(["iris", "rose", "tulip"])[chances.to_numpy().argmax(axis=1)]
    assert answers["species"].tolist() == names.tolist()
    error = np.mean(answers["species"] != frame["species"])
    assert error < 0.2
    assert f"Error on the 30 rows with 'species': {error:.4f}." in capsys.readouterr().out
    model = hg.apps.load(kept / "species")
    np.testing.assert_array_equal(model.predict(frame), names)
    np.testing.assert_allclose(model.predict_proba(frame), chances, rtol=1e-5)


def test_quantities(kept, tmp_path, capsys):
    frame = flowers(30, seed=1)
    answers = predicted(kept, "height", frame, tmp_path, ".parquet")
    rmse = np.sqrt(np.mean((answers["height"] - frame["height"]) ** 2))
    assert rmse < 1
    assert f"RMSE on the 30 rows with 'height': {rmse:.5g}." in capsys.readouterr().out
    model = load(kept / "height" / "model")
    np.testing.assert_allclose(model.predict(frame), answers["height"], rtol=1e-9)
    with pytest.raises(DataError, match="'height' is a quantity, which has no probabilities"):
        model.predict_proba(frame)


def test_numbers_in_csv_read_back_the_same(kept, tmp_path):
    frame = flowers(30, seed=1)
    model = load(kept / "height")
    replace(model, target_mean=1e9).save(tmp_path / "height/model")
    answers = predicted(tmp_path, "height", frame, tmp_path)
    found = answers["height"].to_numpy()
    np.testing.assert_array_equal(found, load(tmp_path / "height").predict(frame))
    assert len(set(found)) > 20


def test_columns_are_found_by_name(kept, tmp_path, capsys):
    frame = flowers(30, seed=1)
    expected = predicted(kept, "species", frame, tmp_path)
    other = frame.drop(columns="species").iloc[:, ::-1].assign(more="x")
    again = tmp_path / "again"
    again.mkdir()
    pd.testing.assert_frame_equal(predicted(kept, "species", other, again), expected)
    frame.drop(columns=["long", "seen"]).to_csv(tmp_path / "less.csv", index=False)
    call = ["predict", str(kept / "species"), str(tmp_path / "less.csv"), "--out"]
    capsys.readouterr()
    assert main([*call, str(tmp_path / "no.csv")]) == 2
    said = capsys.readouterr().err
    assert "less.csv: the model needs the columns 'long', 'seen', which are not there; " in said
    assert said.count("\n") == 1
    assert not (tmp_path / "no.csv").exists()


def test_what_is_missing_or_not_known_is_dealt_with(kept):
    model = load(kept / "species")
    frame = flowers(4).assign(long=[None, "?", 1.0, "many"], color=["green", None, "red", "NA"])
    frame["seen"] = ["soon", None, "2024-02-01", "2030-01-01"]
    with pytest.warns(UserWarning, match="Taken for missing: long: 1 of 2 values is no number, "):
        chances = model.predict_proba(frame)
    assert np.isfinite(chances).all()
    with pytest.raises(DataError, match="the rows: long: 2 of 2 values are no numbers"):
        model.predict(frame.assign(long=["many", "few", None, None]))
    numbers = model.columns.transform(model.code(frame))
    assert np.isfinite(numbers).all()


def test_rows_are_answered_alone_as_among_others(kept):
    model, frame = load(kept / "species"), flowers(12, seed=2)
    alone = np.concatenate([model.predict_proba(frame.iloc[[i]]) for i in range(12)])
    np.testing.assert_allclose(alone, model.predict_proba(frame), rtol=1e-9)


def test_arrays_are_taken_in_the_order_of_the_columns(kept):
    model, frame = load(kept / "species"), flowers(12, seed=2)
    array = frame[model.features].to_numpy(object)
    np.testing.assert_array_equal(model.predict(array), model.predict(frame))
    with pytest.raises(DataError, match=r"of shape \(2, 2\) was passed; the model needs \[rows, 4"):
        model.predict(np.zeros((2, 2)))


def test_whole_numbers_stay_numbers():
    table = Table(
        "t", np.zeros((3, 1)), np.arange(3), "classification", ("1", "2", "5"), ("a",), "y"
    )
    _, columns = table.encoded(np.arange(3))
    layers = ((np.zeros((1, 3)), np.array([0.0, 1.0, 0.0])),)
    model = Model(columns, np.zeros(1), np.ones(1), (layers,), "y", table.classes)
    assert model.predict(np.zeros((2, 1))).tolist() == [2, 2]


def test_what_is_no_model_is_refused(kept, tmp_path):
    with pytest.raises(DataError, match="there is no model; name the --out of hindgrad tune"):
        load(tmp_path)
    kept_model = load(kept / "species")
    kept_model.save(tmp_path / "model")
    assert load(tmp_path).predict(flowers()).tolist() == kept_model.predict(flowers()).tolist()
    arrays, _ = read_arrays(tmp_path / "model/weights.safetensors")
    del arrays["networks.0.layers.0.w"]
    write_arrays(tmp_path / "model/weights.safetensors", arrays)
    with pytest.raises(DataError, match="the model is damaged"):
        load(tmp_path)
    about = json.loads((tmp_path / "model/model.json").read_text())
    (tmp_path / "model/model.json").write_text(json.dumps(about | {"format": "other"}))
    with pytest.raises(DataError, match="the model is of another version, other"):
        load(tmp_path)


def test_the_model_was_fitted_without_the_rows_to_test_on(kept):
    about = load(kept / "species").about
    assert about["rows"] + about["test_rows"] == ROWS
    assert about["notes"][0] == read(str(kept / "flowers.csv"), label="species").notes[0]

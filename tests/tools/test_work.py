"""The output folder: nothing half-written, nothing lost."""

import json

import pytest

from hindgrad.tools.settings import ArgumentError
from hindgrad.tools.work import RESULTS, Work, check_same_call, write_json


def test_a_piece_is_computed_once(tmp_path):
    work = Work(tmp_path / "out")
    work.open({"steps": 3}, resume=False)
    assert work.kept("seed-0/piece", lambda: [1, 0.1]) == [1, 0.1]
    again = Work(tmp_path / "out")
    again.open({"steps": 3}, resume=True)
    assert again.kept("seed-0/piece", lambda: pytest.fail("computed again")) == [1, 0.1]


def test_a_new_run_keeps_nothing_of_an_interrupted_one(tmp_path):
    work = Work(tmp_path)
    work.open({}, resume=False)
    work.kept("piece", lambda: 1)
    work.open({}, resume=False)
    assert work.kept("piece", lambda: 2) == 2


def test_files_appear_when_all_are_written(tmp_path):
    work = Work(tmp_path)
    work.open({}, resume=False)

    def fail(folder):
        (folder / "table.csv").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        work.publish(fail)
    assert [path.name for path in tmp_path.iterdir()] == [".work"]

    def succeed(folder):
        (folder / "table.csv").write_text("whole")
        write_json(folder / RESULTS, {})

    work.publish(succeed)
    assert sorted(path.name for path in tmp_path.iterdir()) == [RESULTS, "table.csv"]
    assert work.finished() == {}


def test_what_is_there_is_not_overwritten_unasked(tmp_path):
    out = tmp_path / "out"
    work = Work(out)
    work.check(resume=False, overwrite=False)
    out.mkdir()
    work.check(resume=False, overwrite=False)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(ArgumentError, match=r"is not empty; .* --overwrite"):
        work.check(resume=False, overwrite=False)
    work.check(resume=False, overwrite=True)
    work.open({}, resume=False)
    with pytest.raises(ArgumentError, match="holds an interrupted run; go on with --resume"):
        work.check(resume=False, overwrite=False)
    work.check(resume=True, overwrite=False)
    assert (out / "mine.txt").read_text() == "mine"


def test_resuming_needs_a_run(tmp_path):
    with pytest.raises(ArgumentError, match="--resume: there is no run in --out"):
        Work(tmp_path).check(resume=True, overwrite=False)


def test_out_must_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="is a file; name a folder"):
        Work(tmp_path / "file").check(resume=False, overwrite=False)


def test_another_call_is_refused_by_the_argument_that_differs():
    saved = {"data": "digits", "hidden": [8, 8], "fingerprint": "a"}
    check_same_call(saved, dict(saved))
    with pytest.raises(ArgumentError, match=r"begun with --hidden 8 8, not 4;"):
        check_same_call(saved, saved | {"hidden": [4]})
    with pytest.raises(ArgumentError, match="the data changed since the run began"):
        check_same_call(saved, saved | {"fingerprint": "b"})


def test_damaged_results_are_named(tmp_path):
    (tmp_path / RESULTS).write_text("{")
    with pytest.raises(ArgumentError, match=r"results.json is damaged; .* --overwrite"):
        Work(tmp_path).finished()


def test_numbers_survive_to_the_bit(tmp_path):
    values = [0.1, 1e-45, 3.4e38]
    write_json(tmp_path / "values.json", values)
    assert json.loads((tmp_path / "values.json").read_text()) == values

"""The output folder: nothing half-written, nothing lost."""

import json
import subprocess
import sys

import numpy as np
import pytest

from hindgrad.apps.settings import ArgumentError
from hindgrad.apps.work import RESULTS, Resumable, Work, check_same_call
from hindgrad.files import read_json, write_arrays, write_json

CALL = {"steps": 3}


def results(work, values=None, call=CALL, files=("table.csv",), report=pytest.fail):
    """Runs that give values and write files."""

    def write(folder, _):
        for name in files:
            (folder / name).write_text(name)

    compute = lambda: {"call": call} | (values or {})
    return work.results(call, compute, write, report=report)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_piece_is_computed_once(tmp_path):
    work = Work(tmp_path / "out")
    work.open(CALL)
    assert work.kept("seed-0/piece", lambda: [1, 0.1]) == [1, 0.1]
    again = Work(tmp_path / "out", resume=True)
    again.open(CALL)
    assert again.kept("seed-0/piece", lambda: pytest.fail("computed again")) == [1, 0.1]


@pytest.mark.parametrize("damage", [b"", b"[1,", b"\xff\xfe"])
def test_a_damaged_piece_is_computed_again(tmp_path, damage):
    work = Work(tmp_path)
    work.open(CALL)
    work.kept("piece", lambda: 1)
    (work.folder / "piece.json").write_bytes(damage)
    assert work.kept("piece", lambda: 2) == 2
    assert work.kept("piece", lambda: 3) == 2


def test_a_piece_without_its_arrays_is_computed_again(tmp_path):
    work, path = Work(tmp_path), tmp_path / "arrays"
    work.open(CALL)
    calls = []

    def compute():
        calls.append(1)
        write_arrays(path, {"x": np.ones(3)})

    for damage in (lambda: None, lambda: path.write_bytes(path.read_bytes()[:-1]), path.unlink):
        work.kept("piece", compute, arrays=path)
        work.kept("piece", compute, arrays=path)
        damage()
    assert len(calls) == 2


def test_what_is_not_finite_survives(tmp_path):
    work = Work(tmp_path)
    work.open(CALL)
    for _ in range(2):
        piece = work.kept("piece", lambda: {"losses": [np.float32("nan"), float("-inf"), 1.0]})
        np.testing.assert_array_equal(piece["losses"], [np.nan, -np.inf, 1])
    found = results(Work(tmp_path, overwrite=True), {"loss": float("nan")})
    again = results(Work(tmp_path, resume=True), report=lambda _: None)
    assert np.isnan(found["loss"])
    assert np.isnan(again["loss"])


def test_a_new_run_keeps_nothing_of_an_interrupted_one(tmp_path):
    work = Work(tmp_path)
    work.open({})
    work.kept("piece", lambda: 1)
    work.open({})
    assert work.kept("piece", lambda: 2) == 2


def test_files_appear_when_all_are_written(tmp_path):
    def fail(folder, _):
        (folder / "table.csv").write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Work(tmp_path).results(CALL, dict, fail, report=pytest.fail)
    assert names(tmp_path) == [".work"]
    found = results(Work(tmp_path, resume=True), {"loss": 1.0})
    assert found == {"call": CALL, "loss": 1.0, "files": ["table.csv"]}
    assert names(tmp_path) == [RESULTS, "table.csv"]


def test_a_finished_run_is_told_again_whatever_its_settings_hold(tmp_path):
    call = {"convs": ((8, 3), (8, 3)), "deep": {"a": [(1, (2,))]}, "none": None}
    found = results(Work(tmp_path), {"loss": 1.0}, call)
    printed = []
    again = Work(tmp_path, resume=True).results(
        call, pytest.fail, pytest.fail, report=printed.append
    )
    assert again == found
    assert printed == [[f"The run in {tmp_path} is finished."]]
    with pytest.raises(ArgumentError, match="--convs"):
        results(Work(tmp_path, resume=True), call=call | {"convs": ((8, 3), (8, 4))})


def test_files_of_an_earlier_run_do_not_stay_as_results_of_this_one(tmp_path):
    results(Work(tmp_path), files=("table.csv", "progress.png"))
    (tmp_path / "mine.txt").write_text("mine")
    found = results(Work(tmp_path, overwrite=True), files=("table.csv", "other.png"))
    assert found["files"] == ["other.png", "table.csv"]
    assert names(tmp_path) == ["mine.txt", "other.png", RESULTS, "table.csv"]


def test_a_kill_while_the_work_is_removed_leaves_a_finished_run(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(folder):
        assert (folder / "piece.json").exists()
        raise Killed

    work = Work(tmp_path)
    monkeypatch.setattr("shutil.rmtree", lambda path, **_: path.exists() and killed(path))
    compute = lambda: {"call": CALL, "piece": work.kept("piece", lambda: 1)}
    with pytest.raises(Killed):
        work.results(CALL, compute, lambda *_: None, report=pytest.fail)
    monkeypatch.undo()
    assert names(tmp_path) == [".work", RESULTS]
    Work(tmp_path, resume=True).check()
    assert results(Work(tmp_path, resume=True), report=lambda _: None)["piece"] == 1
    with pytest.raises(ArgumentError, match="is not empty"):
        Work(tmp_path).check()
    results(Work(tmp_path, overwrite=True))
    assert names(tmp_path) == [RESULTS, "table.csv"]


def test_a_kill_before_the_call_is_kept_leaves_nothing(tmp_path):
    Work(tmp_path).folder.mkdir()
    Work(tmp_path).check()
    with pytest.raises(ArgumentError, match="there is no run"):
        Work(tmp_path, resume=True).check()
    results(Work(tmp_path))


def test_what_is_there_is_not_overwritten_unasked(tmp_path):
    out = tmp_path / "out"
    Work(out).check()
    out.mkdir()
    Work(out).check()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(ArgumentError, match=r"is not empty; .* --overwrite"):
        Work(out).check()
    work = Work(out, overwrite=True)
    work.check()
    work.open({})
    with pytest.raises(ArgumentError, match="holds an interrupted run; go on with --resume"):
        Work(out).check()
    Work(out, resume=True).check()
    assert (out / "mine.txt").read_text() == "mine"


def test_an_interruption_says_whether_a_run_has_begun(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(Resumable):
        Work(tmp_path).results(CALL, interrupted, pytest.fail, report=pytest.fail)
    assert results(Work(tmp_path, resume=True))["files"] == ["table.csv"]


def test_resuming_needs_a_run(tmp_path):
    with pytest.raises(ArgumentError, match="--resume: there is no run in --out"):
        Work(tmp_path, resume=True).check()


HOLD = """
import sys
from pathlib import Path
from hindgrad.apps.work import Work

def compute():
    print("begun", flush=True)
    sys.stdin.read()
    return {"call": {"steps": 3}}

Work(Path(sys.argv[1])).results({"steps": 3}, compute, lambda *_: None, report=print)
"""


def test_two_calls_do_not_work_in_one_folder(tmp_path):
    call = [sys.executable, "-c", HOLD, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(call, stdin=pipe, stdout=pipe, text=True) as first:
        assert first.stdout.readline() == "begun\n"
        before = sorted(tmp_path.rglob("*"))
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(ArgumentError, match="another call is at work in this folder; wait"):
                Work(tmp_path, **options).check()
            with pytest.raises(ArgumentError, match="another call is at work"):
                results(Work(tmp_path, **options))
        assert sorted(tmp_path.rglob("*")) == before
        first.kill()
    assert results(Work(tmp_path, resume=True))["files"] == ["table.csv"]


@pytest.mark.parametrize("out", ["file", "file/below", "x" * 300, "loop", "/proc/none", "dangling"])
def test_out_must_be_a_possible_folder(tmp_path, out):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("/proc/none/at/all")
    for work in (Work(tmp_path / out), Work(tmp_path / out, overwrite=True)):
        with pytest.raises(ArgumentError, match=r"--out .*name a") as error:
            _ = work.check() or results(work)
        assert "\n" not in str(error.value)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path, monkeypatch):
    full = lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    results(Work(tmp_path), {"loss": 1.0})
    work = Work(tmp_path, overwrite=True)

    def compute():
        work.kept("one", lambda: 1)
        with monkeypatch.context() as context:
            context.setattr("os.fsync", full)
            work.kept("two", lambda: 2)

    with pytest.raises(ArgumentError, match=r"No space left on device; fix that;.*--resume"):
        work.results(CALL, compute, pytest.fail, report=pytest.fail)
    assert read_json(tmp_path / RESULTS)["loss"] == 1.0
    again = Work(tmp_path, resume=True)
    again.check()
    assert again.kept("one", pytest.fail) == 1
    assert results(again, {"loss": 2.0})["loss"] == 2.0


def test_another_call_is_refused_by_the_argument_that_differs():
    saved = {"data": "digits", "hidden": [8, 8], "fingerprint": "a"}
    check_same_call(saved, dict(saved))
    with pytest.raises(ArgumentError, match=r"begun with --hidden 8 8, not 4;"):
        check_same_call(saved, saved | {"hidden": [4]})
    with pytest.raises(ArgumentError, match="the data changed since the run began"):
        check_same_call(saved, saved | {"fingerprint": "b"})


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"call": 1}'])
def test_damaged_results_are_named_with_the_remedy(tmp_path, content):
    (tmp_path / RESULTS).write_bytes(content)
    with pytest.raises(ArgumentError, match=r"results.json is damaged; .* --overwrite") as error:
        results(Work(tmp_path, resume=True))
    assert str(tmp_path) in str(error.value)
    assert results(Work(tmp_path, overwrite=True))["files"] == ["table.csv"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_a_damaged_call_is_named_with_the_remedy(tmp_path, content):
    Work(tmp_path).open(CALL)
    Work(tmp_path).call.write_bytes(content)
    with pytest.raises(ArgumentError, match=r"call.json is damaged; .* --overwrite") as error:
        results(Work(tmp_path, resume=True))
    assert str(tmp_path) in str(error.value)


def test_a_damaged_checkpoint_is_one_line(tmp_path):
    work = Work(tmp_path)

    def damaged():
        raise ValueError(f"The checkpoint in {work.folder / 'tuning'} cannot be read:\n delete it.")

    with pytest.raises(ArgumentError, match=r"tuning cannot be read: delete it\."):
        work.results(CALL, damaged, pytest.fail, report=pytest.fail)

    def full():
        raise ValueError(f"Error writing {work.folder}: [os_error_code='28'] [location]")

    with pytest.raises(ArgumentError, match=r"No space left on device; fix that; .* kept, go on"):
        Work(tmp_path, resume=True).results(CALL, full, pytest.fail, report=pytest.fail)

    def wrong():
        raise ValueError("a fault of ours")

    with pytest.raises(ValueError, match="a fault of ours"):
        Work(tmp_path, resume=True).results(CALL, wrong, pytest.fail, report=pytest.fail)


def test_numbers_survive_to_the_bit(tmp_path):
    values = [0.1, 1e-45, 3.4e38]
    write_json(tmp_path / "values.json", values)
    assert json.loads((tmp_path / "values.json").read_text()) == values

"""The command line: one clear line for whatever cannot be done, and nothing written."""

import json
import shlex
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from hindgrad.apps.cli import main


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test runs in an empty folder, with one good table in it."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60), "b": rng.normal(size=60)})
    frame.assign(label=np.arange(60) % 2).to_csv(tmp_path / "good.csv", index=False)
    frame.assign(kind="x").to_csv(tmp_path / "nolabel.csv", index=False)
    frame.assign(label="one").to_csv(tmp_path / "oneclass.csv", index=False)
    frame.assign(label=np.arange(60) % 2, place="x").to_csv(tmp_path / "text.csv", index=False)
    holes = frame.assign(label=np.arange(60) % 2)
    holes.loc[2, "a"] = np.nan
    holes.to_csv(tmp_path / "holes.csv", index=False)
    np.savez(tmp_path / "nan.npz", x=np.full((60, 2), np.nan), y=np.arange(60) % 2)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 but not really")
    (tmp_path / "hyper.json").write_text("{}")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "broken.json").write_text("{")
    good = {"rate": [[0.1]] * 10, "decay": [[0.9]] * 10, "weight_decay": [0.1], "scale": [1.0]}
    for name, change in {"layers": {}, "range": {"decay": [[1.5]] * 10}}.items():
        content = {"hyper": {**good, **change}}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HINDGRAD_DATA", raising=False)
    return tmp_path


REFUSED = [
    ("", "Expected one of {tune, predict, explain, clean, distill, learn-optimizer"),
    ("tun", "Unrecognized options: tun"),
    ("tune --seeds abc", "--seeds: invalid literal"),
    ("tune --steps abc", "--steps: 'abc' is no whole number"),
    ("tune --stepz 3", "Unrecognized options: --stepz, 3 (perhaps --steps); see hindgrad tune"),
    ("tune good.csv more.csv", "more.csv"),
    ("tune --task guess", "invalid choice 'guess' for argument '--task'"),
    ("tune --steps 5", "--steps is 5; it must be at least 10"),
    ("tune --batch 0", "--batch is 0; it must be at least 1"),
    ("tune good.csv --batch 64", "--batch 64 is more than the 36 rows to train on"),
    ("tune --steps-outer -1", "--steps-outer is -1; it must be at least 0"),
    ("tune --seeds 0", "--seeds is 0"),
    ("tune --seed -1", "--seed is -1"),
    ("tune --rows 0", "--rows is 0"),
    ("tune --hidden 8 0", "--hidden is 0"),
    ("tune --test 1.5", "--test is 1.5; a share between 0 and 1"),
    ("tune --valid 0", "--valid is 0; a share between 0 and 1"),
    ("tune --test 0.6 --valid 0.5", "leave less than a tenth of the rows"),
    ("tune --resume --overwrite", "--resume and --overwrite exclude each other"),
    ("tune --resume", "--resume: there is no run in --out"),
    ("tune --out full", "--out full is not empty"),
    ("tune --out good.csv", "--out good.csv is a file"),
    ("tune nothing.csv", "nothing.csv: no such file"),
    ("tune empty.csv", "empty.csv: the file is empty"),
    ("tune damaged.parquet", "not readable as Parquet"),
    ("tune nan.npz", "no value in any column but the label 'y'"),
    ("tune nolabel.csv --drop a --keep c", "--keep names 'c', which the data does not have"),
    ("tune good.csv --group place", "--group names 'place', which the data does not have"),
    ("tune good.csv --group label --label label", "--group names the label 'label'"),
    ("tune text.csv --group place", "has each class in one group only"),
    ("tune digits --group drawer", "--group names 'drawer', which 'digits' does not have"),
    ("tune oneclass.csv", "one class only, 'one'"),
    ("tune phoneme", "HINDGRAD_DATA"),
    ("tune --from nothing.json", "--from nothing.json"),
    ("tune --from broken.json", "--from broken.json"),
    ("tune --from hyper.json", "does not hold hyperparameters"),
    ("tune --from list.json", "does not hold hyperparameters"),
    ("tune --from layers.json", "'rate' has shape (10, 1); a network of 3 layers needs (10, 3)"),
    ("tune good.csv --batch 8 --hidden --from range.json", "'decay' has values outside of (0, 1)"),
    ("tune --seed 4294967296 --seeds 1", "--seed is 4294967296; it must be at most 4294967295"),
    ("tune --seed 4294967295", "and the last of 5 seeds 4294967299; it must be at most"),
    ("tune --steps 2147483648", "--steps is 2147483648; it must be at most 2147483647"),
    ("tune --steps 2147483647", "--steps 2147483647 times --batch 64 is too much to be counted"),
    ("tune good.csv --hidden 1000000 1000000 --batch 8", "would take"),
    ("tune good.csv --knots 2000000000 --batch 8", "GiB and more, of the"),
    ("tune good.csv --test 0.01 --valid 0.01 --batch 60", "more than the 56 rows to train on"),
    ("tune --out good.csv/new", "good.csv/new"),
    ("tune --out /proc/none good.csv --batch 8", "--out /proc/none: "),
    ("clean --seed 4294967296", "--seed is 4294967296; it must be at most 4294967295"),
    ("distill --seed 99999999999999999999", "it must be at most 4294967295"),
    ("learn-optimizer quadratic --seed 4294967296", "it must be at most 4294967295"),
    ("clean --steps 5", "--steps is 5; it must be at least 10"),
    ("clean --steps-outer 1", "--steps-outer is 1; it must be at least 2"),
    ("clean --repeats 0", "--repeats is 0; it must be at least 1"),
    ("clean --seed -1", "--seed is -1"),
    ("clean --hidden 8 0", "--hidden is 0"),
    ("clean --remove 1", "--remove is 1; a share of the rows"),
    ("clean --trusted 1.5", "--trusted is 1.5; a share between 0 and 1 or a file"),
    ("clean --trusted nothing.csv", "--trusted nothing.csv: no such file"),
    ("clean --resume --overwrite", "--resume and --overwrite exclude each other"),
    ("clean --out full", "--out full is not empty"),
    ("clean nothing.csv", "nothing.csv: no such file"),
    ("predict good.csv good.csv --out p.csv", "good.csv: there is no model; name the --out of"),
    ("predict full good.csv --out p.doc", "--out p.doc: name a file that ends with .csv or"),
    ("predict full good.csv --out good.csv", "--out good.csv is the table to predict"),
    ("clean good.csv --label b", "the label 'b' is a quantity (60 values)"),
    ("clean good.csv --task regression", "invalid choice 'regression' for argument '--task'"),
    ("clean good.csv --trusted nan.npz --label label", "--trusted: nan.npz: there is no column"),
    ("clean --trials 3", "Unrecognized options: --trials, 3"),
    ("distill --per-class 0", "--per-class is 0; it must be at least 1"),
    ("distill --steps 1", "--steps is 1; it must be at least 2"),
    ("distill --steps-outer 2", "--steps-outer is 2; it must be at least 3"),
    ("distill --seed -1", "--seed is -1"),
    ("distill --rows 0", "--rows is 0"),
    ("distill --hidden 8 0", "--hidden is 0"),
    ("distill --test 0", "--test is 0; a share between 0 and 1"),
    ("distill --test 0.6 --valid 0.5", "leave less than a tenth of the rows to learn from"),
    ("distill --resume --overwrite", "--resume and --overwrite exclude each other"),
    ("distill --resume", "--resume: there is no run in --out"),
    ("distill --out full", "--out full is not empty"),
    ("distill nothing.csv", "nothing.csv: no such file"),
    ("distill good.csv --label b", "the label 'b' is a quantity (60 values), and distill is for"),
    ("distill good.csv --task regression", "invalid choice 'regression' for argument '--task'"),
    ("distill good.csv --rows 600", "--rows 600 is more than the 60 rows"),
    ("distill good.csv --per-class 40", "--per-class 40 is more than the 18 rows of class '0'"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_cannot_be_done_is_said_in_one_line(elsewhere, capsys, arguments, message):
    before = sorted(elsewhere.rglob("*"))
    assert main(arguments.split()) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("hindgrad: ")
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert sorted(elsewhere.rglob("*")) == before


def test_the_version_is_that_of_the_package(capsys):
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hindgrad {version('hindgrad')}\n"


def test_help_names_the_commands_and_their_options(capsys):
    assert main(["--help"]) == 0
    first = capsys.readouterr().out[:600]
    for example in ("tune flowers.csv --out flowers", "predict flowers/model", "clean flowers.csv"):
        assert f"hindgrad {example}" in first
    assert main(["tune", "--help"]) == 0
    text = capsys.readouterr().out
    for option in ("DATA", "--out DIR", "--label", "--from FILE", "--resume", "--seeds", "--rows"):
        assert option in text


def test_how_to_go_on_is_told_as_a_shell_takes_it(elsewhere, capsys, monkeypatch):
    from hindgrad.apps.tune import command as tune
    from hindgrad.apps.tune import seeds

    def interrupted(*arguments):
        raise KeyboardInterrupt

    (elsewhere / "my data").mkdir()
    (elsewhere / "good.csv").rename("my data/it's $good.csv")
    out = "re sults; echo [/x]"
    call = ["tune", "my data/it's $good.csv", "--out", out, "--batch", "8", "--overwrite"]
    monkeypatch.setattr(tune, "_network", interrupted)
    assert main(call) == 130
    assert capsys.readouterr().err == "\nInterrupted before anything was begun.\n"
    assert not (elsewhere / out).exists()
    monkeypatch.undo()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(seeds, "_seed", interrupted)
    for _ in range(2):  # what it says is true
        assert main(call) == 130
        _, again = capsys.readouterr().err.split("Interrupted; go on with: hindgrad ")
        call = shlex.split(again)
        assert "--overwrite" not in call
        assert call.count("--resume") == 1


CLOSED = """
import sys
from hindgrad.apps.cli import main
from hindgrad.apps.tune import command as tune

def results(settings, call, *_):
    print("x" * 100_000, file=sys.stderr, flush=True)  # nobody reads it
    return {"call": call}

tune._results = results
tune.outputs.write = lambda folder, results, weights: (folder / "table.md").write_text("table")
tune.outputs.show = lambda results, out, console: console.print("x\\n" * 100_000)
main()
"""


@pytest.mark.parametrize("closed", ["1>&-", "| true", "2>&1 | true"])
def test_a_closed_pipe_loses_no_result(elsewhere, closed):
    program = CLOSED if "2>" not in closed else CLOSED.replace('print("x"', 'pass  # ("x"')
    (elsewhere / "program.py").write_text(program)
    line = f"{sys.executable} program.py tune good.csv --batch 8 --out new {closed}"
    said = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert "Traceback" not in said.stderr
    assert (elsewhere / "new" / "results.json").exists()
    assert (elsewhere / "new" / "table.md").read_text() == "table"


def test_another_call_is_not_resumed(elsewhere, capsys, monkeypatch):
    from hindgrad.apps.tune import seeds

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(seeds, "_seed", interrupted)
    call = ["tune", "good.csv", "--out", "new", "--batch", "8"]
    assert main(call) == 130
    said = capsys.readouterr().err
    again = "Interrupted; go on with: hindgrad tune good.csv --out new --batch 8 --resume"
    assert again in said
    assert main([*call, "--resume", "--steps", "50"]) == 2
    assert "the run was begun with --steps 300, not 50" in capsys.readouterr().err
    assert main(call) == 2
    assert "holds an interrupted run; go on with --resume" in capsys.readouterr().err
    frame = pd.read_csv("good.csv")
    frame.assign(a=frame["a"] + 1).to_csv("good.csv", index=False)
    assert main([*call, "--resume"]) == 2
    assert "the data changed since the run began" in capsys.readouterr().err

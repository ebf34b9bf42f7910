"""`python -m experiments` with an experiment of a few numbers: folders, resuming, refusals."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pytest
from rich.console import Console
from rich.table import Table

from experiments import runner
from experiments.runner import main
from experiments.settings import Reproduce
from hindgrad.apps.settings import ArgumentError


@dataclass(frozen=True)
class Settings(runner.Repeated):
    numbers: tuple[int, ...] = (3, 4)
    seeds: int = 2


class Squares:
    """Adds squares, a piece for each seed, and counts how often it has computed one."""

    def __init__(self, *, interrupt_at=None):
        self.computed, self.interrupt_at = [], interrupt_at

    def run(self, settings, kept, line):
        def compute(seed):
            if seed == self.interrupt_at:
                raise KeyboardInterrupt
            (kept.folder(f"seed-{seed}") / "checkpoint").write_text("some state")
            self.computed.append(seed)
            return seed + sum(n**2 for n in settings.numbers)

        runs = [kept(f"seed-{s}/sum", lambda s=s: compute(s)) for s in settings.each_seed()]
        line.done(len(runs))
        return {"sums": runs}

    def experiment(self):
        def table(results):
            shown = Table("seed", "sum")
            for i, total in enumerate(results["sums"]):
                shown.add_row(str(i), str(total))
            return shown

        return SimpleNamespace(
            ABOUT="Sums of squares, from no paper.",
            DEFAULT=Settings(),
            FULL=Settings(numbers=(30, 40)),
            SMALL=Settings(seeds=1),
            run=self.run,
            total=lambda settings: settings.seeds,
            report=SimpleNamespace(
                write=lambda results, folder: (folder / "sums.txt").write_text(
                    str(results["sums"])
                ),
                table=table,
                summary=lambda results: [f"The last sum is {results['sums'][-1]}."],
            ),
        )


@pytest.fixture
def squares(monkeypatch):
    """The experiment, in the place of one that is really there."""

    def use(**options):
        squares = Squares(**options)
        monkeypatch.setattr(runner, "find", lambda name: squares.experiment())
        return squares

    return use


def call(out, *options):
    return main(["hyper-cleaning", "--out", str(out), *options])


def files(out):
    return {path.name: path.read_text() for path in out.iterdir()}


def test_what_is_written_and_printed(squares, tmp_path, capsys):
    squares()
    assert call(tmp_path / "out") == 0
    assert set(files(tmp_path / "out")) == {"results.json", "summary.md", "sums.txt"}
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["sums"] == [25, 26]
    assert results["call"] == {"name": "hyper-cleaning", "numbers": [3, 4], "seeds": 2, "seed": 0}
    assert "The last sum is 26." in (tmp_path / "out" / "summary.md").read_text()
    printed = capsys.readouterr().out
    assert "The last sum is 26." in printed
    assert str(tmp_path / "out" / "sums.txt") in printed


def test_the_folder_unless_given(squares, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    squares()
    assert main(["hyper-cleaning"]) == 0
    assert (tmp_path / "reproduced" / "hyper-cleaning" / "results.json").exists()


@pytest.mark.parametrize(
    ("options", "sums"),
    [
        (["--full"], [2500, 2501]),
        (["--seeds", "1"], [25]),
        (["--seed", "7"], [32, 33]),
    ],
)
def test_other_settings(squares, tmp_path, options, sums):
    squares()
    assert call(tmp_path / "out", *options) == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["sums"] == sums


def test_an_interrupted_run_goes_on_to_the_same_results(squares, tmp_path, capsys):
    squares()
    assert call(tmp_path / "whole") == 0
    first = squares(interrupt_at=1)
    assert call(tmp_path / "out") == 130
    again = f"go on with: python -m experiments hyper-cleaning --out {tmp_path}/out --resume\n"
    assert capsys.readouterr().err.endswith(again)
    assert set(names(tmp_path / "out")) == {".work"}
    assert first.computed == [0]
    assert call(tmp_path / "out") == 2
    assert "--resume" in capsys.readouterr().err
    second = squares()
    assert call(tmp_path / "out", "--resume") == 0
    assert second.computed == [1]
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def names(out):
    return [path.name for path in out.iterdir()]


def test_a_finished_run_is_shown_again_and_not_repeated(squares, tmp_path, capsys):
    squares()
    assert call(tmp_path / "out") == 0
    before = files(tmp_path / "out")
    again = squares()
    assert call(tmp_path / "out", "--resume") == 0
    assert again.computed == []
    assert files(tmp_path / "out") == before
    assert "is finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["is not empty", "--overwrite"]),
        (["--resume", "--seeds", "3"], ["--seeds 2, not 3"]),
        (["--resume", "--full"], ["--numbers 3 4, not 30 40"]),
        (["--resume", "--overwrite"], ["exclude each other"]),
        (["--seeds", "0"], ["--seeds is 0"]),
    ],
)
def test_refusals_are_one_line_and_change_nothing(squares, tmp_path, capsys, options, words):
    squares()
    assert call(tmp_path / "out") == 0
    before = files(tmp_path / "out")
    capsys.readouterr()
    assert call(tmp_path / "out", *options) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(word in said for word in words)
    assert files(tmp_path / "out") == before


def test_overwriting_replaces_the_results(squares, tmp_path):
    squares()
    assert call(tmp_path / "out") == 0
    assert call(tmp_path / "out", "--overwrite", "--seed", "5") == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["sums"] == [30, 31]


def test_a_failure_to_write_leaves_the_pieces(squares, tmp_path):
    broken = squares()
    experiment = broken.experiment()
    asked = Reproduce("hyper-cleaning", out=tmp_path / "out")

    def fail(results, folder):
        raise OSError("no space left")

    experiment.report.write = fail
    with pytest.raises(ArgumentError, match=r"no space left; fix that; .* with --resume"):
        runner.reproduce(experiment, Settings(), asked, Console())
    assert not (tmp_path / "out" / "results.json").exists()
    mended = squares()
    assert call(tmp_path / "out", "--resume") == 0
    assert mended.computed == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", "NAME"),
        ("cold-fusion", "'cold-fusion'"),
        ("chaos --sed 3", "Unrecognized options: --sed, 3 (perhaps --seed)"),
        ("chaos --seeds few", "Error parsing --seeds"),
        ("chaos --seed 4294967295 --seeds 2", "it must be at most 4294967295"),
        ("chaos --resume", "--resume: there is no run in --out reproduced/chaos"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("python -m experiments: ")
    assert said.count("\n") == 1
    assert not names(tmp_path)


def test_help_names_the_experiments(capsys):
    assert main(["--help"]) == 0
    assert "l2l-quadratic" in capsys.readouterr().out


NAMES = get_args(get_type_hints(Reproduce)["name"])


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_is_found_by_its_name(name):
    found = runner.find(name)
    assert isinstance(found.report, runner.Report)
    for settings in (found.DEFAULT, found.FULL, found.SMALL):
        assert isinstance(settings, runner.Repeated)
        assert found.total(settings) > 0


def test_the_program_is_interrupted_in_one_line_while_it_loads():
    call = [sys.executable, "-X", "importtime", "-m", "experiments", "chaos"]
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True) as process:
        assert any("numpy" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "\nInterrupted before anything was begun.\n" in said
    assert "Traceback" not in said


def test_the_arguments_are_checked_before_anything_is_imported():
    with pytest.raises(ArgumentError, match="--seed is -1"):
        runner.run(Reproduce("hyper-cleaning", seed=-1), Console())

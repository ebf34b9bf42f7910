"""`python -m experiments` with an experiment of a few numbers: folders, resuming, refusals."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.table import Table

from experiments import base, reproduce
from experiments.settings import Reproduce
from hindgrad.apps.cli import main
from hindgrad.apps.settings import ArgumentError


@dataclass(frozen=True)
class Settings:
    numbers: tuple[int, ...] = (3, 4)
    seeds: int = 2
    seed: int = 0


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

        seeds = range(settings.seed, settings.seed + settings.seeds)
        runs = [kept(f"seed-{s}/sum", lambda s=s: compute(s)) for s in seeds]
        line.done(len(runs))
        return {"sums": runs}

    def experiment(self):
        def table(results):
            shown = Table("seed", "sum")
            for i, total in enumerate(results["sums"]):
                shown.add_row(str(i), str(total))
            return shown

        return base.Experiment(
            name="squares",
            about="Sums of squares, from no paper.",
            default=Settings(),
            full=Settings(numbers=(30, 40)),
            small=Settings(seeds=1),
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
        monkeypatch.setattr(reproduce, "find", lambda name: squares.experiment())
        return squares

    return use


def call(out, *options):
    return main(["reproduce", "hyper-cleaning", "--out", str(out), *options])


def files(out):
    return {path.name: path.read_text() for path in out.iterdir()}


def test_what_is_written_and_printed(squares, tmp_path, capsys):
    squares()
    assert call(tmp_path / "out") == 0
    assert set(files(tmp_path / "out")) == {"results.json", "summary.md", "sums.txt"}
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["sums"] == [25, 26]
    assert results["call"] == {"name": "squares", "numbers": [3, 4], "seeds": 2, "seed": 0}
    assert "The last sum is 26." in (tmp_path / "out" / "summary.md").read_text()
    printed = capsys.readouterr().out
    assert "The last sum is 26." in printed
    assert str(tmp_path / "out" / "sums.txt") in printed


def test_the_folder_unless_given(squares, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    squares()
    assert main(["reproduce", "hyper-cleaning"]) == 0
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
    assert "python -m experiments hyper-cleaning" in capsys.readouterr().err
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
        reproduce.reproduce(experiment, Settings(), asked, Console())
    assert not (tmp_path / "out" / "results.json").exists()
    mended = squares()
    assert call(tmp_path / "out", "--resume") == 0
    assert mended.computed == []


def test_an_unknown_name_is_refused(capsys):
    assert main(["reproduce", "cold-fusion"]) == 2
    assert "cold-fusion" in capsys.readouterr().err


def test_an_experiment_is_found_by_its_name():
    assert reproduce.find("hyper-cleaning").name == "hyper-cleaning"


def test_the_arguments_are_checked_before_anything_is_imported():
    with pytest.raises(ArgumentError, match="--seed is -1"):
        reproduce.run(Reproduce("hyper-cleaning", seed=-1), Console())

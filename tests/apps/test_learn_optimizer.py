"""`hindgrad learn-optimizer` from end to end, with a small recipe."""

import csv
import shutil

import equinox as eqx
import numpy as np
import optax
import pytest

from hindgrad.apps.cli import main
from hindgrad.apps.optimizers import comparison as optimizer_comparison
from hindgrad.apps.optimizers import learn as module
from hindgrad.apps.optimizers import recipes
from hindgrad.apps.optimizers.comparison import Comparison
from hindgrad.apps.optimizers.recipes import Recipe
from hindgrad.apps.optimizers.settings import LearnOptimizer
from hindgrad.learned import (
    BASELINES,
    CoordinateLSTM,
    Quadratics,
    learned_curves,
    load,
)

OUTER = optax.adam(0.01)
RECIPE = Recipe(
    optimizer=CoordinateLSTM((2,), preprocess=None),
    family=Quadratics,
    iterations=6,
    outer=lambda iterations: OUTER,
    horizons=((0.0, 20), (0.5, 100)),
    settings={"steps": 100, "unroll": 10, "batch": 3, "evaluations": 5, "every": 2},
)
ARGUMENTS = [
    "learn-optimizer",
    "quadratic",
    "--steps",
    "4",
    "--unroll",
    "2",
    "--problems",
    "6",
    "--tuning",
    "7",
]
NAMES = ["learned", "SGD", "momentum"]


@pytest.fixture(autouse=True, scope="module")
def small():
    """A recipe, a grid and a choice of baselines for seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipes, "QUADRATIC", RECIPE)
        patch.setattr(module, "COARSE", (0.001, 0.01, 0.1))
        patch.setattr(optimizer_comparison, "BASELINES", BASELINES[:2])
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, uninterrupted."""
    out = tmp_path_factory.mktemp("finished") / "mine"
    assert main([*ARGUMENTS, "--out", str(out)]) == 0
    return out


def test_everything_is_written_and_nothing_else(finished):
    assert {path.name for path in finished.iterdir()} == set(module.FILES)


def test_the_file_is_the_optimizer_that_was_measured(finished, results):
    """Loaded again, it gives the curve in the results; its notes say how it was learned."""
    optimizer, weights, notes = load(finished / "optimizer.safetensors")
    assert eqx.tree_equal(optimizer, RECIPE.optimizer)
    chosen = {"iterations": 6, "steps": 4, "unroll": 2, "batch": 3, "seed": 0}
    assert chosen.items() <= notes.items()
    trained = load(finished / "optimizer.safetensors")
    key = Comparison(trained, Quadratics(), steps=4, problems=6, tuning=7, seed=0).key(1)
    curves = learned_curves(optimizer, weights, Quadratics(), key, count=6, steps=4)
    at = results["found"]["learned"]["at"]
    for step in (1, 2, 4):
        assert at[str(step)]["mean"] == pytest.approx(float(curves[:, step].mean()), rel=1e-5)
        median = float(np.median(curves[:, step]))
        assert at[str(step)]["median"] == pytest.approx(median, rel=1e-5)


def test_it_is_what_fit_learns(finished):
    trained = load(finished / "optimizer.safetensors")
    options = {"steps": 4, "unroll": 2, "horizons": (), "step_weights": None}
    result = RECIPE.fit(key=0, progress=False, **options)
    assert eqx.tree_equal(trained.weights, result.weights)
    assert trained.notes["held-out"] == pytest.approx(result.value)


def test_the_table_has_all_optimizers(finished, results):
    with (finished / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(results["found"]) == NAMES
    assert [(row["optimizer"], row["step"]) for row in rows] == [
        (name, step) for name in NAMES for step in ("1", "2", "4")
    ]
    for row in rows:
        assert (row["rate"] == "") == (row["optimizer"] == "learned")
        assert float(row["low"]) <= float(row["median"]) <= float(row["high"])


def test_what_is_printed(finished, tmp_path, capsys):
    out = tmp_path / "again"
    shutil.copytree(finished, out)
    assert main([*ARGUMENTS, "--out", str(out), "--resume"]) == 0
    printed = capsys.readouterr().out
    for expected in (
        "is finished",
        "quadratic: mean loss at step",
        "In the median, the learned optimizer is ",
        "On 6 problems that neither learning nor tuning saw",
        "Took the weights of iteration",
        "6 gradients of 3 problems",
        str(out / "optimizer.safetensors"),
    ):
        assert expected in printed


def test_an_interrupted_run_resumes_with_the_same_result(finished, tmp_path, monkeypatch):
    """Interrupted while learning, and again while comparing."""
    out = tmp_path / "mine"
    call = [*ARGUMENTS, "--out", str(out)]
    learn, tune, learned = module._learn, Comparison._baseline, []

    def interrupted(*arguments):
        raise KeyboardInterrupt

    def counted(*arguments):
        learned.append(1)
        return learn(*arguments)

    monkeypatch.setattr(module, "_learn", counted)
    with monkeypatch.context() as patch:
        patch.setattr(module, "save", interrupted)
        assert main(call) == 130
    monkeypatch.setattr(Comparison, "_baseline", interrupted)
    assert main([*call, "--resume"]) == 130
    monkeypatch.setattr(Comparison, "_baseline", tune)
    assert [path.name for path in out.iterdir()] == [".work"]
    assert main([*call, "--resume"]) == 0
    assert learned == [1, 1]
    assert (out / "table.csv").read_bytes() == (finished / "table.csv").read_bytes()
    ours, theirs = (load(folder / "optimizer.safetensors") for folder in (out, finished))
    assert eqx.tree_equal(ours.weights, theirs.weights)


def test_arguments_take_the_place_of_the_recipes():
    arguments = lambda **given: module.arguments(LearnOptimizer("quadratic", **given), RECIPE)
    assert arguments() == {}
    assert arguments(iterations=3, batch=2) == {"iterations": 3, "batch": 2}
    shorter = {"steps": 20, "horizons": (), "step_weights": None}
    assert arguments(steps=20) == shorter


REFUSED = [
    ("", "Missing from hindgrad learn-optimizer: FAMILY"),
    ("cubic", "invalid choice 'cubic'"),
    ("quadratic --iterations 0", "--iterations is 0; it must be at least 1"),
    ("quadratic --steps 1", "--steps is 1; it must be at least 2"),
    ("quadratic --steps 15", "--steps 15 is no multiple of --unroll 10"),
    ("quadratic --unroll 3", "--steps 100 is no multiple of --unroll 3"),
    ("quadratic --batch 0", "--batch is 0"),
    ("quadratic --problems 0", "--problems is 0"),
    ("quadratic --tuning 0", "--tuning is 0"),
    ("quadratic --seed -1", "--seed is -1"),
    ("quadratic --resume --overwrite", "--resume and --overwrite exclude each other"),
    ("quadratic --resume", "--resume: there is no run in --out"),
    ("quadratic --out full", "--out full is not empty"),
    ("quadratic --out full/mine.txt", "mine.txt is a file"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_cannot_be_done_is_said_in_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert main(["learn-optimizer", *arguments.split()]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert (said.err.startswith("hindgrad: "), said.err.count("\n"), said.out) == (True, 1, "")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]

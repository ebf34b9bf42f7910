"""`hindgrad compare-optimizers` from end to end, on small problems."""

import csv
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad.apps.cli import main
from hindgrad.apps.optimizers import compare as module
from hindgrad.apps.optimizers import comparison as optimizer_comparison
from hindgrad.apps.optimizers import outputs as optimizer_outputs
from hindgrad.apps.optimizers.comparison import Comparison, family
from hindgrad.apps.optimizers.settings import CompareOptimizers
from hindgrad.apps.settings import identity
from hindgrad.learned import (
    BASELINES,
    CoordinateLSTM,
    MLPs,
    Quadratics,
    Rosenbrock,
    optax_curves,
    save,
)
from hindgrad.learned.convnets import ConvNets

FEW = tuple(b for b in BASELINES if b.name in ("SGD", "momentum", "Adam"))
OPTIMIZER = CoordinateLSTM((2,))
CALL = ["--on", "quadratic", "--size", "2", "--steps", "6", "--problems", "9", "--tuning", "12"]


@pytest.fixture(autouse=True, scope="module")
def few():
    """Three baselines, for the time that the others take to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimizer_comparison, "BASELINES", FEW)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What hindgrad learn-optimizer leaves behind, as far as it matters."""
    folder = tmp_path_factory.mktemp("mine")
    shapes = jax.eval_shape(OPTIMIZER.weights, jax.random.key(0))
    weights = jax.tree.map(lambda s: jnp.full(s.shape, -0.1), shapes)
    save(folder / "optimizer.safetensors", OPTIMIZER, weights, {"steps": 4})
    return folder


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A finished comparison on quadratics."""
    out = tmp_path_factory.mktemp("finished") / "compared"
    assert main(["compare-optimizers", str(folder), *CALL, "--out", str(out)]) == 0
    return out


def test_everything_is_written_and_nothing_else(finished):
    assert {path.name for path in finished.iterdir()} == set(module.FILES)


def test_the_figures_are_those_of_the_tuned_rates(folder, finished, results):
    """Computed again, each by itself, from the rates in the table."""
    comparison = Comparison(
        module.read(module.find(str(folder))), Quadratics(2), steps=6, problems=9, tuning=12, seed=0
    )
    with (finished / "table.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["optimizer"] in ("SGD", "momentum")]
    assert [row["step"] for row in rows] == ["1", "2", "5", "6"] * 2
    for row in (rows[3], rows[6]):
        baseline = next(b for b in BASELINES if b.name == row["optimizer"])
        hyper = [float(row[name]) for name in ("rate", "decay") if row[name]]
        assert len(hyper) == 1 + bool(baseline.decays)
        curves = optax_curves(
            baseline.make(*hyper), Quadratics(2), comparison.key(1), count=9, steps=6
        )
        losses = np.asarray(curves)[:, int(row["step"])]
        assert float(row["mean"]) == pytest.approx(losses.mean(), rel=1e-4)
        assert float(row["median"]) == pytest.approx(np.median(losses), rel=1e-4)


def test_the_problems_compared_on_are_not_those_tuned_on(folder):
    trained = module.read(folder / "optimizer.safetensors")
    comparison = Comparison(trained, Quadratics(2), steps=6, problems=9, tuning=12, seed=0)
    keys = [jax.random.key_data(comparison.key(number)).tolist() for number in (0, 1)]
    assert keys[0] != keys[1]
    assert jax.random.key_data(jax.random.key(0)).tolist() not in keys


def test_what_is_printed(folder, finished, tmp_path, capsys):
    out = tmp_path / "again"
    shutil.copytree(finished, out)
    call = ["compare-optimizers", str(folder), *CALL, "--out", str(out)]
    assert main([*call, "--resume"]) == 0
    printed = capsys.readouterr().out
    for expected in (
        "is finished",
        "quadratic, size 2: median loss at step",
        "Adam",
        "In the mean, the learned optimizer is ",
        "best in the mean over 12 problems",
        str(out / "curves.png"),
    ):
        assert expected in printed
    assert main([*call[:-2], "--out", str(out), "--steps", "7", "--resume"]) == 2
    assert "begun with --steps 6, not 7" in capsys.readouterr().err


def test_an_interrupted_run_resumes_with_the_same_result(folder, finished, tmp_path, monkeypatch):
    out = tmp_path / "compared"
    call = ["compare-optimizers", str(folder), *CALL, "--out", str(out)]
    tune, seen = Comparison._baseline, []

    def interrupted(self, baseline, line):
        seen.append(baseline.name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return tune(self, baseline, line)

    monkeypatch.setattr(Comparison, "_baseline", interrupted)
    assert main(call) == 130
    assert main([*call, "--resume"]) == 0
    assert seen == ["SGD", "momentum", "Adam", "Adam"]
    assert (out / "table.csv").read_bytes() == (finished / "table.csv").read_bytes()


def found(ours, theirs):
    """Results with these means and medians at steps 10 and 20."""
    one = lambda values: {
        "at": {
            step: {"mean": value, "median": value, "rate": 0.1, "decay": None}
            for step, value in zip(("10", "20"), values, strict=True)
        },
        "note": "",
    }
    return {"learned": one(ours), "SGD": one((5.0, 4.0)), "Adam": one(theirs)}


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ((1.0, 1.0), (2.0, 2.0), "is below every tuned optimizer at all of the steps 10 and 20"),
        ((1.0, 3.0), (2.0, 2.0), "is below every tuned optimizer at 10, but not at 20"),
        ((3.0, 3.0), (2.0, 2.0), "is below the best tuned optimizer at none of the steps"),
        ((3.0, 1.0), (2.0, 2.0), "At 20 it is 1, Adam 2 (ratio 0.5)"),
        ((3.0, None), (2.0, 2.0), "At 20 it diverges, Adam 2."),
        ((3.0, 3.0), (2.0, None), "At 20 it is 3, SGD 4 (ratio 0.75)"),
    ],
)
def test_the_words_say_which_is_better(ours, theirs, words):
    assert words in optimizer_outputs.summary(found(ours, theirs), 3, 4)[0]


def test_families_are_what_was_asked_for():
    assert family("quadratic", size=3) == Quadratics(3)
    assert family("rosenbrock") == Rosenbrock(2)
    mlps = family("mlp", data="digits", hidden=4, layers=2, activation="relu", batch=7)
    assert isinstance(mlps, MLPs)
    assert (mlps.hidden, mlps.activation, mlps.batch) == ((4, 4), jax.nn.relu, 7)
    nets = family("conv", data="digits", batch=7)
    assert isinstance(nets, ConvNets)
    assert (nets.images.x.shape[1:], nets.batch) == ((1, 8, 8), 7)
    digits = family("logistic", data="digits")
    for made in (mlps, nets, digits):
        value = lambda key, made=made: made(key)[1](made(key)[0], key)
        assert jax.eval_shape(value, jax.random.key(0)).shape == ()


REFUSED = [
    ("mine", "Missing from hindgrad compare-optimizers: --on FAMILY"),
    ("mine --on cubic", "invalid choice 'cubic' for argument '--on'"),
    ("nothing --on quadratic", "nothing: no such folder or file, and no optimizer that comes with"),
    ("empty --on quadratic", "empty: there is no optimizer.safetensors in this folder"),
    ("begun --on quadratic", "begun: the learning in this folder is not finished; go on with"),
    ("damaged.safetensors --on quadratic", "damaged.safetensors: not readable as safetensors"),
    ("mine --on quadratic --steps 0", "--steps is 0; it must be at least 1"),
    ("mine --on rosenbrock --size 1", "--size is 1; it must be at least 2"),
    ("mine --on quadratic --problems 0", "--problems is 0"),
    ("mine --on quadratic --tuning 0", "--tuning is 0"),
    ("mine --on quadratic --hidden 3", "--hidden is for mlp, not for --on quadratic; leave it"),
    ("mine --on rosenbrock --data digits", "--data is for logistic and mlp and conv, not for"),
    ("mine --on mlp --hidden 0", "--hidden is 0"),
    ("mine --on mlp --data nothing", "--data nothing: there is no built-in data set 'nothing'"),
    ("mine --on mlp --data phoneme", "--data phoneme: 'phoneme' may not be redistributed"),
    ("mine --on conv --data digits --size 3", "--data digits --size 3: "),
    ("mine --on mlp --activation sine", "invalid choice 'sine' for argument '--activation'"),
    ("mine --on quadratic --resume --overwrite", "--resume and --overwrite exclude each other"),
    ("mine --on quadratic --resume", "--resume: there is no run in --out"),
    ("mine --on quadratic --out empty/../mine", "is not empty"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_cannot_be_done_is_said_in_one_line(
    folder, tmp_path, monkeypatch, capsys, arguments, message
):
    shutil.copytree(folder, tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun" / ".work").mkdir(parents=True)
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HINDGRAD_DATA", raising=False)
    before = sorted(tmp_path.rglob("*"))
    assert main(["compare-optimizers", *arguments.split()]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert (said.err.startswith("hindgrad: "), said.err.count("\n"), said.out) == (True, 1, "")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_arguments_that_decide_are_remembered():
    call = identity(CompareOptimizers("mine", "quadratic"))
    assert {"on", "steps", "problems", "tuning", "seed", "size"} <= set(call)
    assert not {"out", "resume", "overwrite"} & set(call)

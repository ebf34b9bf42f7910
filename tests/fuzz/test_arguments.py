"""Random odd arguments of the commands: a run begins, or one clear line says why not.

HINDGRAD_FUZZ_CASES=5000 tries as many.
"""

import io
import json
import os
import shutil
from contextlib import redirect_stderr, redirect_stdout

import hypothesis.strategies as st
import jax
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, seed, settings

from conftest import SEED
from hindgrad.apps.clean import command as clean
from hindgrad.apps.clean.suspicion import cleaning
from hindgrad.apps.cli import main
from hindgrad.apps.distill import command as distill
from hindgrad.apps.optimizers import compare as compare_optimizers
from hindgrad.apps.optimizers import learn as learn_optimizer
from hindgrad.apps.tune import command as tune
from hindgrad.apps.tune.hyperfile import every_step

CASES = int(os.environ.get("HINDGRAD_FUZZ_CASES", "100"))

TEXTS = ["", " ", "-1", "0", "1", "2", "3", "10", "40", "0.5", "1e-3", "1e3", "nan", "inf", "-inf"]
TEXTS += ["2147483647", "2147483648", "4294967295", "4294967296", "9" * 20, "9" * 400, "0x10"]
TEXTS += ["1_000", "١", "é", "\n", "a\nb", "--", "-", "None", "True", "[red]", "[/x]", "label"]
TEXTS += ["good.csv", "nothing.csv", "full", "hyper.json", "table[red].csv", "/dev/null", "/proc/x"]
TEXTS += [
    "digits",
    "x" * 300,
    "out",
    "broken.json",
    "spline",
    "linear",
    "b",
    "kind",
    "\x1b[31m",
    ".",
]

OPTIONS = {
    "tune": "--steps --seed --hidden --test --valid --label --task --drop --rows --batch "
    "--schedule --knots --steps-outer --seeds --from --searches --no-searches",
    "clean": "--steps --seed --hidden --label --task --drop --trusted --remove --steps-outer "
    "--repeats",
    "distill": "--steps --seed --hidden --test --valid --label --task --drop --rows --per-class "
    "--steps-outer",
    "learn-optimizer": "--iterations --steps --unroll --batch --problems --tuning --seed",
    "compare-optimizers": "--steps --problems --tuning --size --hidden --layers --activation "
    "--batch --seed",
}
BEGINNINGS = {
    "tune": [["good.csv", "--batch", "8"], ["target.csv", "--batch", "4"], ["table[red].csv"], []],
    "clean": [["good.csv"], ["target.csv"], ["table[red].csv"]],
    "distill": [["good.csv"], ["target.csv"]],
    "learn-optimizer": [["quadratic"]],
    "compare-optimizers": [["quadratic", "--on", on] for on in ("quadratic", "rosenbrock", "mlp")],
}


class BegunError(Exception):
    """A run would begin: everything was checked."""


def tune_begins(settings, call, compared, studies, work):
    network, begin = compared.network, compared.begin
    problem = compared.problem(network, settings.seed)
    jax.random.key(settings.seed + settings.seeds - 1)
    if network.steps < 10_000:
        for values in every_step(begin, network).values():
            assert np.isfinite(values).all()
    assert 1 <= network.batch <= len(problem.division.train_slots)
    assert bool(compared.rivals) == settings.rivals
    json.dumps(call)
    raise BegunError


def clean_begins(settings, call, table, rows, work):
    learner = clean._learner(settings, table)
    problem = cleaning(rows.x, rows.y, rows.trusted, learner)
    assert np.isfinite(problem.x).all()
    assert np.isfinite(problem.say).all()
    assert 0 <= len(table.y) - round((settings.remove or 0) * len(table.y)) <= len(table.y)
    jax.random.key(settings.seed)
    raise BegunError


def distill_begins(settings, table, prepared, work):
    assert all(np.isfinite(rows.x).all() for rows in prepared.parts)
    counts = np.bincount(np.asarray(prepared.parts.train.y))
    assert counts.min() >= settings.per_class >= 1
    jax.random.key(settings.seed)
    raise BegunError


def learn_begins(settings, recipe, chosen, problems, work):
    assert (settings.iterations or 1) >= 1
    raise BegunError


def compare_begins(settings, trained, problems, options, work):
    raise BegunError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with good tables, in which the commands run up to the first computation."""
    folder = tmp_path_factory.mktemp("arguments")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(40, 2)), columns=["a", "b"])
    for name in ("good.csv", "table[red].csv"):
        frame.assign(label=np.arange(40) % 2).to_csv(folder / name, index=False)
    frame.assign(target=rng.normal(size=40)).to_csv(folder / "target.csv", index=False)
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("mine")
    (folder / "broken.json").write_text("{")
    hyper = {"rate": [[0.1]] * 4, "decay": [[0.9]] * 4, "weight_decay": [0.1], "scale": [1.0]}
    schedule = {"kind": "spline", "knots": 4}
    (folder / "hyper.json").write_text(json.dumps({"hyper": hyper, "schedule": schedule}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("HINDGRAD_DATA", raising=False)
        patch.setattr(tune, "_results", tune_begins)
        patch.setattr(clean, "_results", clean_begins)
        patch.setattr(distill, "_results", distill_begins)
        patch.setattr(learn_optimizer, "_results", learn_begins)
        patch.setattr(compare_optimizers, "_results", compare_begins)
        patch.setattr(compare_optimizers, "family", lambda *_, **__: None)
        yield folder


@st.composite
def calls(draw):
    command = draw(st.sampled_from(list(OPTIONS)))
    call = [command, *draw(st.sampled_from(BEGINNINGS[command]))]
    options = [*OPTIONS[command].split(), "--out"]
    for option in draw(st.lists(st.sampled_from(options), max_size=3)):
        call.append(option)
        call += draw(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=1))
    return call + draw(st.sampled_from([[], [], [], ["--resume"], ["--overwrite"], ["--odd"]]))


@seed(SEED)
@settings(max_examples=CASES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(call=calls())
def test_arguments(folder, call):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    said, printed = io.StringIO(), io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(printed):
            code = main(call)
    except BegunError:
        begun = set(folder.rglob("*")) - set(before)
        assert any(path.name == "call.json" for path in begun)
        for path in sorted(begun):
            if path.is_dir() and path.exists():
                shutil.rmtree(path)
        return
    assert code == 2, call
    line = said.getvalue()
    assert line.startswith("hindgrad: ")
    assert line.endswith("\n")
    assert line[:-1].isprintable(), line
    assert printed.getvalue() == ""
    # A folder that was made in vain may stay.
    new = {path for path in folder.rglob("*") if path not in before}
    assert all(path.is_dir() for path in new)
    for path in sorted(new, reverse=True):
        path.rmdir()
    assert all(path.exists() for path in before)

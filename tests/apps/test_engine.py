"""Parts of a run in other processes: the same pieces, whatever happens to a worker."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import joblib
import numpy as np
import pandas as pd
import psutil
import pytest
from distributed import Client, LocalCluster
from rich.console import Console

from experiments import runner
from experiments.attribution import attribution_choose
from experiments.franceschi2017 import modes
from experiments.maclaurin2015 import chaos, schedules
from experiments.settings import Reproduce
from hindgrad.apps.clean import command as clean
from hindgrad.apps.clean import weighing
from hindgrad.apps.clean.settings import Clean
from hindgrad.apps.cli import main
from hindgrad.apps.engine import Engine
from hindgrad.apps.settings import ArgumentError, check_engine
from hindgrad.apps.tune import command as tune
from hindgrad.apps.tune import seeds
from hindgrad.apps.tune.settings import Tune
from hindgrad.apps.work import Work


def piece(number, work, wait=0.0):
    """Who computed it, and when it began."""
    there = sorted(path.stem for path in work.folder.glob("*.json"))
    work.kept(f"seed-{number}/one", lambda: {"there": there, "process": os.getpid()})
    time.sleep(wait)


def computed(folder, engine, count=3, **options):
    work = Work(folder)
    work.folder.mkdir(parents=True)
    work.kept("before", lambda: 1)
    engine.compute([partial(piece, number, **options) for number in range(count)], work)
    return work


def pieces(work):
    paths = sorted(work.folder.glob("seed-*/one.json"))
    return [json.loads(path.read_text()) for path in paths]


def test_pieces_come_back(tmp_path):
    """Those that are there already go along, and come back no more."""
    work = computed(tmp_path / "a", Engine("loky"))
    found = pieces(work)
    assert [one["there"] for one in found] == [["before"]] * 3
    assert os.getpid() not in {one["process"] for one in found}
    before = {path: path.stat().st_mtime_ns for path in work.folder.rglob("*.json")}
    Engine("loky").compute([partial(piece, 0)], work)
    assert {path: path.stat().st_mtime_ns for path in work.folder.rglob("*.json")} == before


def test_without_an_engine_nothing_is_done(tmp_path):
    assert pieces(computed(tmp_path, Engine())) == []


def test_the_backend_of_joblib(tmp_path):
    with joblib.parallel_config("threading", n_jobs=2):
        assert len(pieces(computed(tmp_path, Engine()))) == 3


@pytest.fixture
def cluster():
    """A Dask cluster of two workers on this machine."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL
    ) as cluster:
        yield cluster


def kill_one(cluster):
    """Kills a worker that is at work, and returns its process."""
    with Client(cluster.scheduler_address) as client:
        while not any(client.processing().values()):
            time.sleep(0.05)
        busy = next(worker for worker, tasks in client.processing().items() if tasks)
        process = client.scheduler_info(n_workers=-1)["workers"][busy]["id"]
    worker = cluster.workers[process]
    os.kill(worker.pid, signal.SIGKILL)
    return worker.pid


def test_a_worker_is_killed(tmp_path, cluster):
    engine = Engine("dask", cluster.scheduler_address)
    with ThreadPoolExecutor(1) as threads:
        killed = threads.submit(kill_one, cluster)
        work = computed(tmp_path, engine, count=4, wait=1.5)
    assert len(pieces(work)) == 4
    assert killed.result() not in {one["process"] for one in pieces(work)}


def test_no_cluster_answers(tmp_path):
    with pytest.raises(ArgumentError, match=r"--address tcp://127\.0\.0\.1:9: no Dask scheduler"):
        computed(tmp_path, Engine("dask", "tcp://127.0.0.1:9"))


def test_arguments(monkeypatch):
    with pytest.raises(ArgumentError, match="give --engine dask"):
        check_engine("loky", "tcp://127.0.0.1:8786")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match="pip install"):
        check_engine("dask", None)


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "flowers.csv"
    rng, kinds = np.random.default_rng(0), np.arange(60) % 3
    rows = rng.normal(size=(60, 3)) + kinds[:, None]
    frame = pd.DataFrame(rows, columns=["a", "b", "c"]).assign(kind=np.array(list("xyz"))[kinds])
    frame.to_csv(path, index=False)
    return str(path)


FEW = {"steps": 12, "steps_outer": 2, "hidden": (4,)}
TUNED = {"seeds": 2, "searches": False, "rivals": False, "test": 0.3}


def found(command, settings, folder, **options):
    command.run(settings(out=folder, **FEW, **options), Console(quiet=True))
    return json.loads((folder / "results.json").read_text())


def not_here(*_, **__):
    raise AssertionError("this was to be computed in another process")


@pytest.mark.parametrize(
    ("command", "settings", "more", "work"),
    [
        (tune, Tune, TUNED, (seeds, "_tune")),
        pytest.param(clean, Clean, {"repeats": 2}, (weighing, "learn"), marks=pytest.mark.slow),
    ],
    ids=["tune", "clean"],
)
def test_the_same_results(tmp_path, monkeypatch, flowers, command, settings, more, work):
    run = partial(found, command, settings, data=flowers, label="kind", **more)
    here = run(tmp_path / "here")
    monkeypatch.setattr(*work, not_here)
    assert run(tmp_path / "elsewhere", engine="loky") == here


@pytest.mark.slow
def test_an_experiment(tmp_path, monkeypatch):
    """Its seeds come from other processes."""
    settings = replace(attribution_choose.SMALL, seeds=2)
    asked = Reproduce("attribution-choose", out=tmp_path / "here")
    runner.reproduce(attribution_choose, settings, asked, Console(quiet=True))
    monkeypatch.setattr(attribution_choose, "trained_on", not_here)
    elsewhere = replace(asked, out=tmp_path / "elsewhere", engine="loky")
    runner.reproduce(attribution_choose, settings, elsewhere, Console(quiet=True))
    here, there = (tmp_path / name / "results.json" for name in ("here", "elsewhere"))
    assert here.read_text() == there.read_text()


@pytest.mark.parametrize("experiment", [chaos, schedules, modes], ids=lambda e: e.__name__)
def test_an_experiment_whose_pieces_are_not_of_single_seeds(tmp_path, experiment):
    """They depend on the first seed, say: other processes would compute other ones."""
    asked = Reproduce("chaos", out=tmp_path / "out", engine="loky")
    with pytest.raises(ArgumentError, match="--engine: chaos is not made of seeds"):
        runner.reproduce(experiment, experiment.SMALL, asked, Console(quiet=True))
    assert not (tmp_path / "out").exists()


HEARD = """
import signal, sys
from hindgrad.apps.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & has it ignored
sys.exit(main(sys.argv[1:]))
"""


def test_an_interruption(tmp_path, flowers):
    """Ends soon, leaves no process behind, and the run goes on from there."""
    out = tmp_path / "out"
    call = ["tune", flowers, "--label", "kind", "--out", str(out), "--steps", "12"]
    call += ["--steps-outer", "2", "--hidden", "4", "--seeds", "2", "--no-searches", "--no-rivals"]
    command = [sys.executable, "-c", HEARD, *call, "--engine", "loky"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    parent = psutil.Process(process.pid)
    while len(children := parent.children(recursive=True)) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted; go on with: hindgrad tune" in said
    assert "Traceback" not in said
    assert psutil.wait_procs(children, timeout=10)[1] == []
    assert main([*call, "--resume"]) == 0


@pytest.mark.slow
def test_a_worker_is_killed_while_tuning(tmp_path, flowers, cluster):
    run = partial(found, tune, Tune, data=flowers, label="kind", **TUNED)
    where = {"engine": "dask", "address": cluster.scheduler_address}
    with ThreadPoolExecutor(1) as threads:
        killed = threads.submit(kill_one, cluster)
        elsewhere = run(tmp_path / "elsewhere", **where)
    assert killed.result()
    assert elsewhere == run(tmp_path / "here")

"""Two processes of two devices each, which talk by gloo as two machines would."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "two_processes.py"


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return str(free.getsockname()[1])


@contextmanager
def begun(*what):
    """The two processes."""
    port = free_port()
    command = [sys.executable, str(SCRIPT)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*command, rank, port, *what], **pipes) for rank in "01"]
    try:
        yield both
    finally:
        for process in both:
            process.kill()
            process.communicate()


def together(*what):
    """What the two processes print, line by line, and what they say on standard error."""
    with begun(*what) as both:
        said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    return [_by_name(out) for out, _ in said], [error for _, error in said]


def _by_name(text):
    return {
        name: (result, int(s))
        for name, result, s in re.findall(r"([\w ]+): (.*) \[(\d+) s\]", text)
    }


def on_one_device():
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(16, 4)), jnp.float32)
    training = hg.Training(
        lambda p, h, batch: jnp.mean((batch.data @ p - 1) ** 2) + h["l2"] * jnp.sum(p**2),
        optimizer=hg.Momentum(lambda h, t: h["rate"], 0.9),
        batches=hg.minibatches(rows, size=8, key=0),
        steps=5,
    )
    score = lambda p, h, key: jnp.mean((rows @ p - 1) ** 2)
    return hg.Objective(training, init=jnp.ones(4), score=score), {"l2": 0.01, "rate": 0.1}


def test_values_are_those_of_one_device():
    results, errors = together("values")
    assert {name: r for name, (r, _) in results[0].items()} == {
        name: r for name, (r, _) in results[1].items()
    }
    objective, hyper = on_one_device()
    value, gradient = jax.value_and_grad(objective)(hyper)
    tuned = hg.tune(objective, hyper, optax.adam(0.01), steps=2, progress=False).hyper
    expected = {"Checkpointed": (value, gradient), "Reversible": (value, gradient), "tune": tuned}
    for name, tree in expected.items():
        found = np.array(results[0][name][0].split(), float)
        np.testing.assert_allclose(found, np.asarray(jax.tree.leaves(tree)), rtol=1e-4)
    assert "%" in errors[0]  # of the bar
    assert "%" not in errors[1]


def test_checkpoints_are_written_by_both(tmp_path):
    """And gone on with by both, with the same numbers; what the first refuses, both do."""
    results, _ = together("keeps", str(tmp_path))
    assert {name: r for name, (r, _) in results[0].items()} == {
        name: r for name, (r, _) in results[1].items()
    }
    found = {name: result for name, (result, _) in results[0].items()}
    assert found["stopped"].startswith("raised Stopped")
    assert found["resumed"] == found["whole"]
    assert np.all(np.isfinite(np.array(found["whole"].split(), float)))
    assert found["fit stopped"].startswith("raised Stopped")
    assert found["fit again"] == found["fit"]
    assert np.all(np.isfinite(np.array(found["fit"].split(), float)))
    assert "belongs to a call with another `optimizer`" in found["other"]
    objective, hyper = on_one_device()
    value, gradient = jax.value_and_grad(objective)(hyper)
    expected = np.asarray(jax.tree.leaves((value, gradient)))
    for name in ("memory", "disk", "again"):
        np.testing.assert_allclose(np.array(found[name].split(), float), expected, rtol=1e-4)


def test_each_reads_its_own_rows_of_a_stream():
    """And a failure of one is that of both, as is a loader that gives them different batches."""
    results, _ = together("reads")
    objective, hyper = on_one_device()
    value, gradient = jax.value_and_grad(objective)(hyper)
    expected = np.asarray(jax.tree.leaves((value, gradient)))
    for found in results:
        for name in ("split", "whole", "after"):
            np.testing.assert_allclose(np.array(found[name][0].split(), float), expected, rtol=1e-4)
        assert 0 < int(found["count"][0]) <= 3 * 5 * 4  # of 8 rows a step
        assert "a disk is gone" in found["failed"][0]
        assert "The processes read other rows for steps 0 to 4" in found["others"][0]
    assert results[0]["count"] == results[1]["count"]
    assert "On process 1: Row" in results[0]["failed"][0]


def test_the_program_in_the_docs(tmp_path):
    """It says the same in two processes and alone."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "devices.md").read_text(), re.S)
    (program,) = (block for block in blocks if '"RANK" in os.environ' in block)
    script = tmp_path / "train.py"
    script.write_text(program)
    address = f"localhost:{free_port()}"
    begin = lambda **more: subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=os.environ | more
    )
    both = [begin(RANK=rank, COORDINATOR=address) for rank in "01"]
    said = [process.communicate(timeout=120)[0] for process in [*both, begin()]]
    assert re.fullmatch(r"(.*\n)*value [\d.]+, hypergradient [-\d.]+\n", said[2])
    assert said[0].splitlines()[-1] == said[1].splitlines()[-1] == said[2].splitlines()[-1]


@pytest.mark.parametrize(
    ("number", "ended"), [(signal.SIGTERM, 0), (signal.SIGKILL, 1)], ids=["SIGTERM", "SIGKILL"]
)
def test_when_one_is_ended_the_other_ends(number, ended):
    """In the middle of a tuning, with an error."""
    with begun("ends") as both:
        for process in both:
            assert any(line == "step\n" for line in process.stdout)
        both[ended].send_signal(number)
        assert both[ended].wait(60) == -number
        assert both[1 - ended].wait(60) != 0


def test_failures_reach_both():
    results, _ = together("fails")
    for found in results:
        assert found["run"][0].startswith("raised RunError: Reversible: params left the range")
        assert "Reversible: params left the range" in found["gradient"][0]
        assert "nan" not in found["status"][0]
        assert found["callback"][0].startswith("raised ValueError: The loss or the batches call")
        assert not found["after"][0].startswith("raised")
        assert max(seconds for _, seconds in found.values()) < 60

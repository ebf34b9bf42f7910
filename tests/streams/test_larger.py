"""A data set larger than the memory that a process may use."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hindgrad as hg
from tests.streams import larger

ROOT = Path(__file__).parents[2]
ROWS = 60_000
ALLOWED = 96 * 2**20
"""Bytes, beside what a run on a small file takes."""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """246 MB of noise."""
    path = tmp_path_factory.mktemp("large") / "rows"
    draw = np.random.default_rng(0)
    with path.open("wb") as out:
        for _ in range(0, ROWS, 5000):
            out.write(draw.normal(size=(5000, larger.WIDTH)).astype(np.float32).tobytes())
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def wanted(file):
    """The same with the data in memory."""
    data = np.fromfile(file, np.float32).reshape(ROWS, larger.WIDTH)
    batches = hg.minibatches(data, size=larger.SIZE, key=0)
    return larger.objective(batches).hypergradient(larger.HYPER, adjoint=hg.Stored())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("adjoint", larger.ADJOINTS)
def test_a_file_larger_than_memory(file, wanted, adjoint):
    assert file.stat().st_size > 2 * ALLOWED
    assert 6 * larger.BATCH * larger.STEPS / larger.SEGMENTS < ALLOWED  # what is stated
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "src")])
    process = subprocess.run(
        [sys.executable, "-m", "tests.streams.larger", str(file), adjoint, str(ALLOWED)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path, "MALLOC_ARENA_MAX": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    value, rate, weight = json.loads(process.stdout)
    np.testing.assert_allclose(value, wanted.value, rtol=1e-5)
    np.testing.assert_allclose(rate, wanted.gradient["rate"], rtol=1e-4)
    np.testing.assert_allclose(weight, wanted.gradient["weight"], rtol=1e-3, atol=1e-9)

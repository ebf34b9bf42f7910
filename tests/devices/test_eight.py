"""What runs on eight devices, in processes of its own: their number is set at the start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "eight"
PAGES = Path(__file__).parents[1] / "test_docs.py"
DEVICES = "--xla_force_host_platform_device_count=8"


@pytest.mark.parametrize("name", sorted(path.stem for path in HERE.glob("test_*.py")))
def test_on_eight_devices(name):
    check(f"{HERE / name}.py")


def test_the_page_about_devices():
    check(f"{PAGES}::test_examples")


def check(tests):
    """Runs tests in a process with eight devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests]
    done = subprocess.run(
        command, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout

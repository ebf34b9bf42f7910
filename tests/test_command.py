"""The command while it is loading."""

import os
import signal
import subprocess
import sys

import pytest

SLOW = """
import time
print("loading", flush=True)
try:
    time.sleep(60)
except BaseException:  # as an import may swallow an interruption
    time.sleep(60)
"""

QUICK = """
import signal

def main():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return 3
"""


@pytest.fixture
def started(tmp_path):
    """Starts the command with another program in the place of the package."""
    (tmp_path / "hindgrad" / "apps").mkdir(parents=True)
    (tmp_path / "hindgrad" / "__init__.py").touch()

    def start(program):
        (tmp_path / "hindgrad" / "apps" / "cli.py").write_text(program)
        call = [sys.executable, "-m", "hindgrad_command"]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        pipe = subprocess.PIPE
        return subprocess.Popen(call, stdout=pipe, stderr=pipe, text=True, env=environment)

    return start


def test_an_interruption_while_loading_is_one_line(started):
    with started(SLOW) as process:
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == "\nInterrupted before anything was begun.\n"


def test_its_exit_code_is_that_of_the_command_line(started):
    with started(QUICK) as process:
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (3, "")

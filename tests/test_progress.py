"""The progress line: on standard error, and never in the way of the answer."""

import os
import subprocess
import sys
import time

import pytest

from hindgrad.progress import Bar

PROGRAM = """
import sys
from hindgrad.progress import Bar

with Bar(3, "tuning", shown=True) as bar:
    for i in range(3):
        bar.note("a line of its own")
        bar.show(i + 1, "value")
        with bar.paused():
            pass
open(sys.argv[1], "w").write("the answer")
"""


def test_on_standard_error(capsys):
    with Bar(3, "tuning", shown=True) as bar:
        bar.show(3, "value 1")
    shown = capsys.readouterr()
    assert "3/3" in shown.err
    assert not shown.out
    with Bar(3, "tuning", shown=False) as bar:
        bar.show(3, "value 1")
    assert not capsys.readouterr().err


@pytest.mark.parametrize("terminal", [False, True])
def test_nobody_need_listen(tmp_path, terminal):
    """Both streams lead into a closed pipe."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "answer")],
            stdout=writing,
            stderr=writing,
            env=os.environ | ({"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"} if terminal else {}),
            check=False,
        )
    finally:
        os.close(writing)
    assert done.returncode == 0
    assert (tmp_path / "answer").read_text() == "the answer"


def test_without_standard_error(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    with Bar(3, "tuning", shown=True) as bar:
        bar.show(3, "value 1")
    assert sys.stderr is None  # and nothing was raised


def test_only_in_a_terminal_unless_asked_for(capsys, monkeypatch):
    """Of itself it is shown in a terminal, and nothing of it stays."""
    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal)
        with Bar(3) as bar:
            bar.stage("seed 0")
            bar.done(2)
            with bar.paused():
                pass
        assert bar.shown is (True if terminal else None)
        shown = capsys.readouterr()
        assert ("seed 0" in shown.err) is terminal
        assert not shown.out


def test_a_line_now_and_then_in_a_log(capsys, monkeypatch):
    """With the time left as far as the work tells; names with brackets are printed as they are."""
    now = [0.0]
    monkeypatch.setattr("hindgrad.progress.time.monotonic", lambda: now[0])
    with Bar(100) as bar:
        for i in range(50):
            now[0] += 2.0
            bar.stage(f"seed [{i}]")
            bar.done(1)
            if i == 3:
                bar.note("kept in [folder]")
        with bar.paused(), Bar(10, "tuning", shown=bar.shown) as inner:
            inner.show(1)
            now[0] += 31.0
            inner.show(5, "value 1")
    shown = capsys.readouterr().err.splitlines()
    assert shown == [
        "kept in [folder]",
        "14% 0:03:04 left · seed [14]",
        "29% 0:02:27 left · seed [29]",
        "44% 0:01:55 left · seed [44]",
        "50% 0:00:31 left · tuning 5/10: value 1",
    ]


def test_a_line_though_nothing_more_is_done(capsys, monkeypatch):
    """While one piece of the work takes long; none while another bar has its place, or after."""
    now = [0.0]
    monkeypatch.setattr("hindgrad.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr("hindgrad.progress.LOOKS", 0.01)

    def later(count):
        """What is shown after half a minute: so many lines, as soon as they are there."""
        now[0] += 31.0
        lines, end = [], time.perf_counter() + (5 if count else 0.1)
        while time.perf_counter() < end and len(lines) < max(count, 1):
            time.sleep(0.01)
            lines += capsys.readouterr().err.splitlines()
        return lines

    with Bar(4) as bar:
        bar.stage("a seed")
        bar.done(1)
        assert later(1) == ["25% 0:01:33 left · a seed"]
        with bar.paused():
            assert not later(0)
        assert later(1) == ["25% 0:04:39 left · a seed"]
    assert not later(0)

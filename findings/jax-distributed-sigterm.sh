#!/usr/bin/env bash
# jax 0.10.1: after `jax.distributed.initialize`, SIGTERM no longer ends a process: JAX's preemption service, on by
# default, takes the signal for a notice that `multihost_utils.reached_preemption_sync_point` reports to who asks. A
# program that does not ask runs on to its end and exits with 0, where a scheduler that has sent SIGTERM sends
# SIGKILL some time later. With `jax_enable_preemption_service` off, SIGTERM ends it as it ends any Python program.
#
# Seen: service on: exit code 0, after 'went on'; off: exit code -15, after ''
source "$(dirname "$0")/environment.sh"
environment jax==0.10.1 jaxlib==0.10.1
python - <<'PYTHON'
import signal
import socket
import subprocess
import sys

PROGRAM = """
import sys, time, jax
jax.config.update("jax_enable_preemption_service", sys.argv[2] == "on")
jax.distributed.initialize("localhost:" + sys.argv[1], 1, 0)
print("begun", flush=True)
time.sleep(5)
print("went on", flush=True)
"""


def ended_by_sigterm(service):
    """The exit code of a process of one, and what it said after the signal."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", PROGRAM, port, service]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0].strip()
    return process.returncode, said


on, off = ended_by_sigterm("on"), ended_by_sigterm("off")
print(f"service on: exit code {on[0]}, after {on[1]!r}; off: exit code {off[0]}, after {off[1]!r}")
assert on == (0, "went on"), "SIGTERM ends it now"
assert off == (-signal.SIGTERM, "")
PYTHON

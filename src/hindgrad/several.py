"""Where several processes run one program together: what they agree on, and what is impossible."""

import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from hindgrad.jaxprs import equations

SAID = 2000
"""So many bytes of a message are told to the others."""
RAISED = (ModuleNotFoundError, ValueError, RuntimeError, OSError)
"""The kinds of errors that all processes raise as they are."""


def agreed(action: Callable[[], Any]) -> Any:
    """What an action on the first process returns, on all of them: something that JSON can hold.
    What it raises there is raised on all."""
    if jax.process_count() == 1:
        return action()
    if jax.process_index() > 0:
        return _opened(_from_first(b""))
    error = None
    try:
        said = {"result": action()}
    except Exception as raised:
        kind = next((i for i, kind in enumerate(RAISED) if isinstance(raised, kind)), 2)
        said, error = {"kind": kind, "message": str(raised)}, raised
    _from_first(json.dumps(said).encode())
    if error is not None:
        raise error
    return said["result"]


def _opened(text):
    said = json.loads(text)
    if "message" in said:
        raise RAISED[said["kind"]](said["message"])
    return said["result"]


def _from_first(text):
    """The first process's bytes."""
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    padded = np.frombuffer(text.ljust(length, b" ")[:length], np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).astype(np.uint8).tobytes()


def together(action: Callable[[], Any]) -> Any:
    """What an action of every process returns to it. If one of them raises, all do."""
    if jax.process_count() == 1:
        return action()
    result, error, said = None, None, b""
    try:
        result = action()
    except Exception as raised:
        error, said = raised, f"On process {jax.process_index()}: {raised}".encode()[:SAID]
    texts = multihost_utils.process_allgather(np.frombuffer(said.ljust(SAID), np.uint8))
    messages = [bytes(text.astype(np.uint8)).decode(errors="ignore").strip() for text in texts]
    if error is not None:
        raise error
    if any(messages):
        raise RuntimeError(next(filter(None, messages)))
    return result


def of_all(number: int) -> list[int]:
    """Every process's own number, of 32 bits."""
    if jax.process_count() == 1:
        return [number]
    return np.ravel(multihost_utils.process_allgather(np.uint32(number))).tolist()


def whole(x: Any) -> np.ndarray:
    """An array's content, on every process."""
    if isinstance(x, jax.Array) and not x.is_fully_addressable and not x.is_fully_replicated:
        return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)


CALLBACKS = {"pure_callback", "io_callback"}


def check_callbacks(jaxpr: Any) -> None:
    """Raises `ValueError` if a step calls back to Python on one of several processes.

    JAX makes that call on the first process alone, and gives what it returns to all: the rows of
    the others would never be read.
    """
    if jax.process_count() == 1:
        return
    found = {e.primitive.name for e in equations(jaxpr)} & CALLBACKS
    if found:
        raise ValueError(
            f"The loss or the batches call Python ({', '.join(sorted(found))}; hg.stream does so "
            f"within a run), and {jax.process_count()} processes run this together: the call is "
            "made on the first one only, and the rows of the others are never read. Use "
            "hg.hypergradient, which reads a stream's batches beforehand; or make global arrays of "
            "each process's rows, jax.make_array_from_process_local_data(…), and give them to "
            "hg.minibatches."
        )

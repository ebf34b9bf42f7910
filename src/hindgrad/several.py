"""What is not possible where several processes run one program together."""

from typing import Any

import jax

from hindgrad.jaxprs import equations

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
            "made on the first one only, and the rows of the others are never read. Make global "
            "arrays of each process's rows, jax.make_array_from_process_local_data(…), and give "
            "them to hg.minibatches."
        )

"""What of optax cannot be part of a training, and what to use instead."""

import contextlib
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax

from hindgrad.optimizers.from_optax.links import links


def check_arguments(made: Any) -> None:
    """Raises `TypeError` if the update cannot be called with gradients, state and parameters."""
    for link in links(made):
        if link.needs:
            raise TypeError(
                f"The update of optax's {link.name} takes {', '.join(link.needs)} besides the "
                "gradient, which a Training does not give it. Write the step yourself, with "
                f"hg.unroll: update(grads, state, params, {link.needs[0]}=…)."
            )


@contextlib.contextmanager
def untraceable() -> Iterator[None]:
    """Names the schedule or transformation of optax that decides by the value of a number it is
    given, which has none while JAX traces."""
    try:
        yield
    except jax.errors.ConcretizationTypeError as error:
        frames = (f.f_code for f, _ in traceback.walk_tb(error.__traceback__) if _is_optax(f))
        code = next(frames, None)
        if code is None:
            raise
        name = code.co_qualname.partition(".")[0]
        raise TypeError(
            f"optax's {name} was given a hyperparameter whose value it asks for in Python code, "
            "but while a run is traced, a hyperparameter has none. Give it plain numbers, or use a "
            "schedule of hg.schedules, such as WarmupCosine, as the rate: optax.sgd(lambda "
            "count: schedule(hyper['rate'], count))."
        ) from error


def _is_optax(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__", "").startswith("optax.")

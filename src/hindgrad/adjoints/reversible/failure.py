"""Why a run cannot be undone."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

NOT_FINITE, OVERFLOW, SMALL_DECAY, FULL, NOT_UNDONE = range(1, 6)
"""The causes."""

_TEXTS = {
    NOT_FINITE: (
        "{leaf} became NaN or infinite at step {step}. The run diverges, or the initial values or "
        "the batch of that step hold a NaN: lower the rate, or clip the gradients in the loss."
    ),
    OVERFLOW: (
        "{leaf} left the range of the fixed-point numbers at step {step} (parameters and "
        "velocities ±1,024, Adam's second moment 1,024, for scale 1). Lower the rate if the run "
        "diverges; otherwise give Reversible(scale=…), a power of two by which the range grows."
    ),
    SMALL_DECAY: (
        "the decay of {leaf} is too small at step {step}: below Reversible(min_decay=…), or "
        "below 1/128 (one of 0 loses everything), or above 1. Give a lower min_decay, or use "
        "Checkpointed()."
    ),
    FULL: (
        "the buffer for {leaf} was full at step {step}: the decays up to there lose more bits "
        "than Reversible(min_decay=…) makes room for. Give a lower min_decay."
    ),
    NOT_UNDONE: (
        "running backwards did not lead to the initial value of {leaf}; it went wrong between "
        "step {step} and the end, as far as the losses tell. A step did not come out the same "
        "twice. If the loss or the batches draw random numbers outside of JAX, draw them from "
        "the batch's key; if an optimizer of your own adds what depends on the part that it is "
        "added to, mend that; otherwise the compiler rounds differently in the two directions: "
        "use Checkpointed()."
    ),
}


@dataclasses.dataclass(frozen=True)
class Messages(Sequence):
    """The message of every status index; made when asked for, since steps are many."""

    leaves: tuple[str, ...]
    steps: int

    @property
    def stride(self) -> int:
        """Steps are given to this precision, so that an index is an int32."""
        return -(-(NOT_UNDONE + 1) * len(self.leaves) * self.steps // 2**31)

    @property
    def places(self) -> int:
        """How many steps are distinguished."""
        return -(-self.steps // self.stride)

    def __len__(self):
        return (NOT_UNDONE + 1) * len(self.leaves) * self.places

    def __getitem__(self, index):
        rest, place = divmod(index, self.places)
        cause, leaf = divmod(rest, len(self.leaves))
        text = _TEXTS[cause].format(leaf=self.leaves[leaf], step=place * self.stride)
        return f"Reversible: {text}"

    def number(self, status: "Status") -> Int[Array, ""]:
        """The index of a status."""
        place = status.step // self.stride
        return (status.cause * len(self.leaves) + status.leaf) * self.places + place


class Status(eqx.Module):
    """The first failure: its cause (0 for none), the leaf's number and the step of the run."""

    cause: Int[Array, ""]
    leaf: Int[Array, ""]
    step: Int[Array, ""]

    @staticmethod
    def of(failures: list[tuple[int, Any, Array, Any]]) -> "Status":
        """The earliest of (cause, leaf, whether it failed, step); of equals the first."""
        causes, leaves, failed, steps = zip(*failures, strict=True)
        # In int32: some of JAX's operations are lowered in the user's setting, without int64.
        steps = jnp.stack([jnp.asarray(s).astype(jnp.int32) for s in steps])
        steps = jnp.where(jnp.stack(failed), steps, jnp.iinfo(jnp.int32).max)
        first = jax.lax.argmin(steps, 0, jnp.int32)
        leaves = jnp.stack([jnp.asarray(leaf, jnp.int32) for leaf in leaves])
        numbers = jnp.asarray(causes, jnp.int32), leaves, steps
        return Status(*(jnp.where(jnp.stack(failed)[first], x[first], 0) for x in numbers))

    def before(self, later: "Status") -> "Status":
        """This one, or the later one if this is none."""
        return jax.tree.map(lambda a, b: jnp.where(self.cause > 0, a, b), self, later)


def describe(status: Any) -> str:
    """A status from `Report` in words; empty if all is well."""
    leaf = f"leaf {int(status[1])} of (params, memory)"
    return text(status, 0, {int(status[1]): leaf})


def text(status: Any, first: int, leaves: Any) -> str:
    """The numbers of a status in words, of a run that begins at step `first`; empty if all is
    well. `leaves` has the leaves' names."""
    cause, leaf, step = (int(x) for x in status)
    return _TEXTS[cause].format(leaf=leaves[leaf], step=first + step) if cause else ""

"""Whether a step that is run again is the same step, as its loss tells."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from hindgrad import errors


class _Messages(Sequence):
    """What is said, for every step."""

    def __len__(self):
        return 2**31

    def __getitem__(self, step):
        return (
            f"Step {step} had another loss when it was run again on the way back, so the "
            "hypergradient would be wrong. Loss and batches must be functions of their arguments: "
            "an iterator or a random generator within them gives another batch at every call; "
            "index the data by t, or use hg.minibatches, and draw from the batch's key. (If they "
            "are, the run is so chaotic that rounding changes it: use Stored(), or lower the rate.)"
        )


def floor(losses: Float[Array, " steps"] | None) -> Float[Array, ""] | None:
    """How far two evaluations of a loss near zero may differ: by the rounding of the largest."""
    if losses is None:
        return None
    largest = jnp.max(jnp.where(jnp.isfinite(losses), jnp.abs(losses), 0))
    return 100 * jnp.finfo(losses.dtype).eps * largest


def is_other(
    before: Float[Array, "..."], again: Float[Array, "..."] | None, floor: Float[Array, ""] | None
) -> Bool[Array, "..."]:
    """Whether two evaluations of one loss differ by more than rounding: half of its digits. Where
    a run has diverged, there is nothing to compare."""
    assert again is not None
    assert floor is not None
    tolerance = float(jnp.finfo(before.dtype).eps) ** 0.5
    largest = jnp.maximum(jnp.abs(before), jnp.abs(again))
    same = jnp.abs(before - again) <= tolerance * largest + floor
    return jnp.isfinite(before) & ~same


def checked(results: PyTree, differs: Int[Array, ""]) -> PyTree:
    """The results, which raise if step `differs` had another loss when it was run again; none had
    if that is −1."""
    return errors.raise_if(results, differs >= 0, differs, _Messages())

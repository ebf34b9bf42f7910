"""The binomial checkpointing schedule of Griewank & Walther 2000 (Algorithm 799, "revolve")."""

from math import comb

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from hindgrad import numerics

NOWHERE = 2**31 - 1
"""The place of a snapshot that is not to be made."""


def replays(steps: int, slots: int) -> int:
    """The fewest steps that must be run again to go back through `steps` steps with `slots`
    snapshots, the initial state's included (Griewank & Walther 2000, Prop. 1).

    They count the steps of the first sweep as well: r·T − C(s + r, s + 1), r the smallest number
    with C(s + r, s) ≥ T. Here those T − 1 are left out, being the training itself.
    """
    if steps <= 1:
        return 0
    r = _repetitions(steps, slots)
    return r * steps - comb(slots + r, slots + 1) - (steps - 1)


def _repetitions(steps, slots):
    r = 0
    while comb(slots + r, slots) < steps:
        r += 1
    return r


def split(steps: int, slots: int) -> int:
    """Where the next snapshot goes, counted from the last one, which is one of `slots`."""
    r = _repetitions(steps, slots)
    left = comb(slots + r - 2, slots) if r >= 2 else 0
    return max(1, left, steps - comb(slots - 1 + r, slots - 1))


def snapshots(steps: int, slots: int) -> list[int]:
    """Before which steps the state is kept on the way forward, the first included."""
    place, places = 0, []
    while place < steps - 1:
        places.append(place)
        if slots == 1:
            return places
        place += split(steps - place, slots)
        slots -= 1
    return places or [0]


def next_snapshot(
    place: Int[Array, ""], end: Int[Array, ""], slots: Int[Array, ""]
) -> Int[Array, ""]:
    """Where to put the snapshot after that at `place`, which is one of `slots`, when the state
    before step `end` is to be recalled; `NOWHERE` if none is worth it."""
    with numerics.wide():
        steps, s = (x.astype(jnp.float64) for x in (end + 1 - place, slots))

        def unfinished(carry):
            return (s > 1) & (carry[1] < steps)

        def repeat(carry):
            r, now, before, _ = carry
            r += 1
            return r, now * (s + r) / r, now, before

        # C(slots + r, slots) for the last three r: whole numbers, exact while below the steps.
        begin = tuple(jnp.float64(x) for x in (0, 1, 0, 0))
        r, now, _, left = jax.lax.while_loop(unfinished, repeat, begin)
        right = steps - jnp.round(now * s / (s + r))
        step = jnp.maximum(jnp.maximum(left, right), 1.0).astype(jnp.int32)
    following = place + step
    fits = (slots > 1) & (place < end) & (following < end)
    return jnp.where(fits, following, NOWHERE)

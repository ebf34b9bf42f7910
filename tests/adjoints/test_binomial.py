"""The checkpointing schedule against dynamic programming, and carried out step by step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

import hindgrad as hg
from hindgrad.adjoints import binomial


@functools.cache
def fewest(steps, slots):
    """By dynamic programming: the fewest forward steps to reverse `steps` steps, when the state
    before the first is kept in one of `slots` slots."""
    if steps <= 1:
        return 0
    if slots == 1:
        return steps * (steps - 1) // 2
    return min(m + fewest(m, slots) + fewest(steps - m, slots - 1) for m in range(1, steps))


def test_optimal():
    for steps in range(1, 60):
        for slots in range(1, 8):
            assert binomial.replays(steps, slots) == max(fewest(steps, slots) - (steps - 1), 0)


def replayed(steps, slots):
    """The steps that are run again on the way back, beyond the one of each pullback, in order."""
    seen = []

    def step(state, hyper, t):
        io_callback(lambda t: seen.append(int(t)), None, t, ordered=True)
        return state * hyper

    def run(hyper):
        adjoint = hg.Checkpointed(slots=slots)
        return hg.unroll(step, jnp.ones(()), hyper, steps, adjoint=adjoint)[0]

    gradient = jax.grad(run)(1.01)
    jax.effects_barrier()
    np.testing.assert_allclose(gradient, steps * 1.01 ** (steps - 1), rtol=1e-5)
    back, turns = seen[steps:], []
    for k in range(steps - 1, -1, -1):  # every turn ends with the pullback of its step
        end = back.index(k, len(turns) + steps - 1 - k)
        turns += back[len(turns) + steps - 1 - k : end]
    assert len(turns) + steps == len(back)
    return turns


@pytest.mark.parametrize(
    ("steps", "slots"),
    [(1, 1), (2, 1), (9, 1), (5, 4), (20, 3), (37, 2), (50, 7), (60, 59)],
)
def test_recalls_every_state_at_the_optimum(steps, slots):
    assert len(replayed(steps, slots)) == binomial.replays(steps, slots)


def test_golden():
    """Ten steps, three slots: which steps are run again, in which order."""
    assert replayed(10, 3) == [7, 4, 5, 0, 1, 2]


def test_next_snapshot_is_the_formulas():
    """What is computed while the program runs, against whole numbers of any size."""
    draw = np.random.default_rng(0)
    place = draw.integers(0, 1000, 2000)
    end = place + (10 ** draw.uniform(0, 9, 2000)).astype(int)
    slots = (10 ** draw.uniform(0, 5, 2000)).astype(int)

    def expected(place, end, slots):
        if slots == 1 or place >= end:
            return binomial.NOWHERE
        following = place + binomial.split(end + 1 - place, slots)
        return following if following < end else binomial.NOWHERE

    found = jax.jit(jax.vmap(binomial.next_snapshot))(
        *(jnp.asarray(x, jnp.int32) for x in (place, end, slots))
    )
    right = [expected(*(int(x) for x in xs)) for xs in zip(place, end, slots, strict=True)]
    assert found.tolist() == right


@pytest.mark.parametrize(
    ("steps", "slots", "count"),
    [(1000, 1000, 0), (1000, 31, 1440), (1000, 10, 2637), (100_000, 100, 194_748)],
)
def test_golden_counts(steps, slots, count):
    assert binomial.replays(steps, slots) == count

"""What a long run would keep, known before it begins."""

import jax
import jax.numpy as jnp
import pytest

import hindgrad as hg
from hindgrad import trees
from hindgrad.segments.order import Order
from hindgrad.segments.run import SegmentedRun
from hindgrad.segments.work import Plan

STEPS, SEGMENTS, PARAMETERS = 100_000, 317, 50_000
STATE = 3 * 4 * PARAMETERS
"""The bytes of the parameters and Adam's two moments."""


def plan(adjoint, slots=None):
    """That of 100,000 steps of Adam; none of them is run."""
    loss = lambda params, hyper, batch: jnp.mean(params**2)
    optimizer = hg.Adam(lambda hyper, t: hyper["rate"], b1=0.9, b2=0.99)
    training = hg.Training(loss, optimizer=optimizer, batches=lambda t: None, steps=STEPS)
    objective = hg.Objective(training, init=jnp.ones(PARAMETERS), score=loss)
    hyper = trees.as_hyper({"rate": 0.01})
    run = SegmentedRun(objective, hyper, jax.random.key(0), adjoint.pieces(STEPS))
    length = -(-STEPS // SEGMENTS)
    return Plan(run, None, STEPS, length, Order(-(-STEPS // length), slots))


@pytest.mark.parametrize(("slots", "states"), [(None, 1 + SEGMENTS), (20, 21)])
def test_states_of_a_long_run(slots, states):
    """Beside the states, the losses and twice the cotangents on the way back."""
    found = plan(hg.Checkpointed(), slots).room
    assert states * STATE <= found <= (states + 3) * STATE + 5 * STEPS


def test_bits_of_a_long_run():
    """The 316 steps of a segment lose 48 bits of each number by b1, and 4.6 by b2: five whole bytes
    and two words that are not full."""
    kept = SEGMENTS * PARAMETERS * (5 + 2 * 4)
    assert kept < plan(hg.Reversible()).room < 1.06 * kept


def test_few_positions_cost_few_replays():
    few = plan(hg.Checkpointed(), 20)
    assert few.order.cost(SEGMENTS, {0}) < 3 * SEGMENTS

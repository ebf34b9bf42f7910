"""What happens when a hypergradient cannot be had."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hindgrad.adjoints.failures import Raise, Report, Warn

MESSAGES = ["well", "it broke at the start", "it broke at the end"]
RESULTS = {"float": jnp.ones(2), "count": jnp.int32(3), "none": None}


def handle(failure, index):
    at = jax.jit(lambda index: failure.handle(RESULTS, index > 0, index, MESSAGES))
    results = jax.block_until_ready(at(jnp.int32(index)))
    jax.effects_barrier()  # warnings come from a callback
    return results


@pytest.mark.parametrize("failure", [Raise(), Warn(), Report()], ids=repr)
def test_nothing_happens_when_all_is_well(failure):
    got = handle(failure, 0)
    jax.tree.map(np.testing.assert_array_equal, got, RESULTS)


def test_raise_names_the_cause():
    for index in (1, 2):
        with pytest.raises(RuntimeError, match=MESSAGES[index]):
            handle(Raise(), index)


def test_warn_names_the_cause_and_goes_on():
    with pytest.warns(UserWarning, match=MESSAGES[2]):
        got = handle(Warn(), 2)
    jax.tree.map(np.testing.assert_array_equal, got, RESULTS)


def test_report_gives_nan_where_there_are_floats():
    got = handle(Report(jnp.zeros(3)), 1)
    assert np.isnan(got["float"]).all()
    assert (got["count"], got["none"]) == (3, None)

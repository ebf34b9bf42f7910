"""Changes that would take a rate or a decay out of its range are halved until they do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
from hindgrad.tuning.ranges import HALVINGS, out_of_range, within_range

OPTIMIZER = hg.Momentum(
    lambda hyper, t: hyper["rate"] * jnp.ones(4)[t], lambda hyper, t: hyper["decay"]
)
OLD = {"rate": jnp.float32(0.5), "decay": jnp.float32(0.9), "l2": jnp.float32(0.0)}


def changed(optimizer=OPTIMIZER, old=OLD, t=0, steps=2, **new):
    new = old | {name: jnp.asarray(value, jnp.float32) for name, value in new.items()}
    within = jax.jit(
        lambda new: within_range(optimizer, old, new, lambda h: h, jnp.int32(t), steps)
    )
    return jax.tree.map(lambda x: np.asarray(x).tolist(), within(new))


def test_each_leaf_is_halved_for_itself():
    got = changed(rate=-1.0, decay=1.1, l2=-7.0)
    assert got == pytest.approx({"rate": 0.125, "decay": 0.95, "l2": -7.0})
    assert changed(rate=0.0, decay=0.0)["rate"] == 0.0  # the bound is part of the range
    assert changed(decay=1.0)["decay"] == pytest.approx(0.95)  # and here it is not


def test_what_is_within_arrives_to_the_bit():
    new = {"rate": 0.3, "decay": 0.1, "l2": 1e30}
    assert changed(**new) == {name: float(np.float32(x)) for name, x in new.items()}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1e30])
def test_a_leaf_that_no_halving_saves_stays(bad):
    assert 2.0**-HALVINGS > 0.5 / 1e30
    assert changed(rate=bad, decay=0.5) == {"rate": 0.5, "decay": 0.5, "l2": 0.0}


def test_leaves_that_are_only_together_out_of_range_all_stay():
    together = hg.Momentum(lambda hyper, t: hyper["a"] + hyper["b"])
    old = {"a": jnp.float32(0.5), "b": jnp.float32(0.5)}
    got = changed(together, old, a=-0.4, b=-0.4)
    assert got == {"a": 0.5, "b": 0.5}


def test_all_steps_of_the_window_and_no_others_count():
    schedule = hg.Momentum(lambda hyper, t: hyper["rate"][t])
    old = {"rate": jnp.full(4, 0.5)}
    new = jnp.array([0.4, 0.4, -0.1, 0.4])
    assert changed(schedule, old, t=0, rate=new)["rate"] == pytest.approx(new.tolist())
    assert changed(schedule, old, t=2, rate=new)["rate"] == pytest.approx([0.45, 0.45, 0.2, 0.45])


def test_optimizers_without_ranges_are_left_alone():
    import optax

    assert changed(hg.from_optax(lambda h: optax.sgd(h["rate"])), rate=-1.0)["rate"] == -1.0


@pytest.mark.parametrize(
    ("hyper", "words"),
    [
        ({"rate": 0.0, "decay": 0.0}, ""),
        ({"rate": -0.1, "decay": 0.5}, r"a rate outside of its range [0, inf)"),
        ({"rate": 0.1, "decay": 1.0}, r"a decay outside of its range [0, 1)"),
        ({"rate": np.nan, "decay": 0.5}, r"a rate outside of its range [0, inf)"),
    ],
)
def test_out_of_range_in_words(hyper, words):
    hyper = jax.tree.map(jnp.float32, hyper)
    assert out_of_range(OPTIMIZER, hyper, 0, 3) == words

#!/usr/bin/env bash
# equinox 0.13.8 with jax 0.12.0.1: `filter_closure_convert` makes the arrays that a function closes over
# leaves of a pytree, so that they can be passed, replaced and dropped like any others. Since a jaxpr of
# jax 0.12 has its constants within it, they are in the pytree twice: as leaves, and within its jaxpr, which
# is static. What keeps the static half (a cache of compiled programs by what is static) keeps the
# arrays; and where it gets into a rule of `custom_vjp`, `jax.checking_leaks` finds a leak that is none.
# With jax 0.10.1 the static half holds no array. Needs Python 3.12 or newer.
#
# Seen: the static half keeps 1 array of 1,000,003 numbers alive
source "$(dirname "$0")/environment.sh"
environment equinox==0.13.8 jax==0.12.0.1 jaxlib==0.12.0.1
python - <<'PYTHON'
import gc

import equinox as eqx
import jax
import jax.numpy as jnp

SIZE = 1_000_003


def alive():
    gc.collect()
    return sum(x.size == SIZE for x in jax.live_arrays())


def static_half():
    data = jnp.zeros(SIZE)
    closed = eqx.filter_closure_convert(lambda x: x + data, jnp.float32(0.0))
    dynamic, static = eqx.partition(closed, eqx.is_array)
    assert [x.size for x in jax.tree.leaves(dynamic)] == [SIZE]
    return static


static = static_half()
print(f"the static half keeps {alive()} array of {SIZE:,} numbers alive")
assert alive() == 1, "the static half holds no array now"
del static
assert alive() == 0
PYTHON

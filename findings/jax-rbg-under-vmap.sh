#!/usr/bin/env bash
# jax 0.12.0.1 (and 0.10.1): keys of the kind "rbg", the one that is fast on accelerators. Under
# jax.vmap over keys, draws come from the first key alone: the others can be replaced without any
# effect, and no row is what its own key gives by itself. (With threefry each row is its key's.)
#
# Seen: rbg: the other keys replaced, rows the same [True, True, True, True], as by itself [True, False, False, False]
source "$(dirname "$0")/environment.sh"
environment jax==0.12.0.1 jaxlib==0.12.0
python - <<'PYTHON'
import jax
import jax.numpy as jnp


def rows(impl):
    keys = jax.random.split(jax.random.key(0, impl=impl), 4)
    others = jax.random.split(jax.random.key(9, impl=impl), 3)
    draw = lambda key: jax.random.bits(key, (3,))
    drawn = jax.vmap(draw)(keys)
    replaced = jax.vmap(draw)(jnp.concatenate([keys[:1], others]))
    alone = jnp.stack([draw(key) for key in keys])
    same = lambda other: jnp.all(drawn == other, axis=1).tolist()
    print(impl, "the other keys replaced, rows the same", same(replaced), "as by itself", same(alone))
    return same(replaced), same(alone)


assert rows("threefry2x32") == ([True, False, False, False], [True] * 4)
assert rows("rbg") == ([True] * 4, [True, False, False, False]), "each key counts now"
PYTHON

"""Schedules: hyperparameters that change from step to step."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def piecewise(
    values: Float[Array, "windows *shape"], t: Int[Array, ""] | int, steps: int
) -> Float[Array, "*shape"]:
    """The value of the window in which step `t` lies, where `steps` steps are cut into as many
    equal windows as there are values.

        optimizer=hg.Momentum(lambda hyper, t: hg.piecewise(hyper["rate"], t, steps=1000))

    Steps that share a value share a tangent: with it, `Forward()` learns schedules over long
    runs (Micaelli & Storkey 2021). Steps beyond the last take the last value.

    >>> [float(hg.piecewise(jnp.array([0.3, 0.1]), t, steps=5)) > 0.2 for t in range(5)]
    [True, True, True, False, False]
    """
    window = jnp.minimum(t * values.shape[0] // steps, values.shape[0] - 1)
    return values[window]

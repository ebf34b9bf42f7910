"""Schedules: hyperparameters that change from step to step."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int


def piecewise(
    values: Float[ArrayLike, "windows *shape"], t: Int[Array, ""] | int, steps: int
) -> Float[Array, "*shape"]:
    """The value of the window in which step `t` lies, where `steps` steps are cut into as many
    equal windows as there are values.

        optimizer=hg.Momentum(lambda hyper, t: hg.piecewise(hyper["rate"], t, steps=1000))

    Steps that share a value share a tangent: with it, `Forward()` learns schedules over long
    runs (Micaelli & Storkey 2021). Steps beyond the last take the last value.

    Raises `ValueError` if `values` is a scalar or `steps` below 1.

    >>> [float(hg.piecewise(jnp.array([0.3, 0.1]), t, steps=5)) > 0.2 for t in range(5)]
    [True, True, True, False, False]
    """
    values = jnp.asarray(values)
    if values.ndim == 0 or steps < 1:
        raise ValueError(
            f"piecewise(values of shape {values.shape}, steps={steps}): an array with a value for "
            "each window along its first axis, and at least one step, are needed."
        )
    count = values.shape[0]
    begins = np.ceil(np.arange(1, count) * steps / count).astype(np.int32)
    return values[jnp.searchsorted(jnp.asarray(begins), t, side="right")]

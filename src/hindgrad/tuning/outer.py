"""The optax optimizers that change hyperparameters."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree


def check_outer(caller: str, name: str, optimizer: Any) -> None:
    """Raises `TypeError` if it is no optax optimizer."""
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"{caller}({name}={optimizer!r}) is not an optax optimizer. Give one, for instance "
            "optax.adam(0.01)."
        )


def refuse_complex(caller: str, hyper: PyTree) -> None:
    """Raises `ValueError` naming a complex hyperparameter."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(hyper):
        if jnp.iscomplexobj(leaf):
            name = jax.tree_util.keystr(path, simple=True, separator=".") or "hyper"
            raise ValueError(
                f"{caller} was given {name!r} of dtype {leaf.dtype}: complex hyperparameters have "
                "no tangents here. Give real and imaginary part as two."
            )


def outer_update(
    optimizer: optax.GradientTransformation,
    grads: PyTree,
    memory: PyTree,
    params: PyTree,
    value: Float[Array, ""] | None,
) -> tuple[PyTree, PyTree]:
    """What an optimizer makes of a gradient: the updates, and its memory, of the dtypes they had.
    It gets the objective's value, as `optax.polyak_sgd` and `optax.contrib.reduce_on_plateau`
    ask, where it is known.

    Gradients by complex numbers are conjugated, as optax expects: JAX's own point elsewhere.
    """
    grads, extra = jax.tree.map(jnp.conj, grads), {} if value is None else {"value": value}
    extended = optax.with_extra_args_support(optimizer)
    try:
        with jax.numpy_dtype_promotion("standard"):  # optax cannot do without
            updates, after = extended.update(grads, memory, params, **extra)
    except TypeError as error:
        if "value_fn" not in str(error):
            raise
        raise TypeError(
            "The outer optimizer has a line search, which would call the objective itself. Give "
            "one without, such as optax.adam(0.01) or optax.lbfgs(0.1, linesearch=None)."
        ) from error
    return _like(updates, params), _like(after, memory)


def _like(new, old):
    cast = lambda a, b: a.astype(b.dtype) if hasattr(a, "astype") and hasattr(b, "dtype") else a
    return jax.tree.map(cast, new, old)

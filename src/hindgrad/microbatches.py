"""Gradients accumulated over microbatches: a batch's loss, a few rows at a time."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Int, PyTree

from hindgrad import placement


def accumulated(
    loss: Callable[..., Any], size: int, split: NamedSharding | None = None
) -> Callable[..., Any]:
    """The same loss `(params, hyper, batch, model) -> (value, model)`, a mean over the batch's
    rows, as the mean over microbatches of `size` rows, each of which is run again on the way back.

    Every key in the batch has the microbatch's number folded in; the model's state goes from one
    microbatch to the next. `split` says how the batch's rows are split over devices, where types do
    not: each device then has its share of each microbatch.
    """

    @eqx.filter_checkpoint
    def of_rows(params, hyper, rows, others, number, model):
        batch = eqx.combine(rows, jax.tree.map(lambda x: own_key(x, number), others))
        return loss(params, hyper, batch, model)

    def mean(params, hyper, batch, model):
        rows, others, count = rows_of(batch, "microbatch", size)
        rows = jax.tree.map(lambda x: placement.cut(x, size, split), rows)

        def body(carry, xs):
            total, model = carry
            value, model = of_rows(params, hyper, xs[0], others, xs[1], model)
            return (total + value / count, model), None

        numbers = jnp.arange(count, dtype=jnp.int32)
        struct, _ = eqx.filter_eval_shape(
            of_rows, params, hyper, jax.tree.map(lambda x: x[0], rows), others, numbers[0], model
        )
        begin = jnp.zeros(struct.shape, struct.dtype), model
        (value, model), _ = jax.lax.scan(body, begin, (rows, numbers))
        return value, model

    return mean


def own_key(leaf: Any, number: Int[Array, ""]) -> Any:
    """A part's own key, of the batch's; anything else as it is."""
    return jax.random.fold_in(leaf, number) if is_key(leaf) else leaf


def is_key(x: Any) -> bool:
    """Whether this is an array of keys (of the new kind)."""
    return eqx.is_array(x) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def rows_of(batch: PyTree, name: str, parts: int) -> tuple[PyTree, PyTree, int]:
    """What of a batch has rows, what has none (scalars, keys), and how many times `parts` there
    are rows; `name` is the argument of `Training` that says how they are cut.

    Raises `ValueError` if the arrays differ in their rows, or `parts` does not divide them, and for
    a key of the old kind, which looks like two rows.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if eqx.is_array(leaf) and leaf.dtype == jnp.uint32 and leaf.shape == (2,):
            raise ValueError(
                f"Training({name}={parts}): batch{jax.tree_util.keystr(path)} is uint32[2], as "
                "jax.random.PRNGKey's keys are, which cannot be told from two rows. Give a "
                "jax.random.key(…); or numbers of another type, if they are rows."
            )
    has_rows = lambda x: eqx.is_array(x) and x.ndim > 0
    rows, others = eqx.partition(batch, has_rows)
    lengths = {
        "batch" + jax.tree_util.keystr(path): leaf.shape[0]
        for path, leaf in jax.tree_util.tree_leaves_with_path(rows)
    }
    if not lengths:
        raise ValueError(
            f"Training({name}={parts}): the batch has no array with rows, so there is nothing "
            "to split."
        )
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise ValueError(
            f"Training({name}={parts}): every array in the batch is split by its first axis, "
            f"and they differ in its length: {found}. Let the loss close over what has no rows."
        )
    (n,) = set(lengths.values())
    if n % parts:
        raise ValueError(
            f"Training({name}={parts}) does not divide the {n} rows of a batch. Give one of "
            f"{[d for d in range(1, n + 1) if n % d == 0]}."
        )
    return rows, others, n // parts

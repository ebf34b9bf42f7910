"""A batch in shards, whose gradients are summed as whole numbers: the same sum in any order."""

import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jaxtyping import Array, Inexact

from hindgrad import numerics, placement
from hindgrad.microbatches import is_key, own_key, rows_of

BITS = 52
"""Whole numbers up to 2^52 are exact in float64, and so are sums that stay within."""
FRACTION, OFFSET = 52, 1023
"""Where a float64 has its exponent, and what is added to it."""
SMALLEST = -900
"""The exponent for numbers that are smaller than 2 to this power: float64 has no unit for those."""


def in_shards(
    loss: Callable[..., Any], count: int, split: NamedSharding | None = None
) -> Callable[..., Any]:
    """The same loss `(params, hyper, batch, model) -> (value, model)`, a mean over the batch's
    rows, as the mean over `count` equal shards of them, whose values and gradients are summed as
    whole numbers: such a sum does not depend on the order, and so not on the devices.

    Every key in the batch has the shard's number folded in. Each shard begins from the model's
    state; of the states after them floats are averaged, and the rest is the first one's. `split`
    says how the batch's rows are split over devices, where types do not: each device then computes
    its own shards, one after another.

    Raises `ValueError` if the batch cannot be cut into so many, or a key is of a kind whose draws
    depend on how many are made side by side.
    """

    def mean(params, hyper, batch, model):
        _check_reductions()
        rows, others, size = rows_of(batch, "shards", count)
        for leaf in jax.tree.leaves(others):
            _check_draws(leaf)
        over = placement.Across.of(jax.tree.leaves(rows)[0], split)
        if count % over.devices:
            raise ValueError(
                f"Training(shards={count}): the batch's rows are split over {over.devices} "
                f"devices, each of which has whole shards. Give a multiple of {over.devices}."
            )
        inside = count // over.devices
        given, fixed = eqx.partition((params, model), eqx.is_inexact_array)

        def of_shard(given, rows, number):
            params, model = eqx.combine(given, fixed)
            batch = eqx.combine(rows, jax.tree.map(lambda x: own_key(x, number), others))
            return loss(params, hyper, batch, model)

        xs = (
            jax.tree.map(partial(_spread, over=over, inside=inside), given),
            jax.tree.map(lambda x: over.cut(x, inside, size), rows),
            over.placed(jnp.arange(count, dtype=jnp.int32).reshape(over.devices, inside).T),
        )
        of_devices = jax.vmap(of_shard, spmd_axis_name=over.names)
        _, (values, after) = jax.lax.scan(lambda _, x: (None, of_devices(*x)), None, xs)
        average = lambda x: total(x) / count if eqx.is_inexact_array(x) else x[0, 0]
        return average(values), jax.tree.map(average, after)

    return mean


DETERMINISTIC = ("--xla_gpu_deterministic_ops=true", "--xla_gpu_exclude_nondeterministic_ops=true")
"""The flags of XLA with which sums within a GPU have an order of their own; the first implies the
second."""


def _check_reductions():
    flags = os.environ.get("XLA_FLAGS", "").split()
    if jax.default_backend() == "gpu" and not set(flags) & set(DETERMINISTIC):
        warnings.warn(
            "Training(shards=…) on GPUs: sums within one device (of an embedding's gradient, say) "
            f"have an order of chance unless XLA_FLAGS has {DETERMINISTIC[0]}; so a run may not "
            "come home, and has other bits each time.",
            RuntimeWarning,
            stacklevel=2,
        )


def _check_draws(leaf):
    if is_key(leaf) and "rbg" in (kind := str(jax.random.key_impl(leaf))):
        raise ValueError(
            f"Training(shards=…): the batch has a key of the kind {kind!r}, whose draws depend on "
            "how many are made side by side, and so on the number of devices. Make it by "
            'jax.random.key(…, impl="threefry2x32").'
        )


def _spread(x, over, inside):
    """The same for every shard, [of a device, devices, *shape]; what comes back is summed."""
    plain = partial(over.spread, inside=inside)
    spread = jax.custom_vjp(lambda x: plain(x))
    spread.defvjp(lambda x: (plain(x), None), lambda _, parts: (placement.like(total(parts), x),))
    return spread(x)


@jax.custom_jvp
def total(x: Inexact[Array, "shards devices *shape"]) -> Inexact[Array, "*shape"]:
    """The sum over the first two axes: of multiples of a unit, 2^−52 of a number that the largest
    sum does not exceed. Sums of those are exact, in any order."""
    if jnp.iscomplexobj(x):
        return jax.lax.complex(total(x.real), total(x.imag))
    with numerics.wide():
        wide = x.astype(jnp.float64)
        largest = jnp.max(jnp.abs(wide)) * (x.shape[0] * x.shape[1])
        shift = BITS - jnp.maximum(_exponent(largest), SMALLEST)
        return (_sum(_as_whole(wide * _power(shift))) * _power(-shift)).astype(x.dtype)


def _exponent(x):
    """The power of two just above a positive float64."""
    return (jax.lax.bitcast_convert_type(x, jnp.int64) >> FRACTION) - OFFSET + 1


def _power(exponent):
    """Two to that power, exactly."""
    return jax.lax.bitcast_convert_type((exponent + OFFSET) << FRACTION, jnp.float64)


def _as_whole(x):
    return jnp.round(x)


def _sum(x):
    return jnp.sum(x, (0, 1))


@total.defjvp
def _total_jvp(primals, tangents):
    return total(*primals), jnp.sum(tangents[0], (0, 1))

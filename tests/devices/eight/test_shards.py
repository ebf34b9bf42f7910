"""Gradients summed as whole numbers: a run has the same bits on any number of devices."""

import jax
import numpy as np
import pytest

import hindgrad as hg
from devices.eight.conftest import of_kind
from devices.eight.networks import (
    DATA,
    FSDP,
    HYPER,
    PARAMS,
    ROWS,
    assert_same,
    hypergradient,
    loss,
    momentum,
    on_one_device,
    placed,
)

OPTIONS = {"adjoint": hg.Reversible(), "optimizer": momentum(), "shards": 8}


def trained(params, rows, hyper):
    training = hg.Training(
        loss,
        optimizer=momentum(),
        batches=hg.minibatches((rows, hyper["weights"]), size=16, key=0),
        steps=30,
        shards=8,
    )
    return jax.tree.map(np.asarray, training(params, hyper, adjoint=hg.Reversible()).params)


@pytest.fixture(scope="module")
def alone():
    return trained(PARAMS, ROWS, HYPER)


@pytest.mark.parametrize(
    ("devices", "kind", "placing"),
    [(8, "auto", FSDP), (8, "explicit", DATA), (4, "explicit", FSDP), (2, "auto", DATA)],
)
def test_the_same_bits_as_on_one_device(alone, devices, kind, placing):
    mesh = of_kind(kind, devices)
    with jax.set_mesh(mesh):
        found = trained(*placed(mesh, placing))
    for name in alone:
        np.testing.assert_array_equal(found[name], alone[name])


def test_the_hypergradient(mesh):
    found = hypergradient(mesh, FSDP, **OPTIONS)
    assert_same(found, on_one_device(**OPTIONS | {"shards": None}))


def test_shards_must_be_whole_on_every_device(explicit):
    message = r"shards=4\): the batch's rows are split over 8 devices.*Give a multiple of 8"
    with pytest.raises(ValueError, match=message):
        hypergradient(explicit, DATA, **OPTIONS | {"shards": 4})

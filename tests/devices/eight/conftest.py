"""These tests run in a process of their own, with eight simulated devices: see `test_eight.py`."""

import jax
import pytest

collect_ignore_glob = ["test_*.py"] if jax.device_count() != 8 else []


@pytest.fixture(params=["auto", "explicit"])
def mesh(request):
    """A mesh of eight devices, of either kind."""
    return of_kind(request.param)


@pytest.fixture
def explicit():
    """The kind that `jax.make_mesh` makes unless told."""
    return of_kind("explicit")


def of_kind(name, devices=8):
    kind = {"auto": jax.sharding.AxisType.Auto, "explicit": jax.sharding.AxisType.Explicit}
    some = jax.devices()[:devices]
    return jax.make_mesh((devices,), ("d",), axis_types=(kind[name],), devices=some)

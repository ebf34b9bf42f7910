"""Settings for all tests: one fixed, printed seed; strict dtypes."""

import os

# Compiling is most of what the tests do: half the time without the backend's optimisations.
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 " + os.environ.get("XLA_FLAGS", "")

import jax
import pytest

SEED = int(os.environ.get("HINDGRAD_TEST_SEED", "0"))

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_report_header():
    return f"seed: {SEED} (HINDGRAD_TEST_SEED)"


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Each compiled program takes some of the operating system's mappings, of which a process has
    65,530 at most; beyond, compiling crashes."""
    yield
    jax.clear_caches()


@pytest.fixture
def key():
    return jax.random.key(SEED)


@pytest.fixture
def x64():
    """Float64 for one test."""
    with jax.enable_x64(True):
        yield

"""Settings for all tests: one fixed, printed seed; strict dtypes; types and shapes checked."""

import gc
import os
from importlib.metadata import version

# Compiling is most of what the tests do: half the time without the backend's optimisations. What
# claims to be exact is tested as users compile it: `make test-optimised`.
QUICK = "--xla_backend_optimization_level=0 "
if version("jax").startswith("0.10."):  # a third of the time; newer ones do not know the first
    QUICK += "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
OPTIMISED = os.environ.get("HINDGRAD_TEST_OPTIMISED") == "1"
if not OPTIMISED:
    os.environ["XLA_FLAGS"] = QUICK + os.environ.get("XLA_FLAGS", "")

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

if os.environ.get("HINDGRAD_TEST_TYPES") != "0":  # an eighth of the time
    install_import_hook("hindgrad", "beartype.beartype")

SEED = int(os.environ.get("HINDGRAD_TEST_SEED", "0"))

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_report_header():
    level = "the compiler's default" if OPTIMISED else "none"
    return f"seed: {SEED} (HINDGRAD_TEST_SEED); optimisation: {level}"


def pytest_collection_finish():
    """What is there from here on stays: not to look for garbage in it is a tenth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Each compiled program takes some of the operating system's mappings, of which a process has
    65,530 at most; beyond, compiling crashes."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def key():
    return jax.random.key(SEED)


@pytest.fixture
def x64():
    """Float64 for one test."""
    with jax.enable_x64(True):
        yield

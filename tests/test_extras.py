"""What is installed without extras is enough for the library, and the rest says what is missing."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

REFUSING = """
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec
refused = lambda name: name.partition(".")[0] in {refused!r}
PathFinder.find_spec = lambda name, *rest: None if refused(name) else find(name, *rest)
"""

LIBRARY = """
import jax
import jax.numpy as jnp
import optax
import hindgrad as hg

training = hg.Training(
    lambda w, hyper, batch: hyper["decay"] * w**2 + (w - 1) ** 2,
    optimizer=hg.Momentum(0.1, 0.5),
    batches=lambda t: None,
    steps=5,
)
objective = hg.Objective(training, init=jnp.ones(()), score=lambda w, hyper, key: w**2)
hyper = {"decay": 0.3}
exact, stored = (
    jax.grad(lambda h: objective(h, jax.random.key(0), adjoint=adjoint))(hyper)["decay"]
    for adjoint in (hg.Reversible(), hg.Stored())
)
assert abs(exact - stored) < 1e-6 and exact != 0
tuned = hg.tune(objective, hyper, optax.adam(0.1), steps=2)
assert tuned.value < objective(hyper, jax.random.key(0))

optimizer, family = hg.learned.CoordinateLSTM(hidden=(2,)), hg.learned.Quadratics(2)
options = {"steps": 2, "unroll": 2, "batch": 2, "iterations": 1, "evaluations": 2}
weights = hg.learned.fit(optimizer, family, **options).weights
assert jnp.isfinite(optax.tree.norm(weights))
assert hg.learned.load("quadratic").as_optax().init(jnp.ones(3)) is not None

for checkpointed in (
    lambda: hg.tune(objective, hyper, optax.adam(0.1), steps=2, checkpoint="states"),
    lambda: hg.learned.fit(optimizer, family, checkpoint="states", **options),
):
    try:
        checkpointed()
    except ModuleNotFoundError as error:
        assert 'pip install "hindgrad[checkpoint]"' in str(error), error
    else:
        raise AssertionError("a checkpoint without orbax")
"""

COMMAND = """
import hindgrad_command
sys.argv = ["hindgrad", "--help"]
hindgrad_command.main()
"""


def closure(requirements):
    """The distributions of these names, and all that they require."""
    found, left = set(), [Requirement(r).name for r in requirements]
    while left:
        name = normal(left.pop())
        if name in found:
            continue
        found.add(name)
        try:
            needed = map(Requirement, metadata.requires(name) or [])
        except metadata.PackageNotFoundError:
            continue
        left += [r.name for r in needed if not r.marker or r.marker.evaluate({"extra": ""})]
    return found


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def refusing():
    """A program after which whatever the library does not require cannot be imported."""
    core = closure(PROJECT["dependencies"]) | {"hindgrad"}
    packages = metadata.packages_distributions()
    refused = {name for name, of in packages.items() if core.isdisjoint(map(normal, of))}
    of_extras = {
        Requirement(r).name for rs in PROJECT["optional-dependencies"].values() for r in rs
    }
    missing = of_extras - core - {normal(d) for name in refused for d in packages[name]}
    assert not missing, "these cannot be refused, as they are not installed"
    return REFUSING.format(refused=refused)


def run(*command, cwd, path=True):
    hidden = () if path else ("PYTHONPATH",)
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)


def check_command(done):
    assert done.returncode == 2
    assert re.fullmatch(r'hindgrad: .*: pip install "hindgrad\[cli\]"\n', done.stderr)


def test_the_library_needs_no_extra(refusing, tmp_path):
    done = run(sys.executable, "-c", refusing + LIBRARY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not any(tmp_path.iterdir())


def test_the_command_says_what_to_install(refusing, tmp_path):
    check_command(run(sys.executable, "-c", refusing + COMMAND, cwd=tmp_path))


def test_help_loads_no_jax(tmp_path):
    """Parsing is quick; `import hindgrad` loads what is asked for."""
    quick = REFUSING.format(refused={"jax", "jaxlib", "equinox", "optax", "pandas", "matplotlib"})
    for arguments in (["--help"], ["tune", "--help"]):
        command = COMMAND.replace('"--help"', ", ".join(map(repr, arguments)))
        done = run(sys.executable, "-c", quick + command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "usage: hindgrad" in done.stdout


@pytest.mark.slow
def test_a_plain_installation_is_enough(tmp_path):
    """In an environment of its own, `pip install .` without extras."""
    python = tmp_path / "bin" / "python"
    for command in (
        (sys.executable, "-m", "venv", tmp_path),
        (python, "-m", "pip", "install", "--quiet", ROOT),
    ):
        done = run(*command, cwd=tmp_path, path=False)
        assert done.returncode == 0, done.stderr
    done = run(python, "-c", LIBRARY, cwd=tmp_path, path=False)
    assert done.returncode == 0, done.stderr
    check_command(run(python.with_name("hindgrad"), "--help", cwd=tmp_path, path=False))

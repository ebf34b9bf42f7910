"""What the experiments' tests share: a run with the small settings, and what it left behind."""

import json

import pytest
from matplotlib.image import imread
from rich.console import Console

from experiments import runner
from experiments.settings import Reproduce


@pytest.fixture(scope="module")
def reproduced(request):
    """Runs the `experiment` of the test file in a folder, with its small settings."""
    experiment = request.module.experiment
    name = experiment.__name__.rpartition(".")[2].replace("_", "-")

    def into(out, **options):
        asked = Reproduce(name, out=out, **options)
        runner.reproduce(experiment, experiment.SMALL, asked, Console(width=160))
        return json.loads((out / "results.json").read_text())

    return into


@pytest.fixture(scope="module")
def finished(reproduced, tmp_path_factory):
    """The folder of a finished run."""
    out = tmp_path_factory.mktemp("finished") / "out"
    reproduced(out)
    return out


@pytest.fixture
def results(finished):
    """Its results, which a test may change."""
    return json.loads((finished / "results.json").read_text())


@pytest.fixture(scope="module")
def written(finished):
    """The names of the pictures and tables, where each picture is large enough to be read."""
    for path in finished.glob("*.png"):
        assert min(imread(path).shape[:2]) > 300, path
    names = {path.name for path in finished.iterdir()}
    always = {"table.md", "summary.md", "results.json"}
    assert always <= names
    return names - always

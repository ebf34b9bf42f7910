"""What the tests of several commands share."""

import json

import pytest


@pytest.fixture
def results(finished):
    """The results of a module's `finished` run."""
    return json.loads((finished / "results.json").read_text())

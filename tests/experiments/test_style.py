"""The rules for the sizes of files and functions, for the experiments."""

from pathlib import Path

import pytest

import experiments
from tests.test_style import check_sizes

SOURCE = Path(experiments.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_sizes(path):
    check_sizes(path)

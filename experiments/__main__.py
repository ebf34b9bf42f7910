"""`python -m experiments NAME`: runs an experiment from a paper on real data, and reports it."""

import sys

import tyro

from experiments import reproduce
from experiments.settings import Reproduce
from hindgrad.apps.console import Output

if __name__ == "__main__":
    reproduce.run(tyro.cli(Reproduce, prog="python -m experiments"), Output())
    sys.exit()

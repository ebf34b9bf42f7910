"""Trainings side by side."""

import itertools
import threading

import jax
import numpy as np
import pytest

from hindgrad.apps.model import Network, draw_problem
from hindgrad.apps.table import Table
from hindgrad.apps.tune import trials as module


def test_an_interruption_waits_for_no_training(monkeypatch):
    over, ended, numbers = threading.Event(), threading.Event(), itertools.count()

    def one(problem, hyper, key):
        if next(numbers) == 0:
            raise KeyboardInterrupt
        over.wait(60)
        ended.set()

    monkeypatch.setattr(module, "_one", one)
    monkeypatch.setattr(module, "cores", lambda: 2)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    x, y = np.arange(60.0).reshape(30, 2), np.arange(30, dtype=np.int32) % 2
    table = Table("half", x, y, "classification", ("no", "yes"), ("p", "q"), "y")
    network = Network((2, 2), "classification", 10, 8)
    problem, _ = draw_problem(table, network, test=0.2, valid=0.2, seed=0)
    with pytest.raises(KeyboardInterrupt):
        module.trials(problem, [network.defaults()] * 50, [jax.random.key(0)] * 50)
    assert not ended.is_set()
    over.set()
    assert next(numbers) < 10

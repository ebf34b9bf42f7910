"""Many small random trainings, each through the library and through a plain loop.

`HINDGRAD_FUZZ_CASES=20000 python -m pytest tests/fuzz/test_trainings.py` runs more of them than
the default; with `HINDGRAD_TEST_SEED` they are others. A failure names its number;
`python -m tests.fuzz.trainings NUMBER` runs that alone.
"""

import os
from collections import Counter

import jax
import pytest

from conftest import SEED
from tests.fuzz import properties, trainings
from tests.fuzz.case import Case
from tests.fuzz.rules import EVERY

CASES = int(os.environ.get("HINDGRAD_FUZZ_CASES", "60"))
BLOCK = 20
"""Cases after which compiled programs are forgotten: a process has only so many mappings."""
FIRST = 1_000_000 * SEED


@pytest.mark.parametrize("first", range(FIRST, FIRST + CASES, BLOCK))
def test_trainings(first):
    wrong, away = [], 0
    for seed in range(first, min(first + BLOCK, FIRST + CASES)):
        for check, verdict, text in properties.judged(seed, count=1):
            away += verdict == "refused" and text == properties.NOT_HOME
            if verdict == "wrong":
                wrong.append(f"python -m tests.fuzz.trainings {seed}: {check}: {text}")
    jax.clear_caches()
    assert not wrong, "\n".join(wrong)
    assert away <= 1, f"{away} runs of {BLOCK} cases did not come home"


def test_what_is_drawn():
    """All operations, entries, batches and dtypes come among the first thousand."""
    cases = [trainings.draw(seed) for seed in range(1000)]
    assert {name for case in cases for name, _ in case.operations} == set(EVERY)
    for draws, at_least in (
        (Counter(case.entry for case in cases), {"objective", "training", "unrolled", "resumed"}),
        (Counter(case.batching for case in cases), {"minibatches", "full", "own", "drawn"}),
        (Counter(case.precision for case in cases), set(trainings.PRECISIONS)),
        (Counter(type(case.optimizer).__name__ for case in cases), {"Momentum", "Adam", "Optax"}),
    ):
        assert set(draws) == at_least
        assert min(draws.values()) >= 30
    assert {case.steps for case in cases} == set(range(1, 13))
    assert all(isinstance(case, Case) and case.trained for case in cases)


def test_a_wrong_derivative_is_noticed(monkeypatch):
    """One that is off by a millionth."""
    right = properties.library.score

    def off(case, adjoint):
        function = right(case, adjoint)
        return lambda hyper: function(jax.tree.map(lambda x: x * (1 + 1e-6), hyper))

    case = trainings.draw(0)
    judge = properties.Judge(case)
    check = properties.Check(None, "jit")
    assert judge.verdict(check)[0] == "right"
    monkeypatch.setattr(properties.library, "score", off)
    assert judge.verdict(check)[0] == "wrong"

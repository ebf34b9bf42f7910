"""Static misuse: what a user reads, without the type checks that are switched on in tests."""

import subprocess
import sys

import pytest

CASES = {
    "hg.Training(loss, optimizer='sgd', batches=loss, steps=3)": "optimizer='sgd') is not an opti",
    "hg.Training(loss, optimizer=optax.sgd(1.0), batches=loss, steps=3)": "from_optax(lambda",
    "hg.Training(loss, optimizer=momentum, batches=3, steps=3)": "batches=3) is not a function",
    "hg.Training(None, optimizer=momentum, batches=loss, steps=3)": "loss=None) is not a function",
    "hg.Training(loss, optimizer=momentum, batches=loss, steps=2.5)": "steps=2.5: a whole number",
    "hg.unroll(loss, 1.0, 1.0, 2, adjoint='stored')": "adjoint='stored' is not an adjoint",
    "hg.from_optax(optax.adam(0.1))": "function of the hyperparameters",
    "hg.Momentum('0.1')": "a number or a function",
    "hg.tune(lambda h: h['a'] ** 2, {'a': 1}, optax.adam(0.1), steps=3)": "without a float",
    "hg.check(lambda h: h['a'] ** 2, {'a': 1})": "without a float",
    "hg.tune(lambda h: h ** 2, 1.0, optax.adam(0.1), steps=0)": "at least 1",
    "hg.tune(lambda h: h ** 2, 1.0, 0.1, steps=3)": "is not an optax optimizer",
    "hg.tune(lambda h: h ** 2, 1.0, optax.adam(0.1), steps=3, choose=3)": "is not a function",
    "hg.tune(lambda h: h ** 2, 1.0, optax.adam(0.1), steps=3, adjoint=hg.Stored)": "not an adjoint",
}

PROGRAM = """
import optax, hindgrad as hg
loss, momentum = (lambda *args: 0.0), hg.Momentum(0.1)
for case in {cases!r}:
    try:
        eval(case)
        print("nothing raised")
    except (TypeError, ValueError) as error:
        print(str(error).replace("\\n", " "))
"""


@pytest.fixture(scope="module")
def messages():
    program = PROGRAM.format(cases=list(CASES))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return dict(zip(CASES, done.stdout.splitlines(), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_message(messages, case):
    assert CASES[case] in messages[case]

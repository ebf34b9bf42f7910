"""The certificate in words."""

import pytest

from hindgrad.apps.explain.words import HEADS, dump, lines
from hindgrad.attribution.certificate import Certificate, Removal

GOOD = Certificate(
    bar=0.9,
    runs=20,
    dropped=7,
    examples=700,
    name="hyper['weight']",
    lds={0: 0.98, 2: 0.96},
    interval=(0.95, 0.99),
    unmoved=[],
    unscored=[],
    ratio=1.0,
    faintness=1e4,
    top={0: Removal(1.0, 2.0, 2.0, 1.0, 0.1, 1.2), 2: Removal(1.0, 1.1, 1.1, 1.0, 0.1, 1.2)},
    diverged=0,
    metasmoothness=1.0,
    precision=None,
)

BAD = {
    "unmoved": ({"unmoved": [1]}, "Of row 5 nothing can be said"),
    "unscored": ({"unmoved": [1], "unscored": [1]}, "Of row 5 this says nothing"),
    "faint": ({"faintness": 3.0}, "in their last digits only"),
    "diverged": ({"diverged": 2}, "2 of the trainings diverged"),
    "chaotic": ({"metasmoothness": 0.2}, "The training is chaotic"),
    "beyond": ({"ratio": 3.2}, "The changes are 3.2 times as large as foretold"),
    "undecided": ({"interval": (0.8, 0.99)}, "20 trainings do not decide: give more, --runs 80."),
    "unknown": ({"lds": {0: 0.5}, "interval": (0.3, 0.6)}, "No single cause shows"),
    "nothing": ({"lds": {}, "interval": None, "unmoved": [0, 1]}, "whatever is left out"),
}


def told(certificate, tuned=False):
    return " ".join(lines(dump(certificate), ["row 3", "row 5", "row 7"], tuned=tuned))


def test_a_good_certificate_says_what_was_done_and_found():
    text = told(GOOD)
    assert "trained again 20 times, each time without 7 of its 700 training rows" in text
    assert "a rank correlation of 0.970" in text
    assert "95 % interval 0.950 to 0.990; 0.9 is asked for" in text
    assert "Without the 7 rows said to matter most, 1 of 2 predictions changed by more" in text
    assert told(GOOD) == told(GOOD, tuned=True)


@pytest.mark.parametrize("name", BAD)
def test_each_trouble_is_said_with_what_helps(name):
    change, expected = BAD[name]
    certificate = GOOD._replace(**change)
    assert expected in told(certificate)


@pytest.mark.parametrize("name", BAD)
def test_nobody_is_told_to_write_a_program(name):
    text = told(GOOD._replace(**BAD[name][0])) + " ".join(HEADS.values())
    assert not any(word in text for word in ("hg.", "hyper[", "hyper ", "lambda", "certify"))


def test_who_has_tuned_is_not_told_to_tune_first():
    chaotic = GOOD._replace(metasmoothness=0.2)
    assert "tune it first" in told(chaotic)
    assert "tune it first" not in told(chaotic, tuned=True)

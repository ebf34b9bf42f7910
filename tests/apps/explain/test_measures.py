"""How changes read."""

import numpy as np
import pytest

from hindgrad.apps.explain.measures import Amount, Chance, number, percent, signed


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.5, "50.0 %"),
        (0.0312, "3.1 %"),
        (0.00312, "0.31 %"),
        (3e-5, "0.0030 %"),
        (0.99997, "99.9970 %"),
        (0.0, "0.0 %"),
        (1.0, "100.0 %"),
        (1e-12, "0.000000 %"),
    ],
)
def test_a_probability_has_the_digits_that_tell_it_from_0_and_1(p, text):
    assert percent(p) == text


def test_numbers_read_as_people_write_them():
    assert [number(x) for x in (1234567.0, -0.001234, 17.0, 3e-9)] == [
        "1,234,567",
        "−0.001234",
        "17",
        "3e−09",
    ]
    assert [signed(x) for x in (-0.0123, 12.3, 1234.5, 0.0)] == ["−0.012", "+12", "+1,234", "+0"]


def test_a_chance_follows_its_loss():
    chance = Chance(-np.log(0.2), "yes")
    assert chance.becomes(0.0) == pytest.approx(0.2)
    assert chance.becomes(np.log(2)) == pytest.approx(0.1)
    assert chance.becomes(-10.0) == 1.0
    assert chance.difference(np.log(2)) == pytest.approx(-10.0)
    assert chance.after(np.log(2)) == "10.0 % (−10)"
    assert chance.helps == 1


@pytest.mark.parametrize(("right", "helps"), [(5.0, 1), (20.0, -1), (None, -1)])
def test_a_row_that_holds_an_answer_near_the_label_speaks_for_it(right, helps):
    """Without it the answer, 10 here, moves away: up from a label below, down from one above.
    Without a label, what pushes up comes first."""
    amount = Amount(10.0, 2.0, "price", right)
    assert amount.helps == helps
    assert amount.becomes(0.5) == 11.0
    assert amount.after(0.5) == "11 (+1)"

"""The figures of a page: what they show is what the pictures show."""

import numpy as np
import pytest

from apps.report.test_figures import ANSWERS, CURVES, PROGRESS, TUNED, arms
from hindgrad.apps.report import interactive
from hindgrad.apps.report.figures import Curve
from hindgrad.apps.report.page import Figure, Page, Section


def named(figure, name):
    """The lines of that name, from left to right."""
    return [trace for trace in figure.data if trace.name == name]


def test_curves():
    figure = interactive.curves(CURVES, "loss")
    for name, pair in CURVES.items():
        for line, curve in zip(named(figure, name), pair, strict=True):
            np.testing.assert_allclose(line.y, curve.values.mean(0))
            np.testing.assert_array_equal(line.x, curve.x)
    assert figure.layout.yaxis2.title.text == "loss on the validation rows"


def test_progress():
    figure = interactive.progress(PROGRESS, ANSWERS, 0.9, "loss")
    (line,) = named(figure, "tuned")
    np.testing.assert_allclose(line.y, PROGRESS["tuned"].values.mean(0))
    diamonds = [trace for trace in figure.data if trace.mode == "markers"]
    assert [(trace.x[0], trace.y[0]) for trace in diamonds] == list(ANSWERS.values())
    assert set(named(figure, "defaults")[0].y) == {0.9}


def test_schedules():
    """Each value over its part of the training."""
    figure = interactive.schedules(TUNED)
    *_, rate, decay = named(figure, "layer 2")
    thin = [line for line in named(figure, "layer 2") if line.line.width == 1]
    assert len(thin) == 2 * len(TUNED.others)
    np.testing.assert_allclose(decay.y[::2], TUNED.hyper["decay"][:, 1])
    assert (decay.x[0], decay.x[1], decay.x[-1]) == (0, 30, 300)
    assert len(decay.x) == 20
    assert not set(rate.y) & set(decay.y)


def test_outcome():
    figure = interactive.outcome(arms(("defaults", "tuned")), "loss")
    seeds, mean = (trace.x for trace in figure.data[-2:])
    assert len(seeds) == 5
    np.testing.assert_allclose(mean, [np.mean(seeds)])
    assert figure.data[-1].y == ("defaults",)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_numbers_that_no_axis_shows(browser, tmp_path, value):
    """They are left out, and the page is drawn."""
    odd = Curve(np.arange(3), np.array([[0.5, 0.2, value], [0.5, 0.3, 0.1]]))
    none = Curve(np.arange(3), np.full((2, 3), value))
    figure = interactive.curves({"defaults": (odd, none), "tuned": (odd, none)}, "loss")
    path = tmp_path / "page.html"
    path.write_text(Page("x", [Section("y", [Figure(figure)])]).html(), encoding="utf-8")
    browser.get(path.as_uri())
    assert browser.get_log("browser") == []
    lines = browser.find_elements("css selector", ".scatterlayer .trace")
    assert len(lines) >= 4
    ticks = browser.find_elements("css selector", ".ytick text")
    assert {"0.2", "0.5"} <= {tick.text for tick in ticks}

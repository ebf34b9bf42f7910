"""Pictures of losses with several optimizers: what is drawn, and awkward curves."""

import itertools
import json

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from hindgrad.apps.report.figures import save
from hindgrad.apps.report.optimizer_curves import (
    BASELINES,
    Panel,
    Summary,
    curves_figure,
    from_json,
    history_figure,
    summary,
)


def losses(rate, problems=20, steps=30, seed=0):
    """Losses that fall at a rate, from one start for each problem."""
    starts = np.exp(np.random.default_rng(seed).normal(size=(problems, 1)))
    return starts * np.exp(-rate * np.arange(steps + 1))[None]


BASE = {name: summary(losses(0.01 * (i + 1))) for i, name in enumerate(BASELINES)}
ONE = {"LSTM": summary(losses(0.1))}
ROCKET = losses(-9.0)
ROCKET[:, 20:] = np.nan
HUGE = np.full((5, 31), np.inf)


def boxes(figure):
    """The places of the names at the ends of the lines."""
    FigureCanvasAgg(figure).draw()
    texts = [t for t in figure.axes[0].texts if t.get_text().split()[0] in {*BASELINES, "LSTM"}]
    return {t.get_text(): Text.get_window_extent(t) for t in texts}


def test_a_summary_counts_what_diverges_as_infinite():
    values = np.tile(np.arange(1.0, 11.0)[:, None], (1, 3))
    values[0, 1], values[:6, 2] = np.nan, np.inf
    found = summary(values)
    assert found.mean.tolist() == [5.5, np.inf, np.inf]
    assert found.median.tolist() == [5.5, 6.5, np.inf]
    assert found.low.tolist() == [2, 3, 8]
    assert found.high.tolist() == [9, 10, np.inf]


def test_a_summary_survives_json():
    found = summary(ROCKET)
    again = from_json(json.loads(json.dumps(found.as_json(), allow_nan=False)))
    for old, new in zip(found, again, strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("line", ["mean", "median"])
def test_the_lines_are_the_summaries(line):
    figure = curves_figure([Panel("some", ONE, BASE)], line=line)
    drawn = [ln.get_ydata() for ln in figure.axes[0].lines if len(ln.get_ydata()) == 31]
    for found, values in zip((*BASE.values(), *ONE.values()), drawn, strict=True):
        np.testing.assert_array_equal(values, getattr(found, line))
    assert f"{line} of the problems; band: 10 to 90 % of them" in [
        text.get_text() for text in figure.axes[0].texts
    ]


def test_names_stand_apart_even_where_lines_end_together():
    same = {name: summary(losses(0.05) * (1 + i / 1e4)) for i, name in enumerate(BASELINES)}
    found = boxes(curves_figure([Panel("some", {"LSTM": summary(losses(0.05))}, same)]))
    assert set(found) == {*BASELINES, "LSTM"}
    placed = sorted(found.values(), key=lambda box: box.y0)
    for below, above in itertools.pairwise(placed):
        assert above.y0 >= below.y0 + 0.8 * below.height


def test_names_stand_in_the_order_of_the_lines():
    found = boxes(curves_figure([Panel("some", ONE, BASE)]))
    assert sorted(found, key=lambda name: -found[name].y0) == [*BASELINES, "LSTM"]


def test_an_explosion_does_not_squeeze_the_others():
    for wild in (ROCKET, HUGE):
        figure = curves_figure([Panel("some", ONE | {"wild": summary(wild)}, BASE)])
        low, high = figure.axes[0].get_ylim()
        assert high < 10 * BASE["SGD"].mean[0]
        assert low < ONE["LSTM"].mean[-1]
        assert any(text.get_text() == "wild (diverges)" for text in figure.axes[0].texts)


def test_the_horizon_is_marked_where_there_is_something_beyond():
    mark = lambda horizon: [
        text.get_text()
        for text in curves_figure([Panel("some", ONE, horizon=horizon)]).axes[0].texts
        if "trained" in text.get_text()
    ]
    assert mark(20) == ["trained to here"]
    assert mark(30) == []


AWKWARD = [
    [Panel("a", ONE)],
    [Panel("a", {}, BASE)],
    [Panel("a", ONE, {"mine": ONE["LSTM"], "another": ONE["LSTM"]})],
    [Panel("a", {"zero": summary(np.zeros((3, 5)))})],
    [Panel("a", {"short": Summary(*np.ones((4, 1)))})],
    [Panel("a", {"all": summary(HUGE)})],
    [Panel("a", ONE, BASE, 20, {"LSTM": {10: 0.3}, "nobody": {5: 1.0}})] * 5,
]


@pytest.mark.parametrize("panels", AWKWARD, ids=range(len(AWKWARD)))
def test_is_drawn(tmp_path, panels):
    save(curves_figure(panels), tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5_000


def test_the_history_marks_what_was_taken(tmp_path):
    figure = history_figure([(0, 3.0), (10, None), (20, 0.5), (30, 0.7)], about="loss", best=20)
    assert [text.get_text() for text in figure.axes[0].texts] == ["taken: 0.5"]
    save(figure, tmp_path / "history.png")
    save(history_figure([(0, -1.0), (5, -2.0)], about="log", best=5), tmp_path / "negative.png")
    save(history_figure([(0, None)], about="loss", best=0), tmp_path / "none.png")

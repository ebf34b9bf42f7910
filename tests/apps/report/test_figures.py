"""Pictures: that each is drawn, from ordinary and from awkward numbers."""

import sys

import numpy as np
import pytest
from matplotlib.image import imread

from hindgrad.apps.report import figures
from hindgrad.apps.report.figures import Curve, Tuned
from hindgrad.apps.report.tables import METRICS, Arm

RNG = np.random.default_rng(0)


def arms(names=("defaults", "random, global", "TPE, per layer", "tuned")):
    return [
        Arm(name, [100] * 5, {metric: RNG.uniform(0.1, 1, 5) for metric in METRICS})
        for name in names
    ]


def hyper(layers=3):
    return {
        "rate": RNG.uniform(0.1, 1, (10, layers)),
        "decay": RNG.uniform(0.1, 1, (10, layers)),
        "weight_decay": RNG.uniform(1e-5, 1e-3, layers),
        "scale": RNG.uniform(0.5, 2, layers),
    }


def curve(points=20, runs=3):
    return Curve(np.arange(points) * 10, RNG.uniform(0.1, 1, (runs, points)))


CURVES = {arm.name: (curve(), curve()) for arm in arms()}
TUNED = Tuned(hyper(), [hyper(), hyper()], hyper(), steps=300)
PROGRESS = {"random, global": curve(), "tuned": curve()}
ANSWERS = {"random, global": (200, 0.3), "tuned": (200, 0.2)}


def size(figure, path):
    figures.save(figure, path)
    return imread(path).shape[:2]


def test_every_picture_is_drawn(tmp_path):
    drawn = {
        "curves": figures.curves_figure(CURVES, "loss"),
        "schedules": figures.schedules_figure(TUNED),
        "progress": figures.progress_figure(PROGRESS, ANSWERS, 0.9, "loss"),
        "overview": figures.overview_figure(
            arms(), CURVES, TUNED, PROGRESS, ANSWERS, title="digits", loss="loss"
        ),
    }
    for name, figure in drawn.items():
        height, width = size(figure, tmp_path / f"{name}.png")
        assert width > 600, name
        assert height > 300, name


def test_a_run_without_searches_has_an_overview(tmp_path):
    few = arms(("defaults", "given"))
    curves = {arm.name: (curve(runs=1), curve(runs=1)) for arm in few}
    figure = figures.overview_figure(
        few, curves, Tuned(hyper(1), [], hyper(1), 10), {}, {}, title="", loss="loss"
    )
    assert size(figure, tmp_path / "overview.png")[1] > 600


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_runs_that_blew_up_can_be_drawn(tmp_path, bad):
    broken = Curve(np.arange(3), np.array([[1.0, bad, bad], [1.0, 0.5, bad]]))
    some = arms()
    some[0].values["test_loss"][0] = bad
    figure = figures.overview_figure(
        some,
        {"defaults": (broken, broken)},
        TUNED,
        {"tuned": broken},
        {"tuned": (3, bad)},
        title="",
        loss="loss",
    )
    assert size(figure, tmp_path / "overview.png")[1] > 600


def test_no_global_state_is_touched():
    assert "matplotlib.pyplot" not in sys.modules

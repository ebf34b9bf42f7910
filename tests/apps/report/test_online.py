"""The picture of real-time tuning: drawn, for ordinary and awkward trajectories."""

import jax
import numpy as np
import pytest
from matplotlib.image import imread

from hindgrad.apps.report.online import plot_online
from hindgrad.tuning.online import OnlineResult, Trajectory

RNG = np.random.default_rng(0)


def result(changes=20, undone=(), hyper=None, values=None):
    status = np.zeros(changes, np.int32)
    status[list(undone)] = 2
    values = RNG.uniform(0.1, 1, changes) if values is None else values
    values = np.where(status == 2, np.nan, values)
    steps = 10 * np.cumsum(status != 2) + 10 * (status == 2)
    hyper = {"rate": RNG.uniform(0, 1, changes)} if hyper is None else hyper
    trajectory = Trajectory(jax.tree.map(lambda x: x[0], hyper), steps, hyper, values, status)
    losses = RNG.uniform(0.1, 1, int(steps.max()) + 3)
    return OnlineResult(None, None, None, trajectory, losses, "")


LAYERS = {
    "rate": {"hidden": RNG.uniform(0, 1, (20, 3)), "out": RNG.uniform(0, 1, (20, 2))},
    "weights": RNG.uniform(0, 1, (20, 5, 10)),
    "none": None,
}


@pytest.mark.parametrize(
    ("case", "rows"),
    [
        (result(), 2),
        (result(undone=(3, 4, 11)), 2),
        (result(hyper=LAYERS), 4),
        (result(changes=1), 2),
        (result(hyper=RNG.uniform(0, 1, 20)), 2),
        (result(changes=500), 2),
        (result(values=np.zeros(20)), 2),
    ],
    ids=["ordinary", "undone", "layers", "one change", "one number", "long", "zero losses"],
)
def test_is_drawn(tmp_path, case, rows):
    """One panel for the losses and one for each hyperparameter."""
    plot_online(case, tmp_path / "online.png")
    height, width = imread(tmp_path / "online.png").shape[:2]
    one = tmp_path / "one.png"
    plot_online(result(), one)
    assert width == imread(one).shape[1]
    if rows > 2:
        assert height > 1.5 * imread(one).shape[0]

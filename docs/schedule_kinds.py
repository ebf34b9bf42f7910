"""The picture of what each kind of schedule makes of the same five numbers:
`python docs/schedule_kinds.py` draws it into docs/images."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

import hindgrad as hg
from hindgrad.apps.report.figures import INK, PALETTE, head, log_y, new_figure, save, tidy

STEPS = 1000
NUMBERS = jnp.log(jnp.array([0.02, 0.3, 0.1, 0.08, 0.005]))


def main() -> None:
    figure = new_figure(9.6, 3.0)
    axes = figure.subplots(1, 3, sharey=True)
    kinds = (hg.schedules.Piecewise, hg.schedules.Linear, hg.schedules.Spline)
    colors = (PALETTE["random"], PALETTE["TPE"], PALETTE["tuned"])
    for ax, kind, color in zip(axes, kinds, colors, strict=True):
        schedule = kind(knots=len(NUMBERS), steps=STEPS)
        windows = kind is hg.schedules.Piecewise
        places = (np.arange(5) + 0.5) * STEPS / 5 if windows else np.linspace(0, STEPS - 1, 5)
        ax.stairs(schedule.values(NUMBERS), np.arange(STEPS + 1), baseline=None, color=color, lw=2)
        ax.plot(places, jnp.exp(NUMBERS), "o", color=INK, markersize=5, zorder=3)
        head(ax, kind.__name__, legend=False)
        log_y(ax)
        ax.set_xlabel("training step")
        tidy(ax)
    axes[0].set_ylabel("rate")
    save(figure, Path(__file__).parent / "images" / "schedule-kinds.png")


if __name__ == "__main__":
    main()

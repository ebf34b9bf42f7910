"""Pictures of losses step by step with several optimizers, learned ones and others."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from hindgrad.apps.report.figures import INK, PALETTE, head, new_figure, tidy
from hindgrad.apps.work import finite, infinite

LEARNED = (PALETTE["tuned"], "#8e44ad", "#d9661f", "#5b3a1a", "#d870c4")
BASELINES = {
    "SGD": "#8a96a3",
    "momentum": "#2f7fb5",
    "Nesterov": "#2a9d8f",
    "RMSprop": "#c9971c",
    "Adam": "#4a5a9c",
}
OTHERS = ("#6b8e23", "#7d6b5d", "#5f9ea0")

QUANTILES = (0.1, 0.9)
"""The band holds the problems between these."""

ABOVE = 2.0
"""Curves that rise are cut at this multiple of the largest loss at the first step."""

BELOW = 10.0
"""Bands are cut at this fraction of the lowest line."""


class Summary(NamedTuple):
    """Losses of many problems at steps 0, 1, …; what diverges counts as infinite."""

    mean: Float[np.ndarray, " steps+1"]
    median: Float[np.ndarray, " steps+1"]
    low: Float[np.ndarray, " steps+1"]
    """The lower of `QUANTILES`."""
    high: Float[np.ndarray, " steps+1"]

    def as_json(self) -> dict[str, list[float | None]]:
        """As JSON can hold it, with null for infinity."""
        return {name: [finite(v) for v in values] for name, values in self._asdict().items()}


def summary(losses: Any) -> Summary:
    """The summary of losses, [problems, steps + 1]."""
    losses = np.asarray(losses, np.float64)
    losses = np.where(np.isfinite(losses), losses, np.inf)
    # The nearest problem, as interpolation between infinities gives NaN.
    low, high = np.quantile(losses, QUANTILES, axis=0, method="nearest")
    return Summary(losses.mean(axis=0), np.median(losses, axis=0), low, high)


def from_json(saved: Mapping[str, Sequence[float | None]]) -> Summary:
    """The summary that `as_json` gave."""
    return Summary(
        **{name: np.array([infinite(v) for v in saved[name]]) for name in Summary._fields}
    )


class Panel(NamedTuple):
    """One task, or one length of training."""

    title: str
    learned: Mapping[str, Summary]
    """The curves that matter, with their bands."""
    baselines: Mapping[str, Summary] = {}
    horizon: int | None = None
    """How many steps the learned ones were trained for, marked where there are more."""
    points: Mapping[str, Mapping[int, float]] = {}
    """Points of a paper, loss by step, in the color of the optimizer of that name."""
    line: Literal["mean", "median"] | None = None
    """If another than in the other panels."""


def curves_figure(
    panels: Sequence[Panel],
    *,
    line: Literal["mean", "median"] = "mean",
    loss: str = "loss",
    source: str = "the paper",
    columns: int | None = None,
) -> Figure:
    """Losses over the steps on a logarithmic axis, panel by panel: the mean or median of the
    problems as lines with their names at the end, and a band of quantiles for the learned ones.
    Crosses are points from `source`."""
    if columns is None:
        columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = new_figure(max(6.4, 5.0 * columns + 0.4), 4.4 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, panel in zip(axes, panels, strict=False):
        drawn = panel.line or line
        draw_panel(ax, panel, line=drawn, height=3.4)
        low, high = (f"{100 * q:.0f}" for q in QUANTILES)
        about = f"{drawn} of the problems; band: {low} to {high} % of them"
        if panel.points:
            about += f"; ×: {source}"
        head(ax, panel.title, legend=False)
        ax.annotate(
            about, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points",
            fontsize=8.5, color=PALETTE["defaults"],
        )  # fmt: skip
        ax.set_xlabel("step")
    for ax in axes[::columns]:
        ax.set_ylabel(loss)
    for ax in axes[len(panels) :]:
        ax.axis("off")
    return figure


def draw_panel(ax: Axes, panel: Panel, *, line: Literal["mean", "median"], height: float) -> None:
    """Draws a panel on axes that are about so many inches high."""
    ends: dict[str, tuple[float, str]] = {}
    lines = []
    for name, color, found, learned in _looks(panel):
        values = getattr(found, line)
        x = np.arange(len(values))
        lines.append(values)
        if learned:
            ax.fill_between(x, found.low, found.high, color=color, alpha=0.14, linewidth=0)
        ax.plot(x, values, color=color, linewidth=2.4 if learned else 1.3, zorder=3 + learned)
        ends[name] = (float(values[-1]), color)
        points = panel.points.get(name, {})
        ax.plot(*_pairs(points), "x", color=color, markersize=6, markeredgewidth=1.6, zorder=6)
        lines.append(np.array(list(points.values()), float))
    steps = max(len(values) for values in lines) - 1
    _limits(ax, panel, lines)
    ax.set_xlim(0, max(1, steps))
    if panel.horizon is not None and panel.horizon < steps:
        ax.axvline(panel.horizon, color=INK, linestyle=":", linewidth=1.2, zorder=2)
        ax.annotate(
            "trained to here", (panel.horizon, 1), (4, -3), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=8.5, color=INK, ha="left", va="top",
        )  # fmt: skip
    tidy(ax)
    _label_ends(ax, ends, height, set(panel.learned))


def history_figure(history: Sequence[tuple[int, float | None]], *, about: str, best: int) -> Figure:
    """The learning itself: what was measured on held-out problems, by iteration, and the iteration
    whose weights were taken."""
    figure = new_figure(6.4, 4.0)
    ax = figure.subplots()
    x = [iteration for iteration, _ in history]
    y = np.array([np.nan if value is None else value for _, value in history])
    ax.plot(x, y, "o-", color=PALETTE["random"], markersize=3, linewidth=1.4)
    taken = dict(history).get(best)
    if taken is not None:
        ax.plot(best, taken, "D", color=PALETTE["tuned"], markersize=7, zorder=4)
        ax.annotate(
            f"taken: {taken:.3g}", (best, taken), (0, 9), textcoords="offset points",
            fontsize=9, color=PALETTE["tuned"], ha="right", va="bottom", weight="bold",
        )  # fmt: skip
    if np.min(y[np.isfinite(y)], initial=np.inf) > 0 and np.isfinite(y).any():
        ax.set_yscale("log")
        _plain_log(ax)
    ax.margins(y=0.16)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlabel("iteration")
    tidy(ax)
    head(ax, about, legend=False)
    return figure


def _looks(panel: Panel) -> Iterator[tuple[str, str, Summary, bool]]:
    """Name, color, losses, and whether it is a learned one; these come last, on top."""
    others = iter(OTHERS * len(panel.baselines))
    for name, found in panel.baselines.items():
        color = BASELINES.get(name.split()[0].rstrip(","))
        yield name, color or next(others), found, False
    for i, (name, found) in enumerate(panel.learned.items()):
        yield name, LEARNED[i % len(LEARNED)], found, True


def _pairs(points: Mapping[int, float]) -> tuple[list[int], list[float]]:
    return list(points), list(points.values())


def _limits(ax: Axes, panel: Panel, lines: Sequence[np.ndarray]) -> None:
    """A logarithmic axis that holds the lines, but neither explosions nor the depths of bands."""
    starts = [float(values[0]) for values in lines if len(values) and np.isfinite(values[0])]
    seen = np.concatenate(lines)
    seen = seen[np.isfinite(seen) & (seen > 0)]
    if not len(seen):
        return
    ax.set_yscale("log")
    top = ABOVE * max(starts) if starts else seen.max()
    bands = np.concatenate([found.low for found in panel.learned.values()] or [seen])
    bands = bands[bands > 0]
    lowest = min(bands.min(initial=seen.min()), seen.min())
    bottom = max(lowest, seen.min() / BELOW) / 1.3
    ax.set_ylim(bottom, max(1.3 * min(seen.max(), top), 2 * bottom))
    _plain_log(ax)


def _plain_log(ax: Axes) -> None:
    """Ticks that read as plain numbers, and only as many as there is room for."""
    low, high = ax.get_ylim()
    decades = np.log10(high / low)
    if decades > 4:
        ax.yaxis.set_major_locator(LogLocator(numticks=8))
    else:
        subs = (1, 1.5, 2, 3, 5, 7) if decades < 1 else (1, 2, 5) if decades < 2.5 else (1, 3)
        ax.yaxis.set_major_locator(LogLocator(subs=subs, numticks=20))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def _label_ends(
    ax: Axes, ends: Mapping[str, tuple[float, str]], height: float, learned: set[str]
) -> None:
    """Names at the right end of the lines, moved apart where these are close."""
    inside = ax.transData + ax.transAxes.inverted()
    place = lambda value: inside.transform((0, np.clip(value, *ax.get_ylim())))[1]
    wanted = {name: float(place(value)) for name, (value, _) in ends.items()}
    size = 9.0
    placed = _apart(wanted, 1.25 * size / 72 / height)
    for name, (value, color) in ends.items():
        shown = name
        if value > ax.get_ylim()[1]:
            shown += " (rises)" if np.isfinite(value) else " (diverges)"
        ax.annotate(
            shown, (1, wanted[name]), (1.035, placed[name]), xycoords="axes fraction",
            textcoords="axes fraction", fontsize=size, color=color, va="center",
            weight="bold" if name in learned else "normal", annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.7,
                        "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)},
        )  # fmt: skip


def _apart(wanted: Mapping[str, float], gap: float) -> dict[str, float]:
    """Places at least `gap` apart, in the same order, in blocks around where they are wanted."""
    blocks: list[tuple[list[str], float]] = []
    for name in sorted(wanted, key=lambda name: wanted[name]):
        blocks.append(([name], wanted[name]))
        while len(blocks) > 1:
            (below, low), (above, high) = blocks[-2:]
            if high - low >= gap * (len(below) + len(above)) / 2:
                break
            names = below + above
            middle = sum(wanted[n] for n in names) / len(names)
            blocks[-2:] = [(names, middle)]
    return {
        name: middle + gap * (i - (len(names) - 1) / 2)
        for names, middle in blocks
        for i, name in enumerate(names)
    }

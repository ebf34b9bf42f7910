"""Pictures of a tuning. Every function draws on the axes it is given; nothing global is touched."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from hindgrad.apps.datasets import one_line
from hindgrad.apps.report.tables import Arm

INK, FAINT = "#22303c", "#d9dee3"
PALETTE = {"defaults": "#8a96a3", "random": "#2f7fb5", "TPE": "#e0a12e", "tuned": "#cf3f4f"}


@dataclass(frozen=True)
class Curve:
    """Values of several runs over a common axis."""

    x: np.ndarray
    values: np.ndarray
    """[runs, points]"""


Answers = Mapping[str, tuple[int, float]]
"""For each arm, what it spent in all and how its answer does."""


@dataclass(frozen=True)
class Tuned:
    """Hyperparameters in natural units, as the pictures show them; rates and decays have a row for
    each step, or for each of so many equal parts of the training."""

    hyper: Mapping[str, np.ndarray]
    others: Sequence[Mapping[str, np.ndarray]]
    """The other seeds', drawn thin."""
    before: Mapping[str, np.ndarray]
    steps: int


def color(name: str) -> str:
    """The color of an arm, by the first word of its name."""
    return PALETTE.get(name.split()[0].strip(","), PALETTE["tuned"])


def layer_colors(count: int) -> list:
    return list(matplotlib.colormaps["viridis"](np.linspace(0.08, 0.8, count)))


def curves_figure(curves: Mapping[str, tuple[Curve, Curve]], loss: str) -> Figure:
    """Learning curves: training and validation loss while training, for each arm."""
    figure = new_figure(9.6, 4.2)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, part, title in zip(axes, (0, 1), ("training rows", "validation rows"), strict=True):
        draw_curves(ax, {name: pair[part] for name, pair in curves.items()})
        head(ax, f"{loss} on the {title}")
    return figure


def schedules_figure(tuned: Tuned) -> Figure:
    """The learned schedules of each layer, and its weight decay and initial scale."""
    figure = new_figure(11.5, 4.2)
    axes = figure.subplots(1, 4, width_ratios=(3, 3, 1.3, 1.3))
    draw_schedule(axes[0], tuned, "rate")
    draw_schedule(axes[1], tuned, "decay")
    draw_layers(axes[2], tuned, "weight_decay", "weight decay")
    draw_layers(axes[3], tuned, "scale", "initial scale")
    return figure


def progress_figure(
    progress: Mapping[str, Curve], answers: Answers, default: float, loss: str
) -> Figure:
    """How far each way is after so many training gradients."""
    figure = new_figure(8.4, 4.6)
    ax = figure.subplots()
    draw_progress(ax, progress, answers, default)
    head(ax, f"validation {loss} while tuning")
    return figure


def overview_figure(
    arms: Sequence[Arm],
    curves: Mapping[str, tuple[Curve, Curve]],
    tuned: Tuned,
    progress: Mapping[str, Curve],
    answers: Answers,
    *,
    title: str,
    loss: str,
) -> Figure:
    """The whole story at a glance: the progress, the curves, the schedules, and the outcome."""
    figure = new_figure(12.0, 6.8)
    axes = figure.subplots(2, 2, width_ratios=(1.25, 1))
    figure.suptitle(title, x=0.01, ha="left", fontsize=14, fontweight="bold", color=INK)
    if progress:
        defaults = next(arm for arm in arms if arm.name == "defaults")
        draw_progress(axes[0, 0], progress, answers, defaults.mean("valid_loss"))
        head(axes[0, 0], f"tuning: validation {loss}")
    else:
        draw_schedule(axes[0, 0], tuned, "decay")
    draw_outcome(axes[0, 1], arms, "test_loss")
    head(axes[0, 1], f"outcome: test {loss}, seed by seed", legend=False)
    draw_schedule(axes[1, 0], tuned, "rate")
    draw_curves(axes[1, 1], {name: pair[1] for name, pair in curves.items()})
    head(axes[1, 1], f"training: validation {loss}")
    return figure


def draw_curves(ax: Axes, curves: Mapping[str, Curve]) -> None:
    for name, curve in curves.items():
        mean, low, high = band(curve.values)
        ax.fill_between(curve.x, low, high, color=color(name), alpha=0.15, linewidth=0)
        ax.plot(curve.x, mean, color=color(name), label=name, linewidth=1.8)
    log_y(ax)
    ax.set_xlabel("training step")
    tidy(ax)


def draw_schedule(ax: Axes, tuned: Tuned, name: str) -> None:
    """A schedule as steps, a line for each layer; the start is dashed."""
    values = tuned.hyper[name]
    colors = layer_colors(values.shape[1])
    edges = lambda array: np.linspace(0, tuned.steps, len(array) + 1)
    for other in tuned.others:
        for layer, c in enumerate(colors):
            ax.stairs(other[name][:, layer], edges(other[name]), baseline=None, color=c, alpha=0.22)
    for layer, c in enumerate(colors):
        label = f"layer {layer + 1}"
        heights = values[:, layer]
        ax.stairs(heights, edges(values), baseline=None, color=c, linewidth=2.2, label=label)
    before = tuned.before[name]
    ax.stairs(
        before.mean(axis=1), edges(before), baseline=None, color=INK, linestyle="--", label="start"
    )
    if name == "rate":
        log_y(ax)
    head(ax, {"rate": "learned rate", "decay": "learned momentum decay"}[name])
    ax.set_xlabel("training step")
    tidy(ax)


def draw_layers(ax: Axes, tuned: Tuned, name: str, title: str) -> None:
    """One number for each layer, and the others' spread."""
    values = tuned.hyper[name]
    x = np.arange(1, len(values) + 1)
    for other in tuned.others:
        ax.plot(x, other[name], "o", color=FAINT, markersize=5, zorder=1)
    ax.scatter(x, values, c=layer_colors(len(values)), s=60, zorder=3)
    ax.axhline(float(tuned.before[name].mean()), color=INK, linestyle="--", linewidth=1)
    log_y(ax)
    ax.set_xlim(0.5, len(values) + 0.5)
    ax.set_xticks(x)
    ax.set_xlabel("layer")
    head(ax, title, legend=False)
    tidy(ax)


def draw_progress(
    ax: Axes, progress: Mapping[str, Curve], answers: Answers, default: float
) -> None:
    """Mean and range over the seeds; a diamond is the answer in the end."""
    ax.axhline(default, color=PALETTE["defaults"], linestyle="--", linewidth=1.2, label="defaults")
    for name, curve in progress.items():
        mean, low, high = band(curve.values)
        ax.fill_between(curve.x, low, high, color=color(name), alpha=0.13, linewidth=0)
        ax.plot(curve.x, mean, color=color(name), label=name, linewidth=1.8)
        ax.plot(*answers[name], "D", color=color(name), markersize=7, zorder=5, clip_on=False)
    log_y(ax)
    ax.set_xlabel("training gradients spent (diamonds: the answers)")
    ax.set_xlim(0, max(spent for spent, _ in answers.values()))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    tidy(ax)


def draw_outcome(ax: Axes, arms: Sequence[Arm], metric: str) -> None:
    """A dot for each seed, joined from arm to arm, and a bar at each mean."""
    values = np.array([arm.values[metric] for arm in arms])
    rows = np.arange(len(arms))[::-1]
    for seed in range(values.shape[1]):
        ax.plot(values[:, seed], rows, color=FAINT, linewidth=1, zorder=1)
    for arm, row in zip(arms, rows, strict=True):
        c = color(arm.name)
        ax.plot(arm.values[metric], [row] * values.shape[1], "o", color=c, markersize=5, zorder=2)
        mean = arm.mean(metric)
        if np.isfinite(mean):
            ax.plot([mean, mean], [row - 0.25, row + 0.25], color=c, linewidth=3, zorder=3)
            ax.annotate(
                f"{mean:.4f}", (mean, row + 0.3), ha="center", fontsize=9, color=c, weight="bold"
            )
    ax.set_yticks(rows, [arm.name for arm in arms])
    ax.set_ylim(-0.5, len(arms) - 0.3)
    tidy(ax, grid="x")


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG."""
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=130, facecolor="white")


def plain(text: str) -> str:
    """A name from the data as a picture shows it: no formula begins at a dollar."""
    return one_line(text).replace("$", r"\$")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean, and the range between the lowest and the highest run."""
    values = np.where(np.isfinite(values), values, np.nan)
    return values.mean(axis=0), values.min(axis=0), values.max(axis=0)


def head(ax: Axes, title: str, *, legend: bool = True) -> None:
    """A title, and under it room for the legend in one line above the axes."""
    ax.set_title(title, loc="left", pad=20, fontsize=11.5, fontweight="bold", color=INK)
    if not legend:
        return
    ax.legend(
        frameon=False,
        ncols=6,
        loc="lower left",
        bbox_to_anchor=(-0.01, 0.99),
        borderaxespad=0.1,
        borderpad=0.2,
        fontsize=9,
        handlelength=1.4,
        columnspacing=1.2,
    )


def log_y(ax: Axes) -> None:
    """A logarithmic axis whose ticks read as plain numbers."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    narrow = high < 10 * low
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if narrow else (1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def tidy(ax: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """Takes away what no picture needs."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(FAINT)
    ax.tick_params(which="both", colors=INK, length=0, labelsize=9)
    ax.grid(True, axis=grid, color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.xaxis.label.set_color(INK)
    ax.yaxis.label.set_color(INK)

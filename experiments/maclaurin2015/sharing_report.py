"""What `sharing` leaves behind: tables, words and pictures, made from its results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from rich.table import Table

from experiments import reporting
from experiments.reporting import mean_sd
from experiments.runner import Results
from hindgrad.apps.report.figures import FAINT, INK, PALETTE, head, new_figure, tidy

SEPARATE, TIED, START, LEARNED = "separate", "tied bottom layer", "start", "learned"

AUTHORS = {
    SEPARATE: {"train": 0.607, "test": 1.343},
    TIED: {"train": 0.897, "test": 1.246},
    LEARNED: {"train": 0.604, "test": 1.130},
}
"""Printed by the authors' code (HIPS/hypergrad), on drawings that were made smaller in another
way."""

PARTS = {"train": "training", "test": "test", "new": "new people"}
COLUMNS = ("networks", *PARTS.values(), "authors' training", "authors' test")

COLORMAP, NORM = "RdBu_r", Normalize(-1, 1)


@dataclass(frozen=True)
class Shared:
    """Who shares weights with whom, and what it brings."""

    correlations: np.ndarray
    """[layers, tasks, tasks], an alphabet next to itself turned."""
    losses: Mapping[str, float]


def write(results: Results, folder: Path) -> None:
    """Writes the tables and the pictures into a folder."""
    singles = []
    for run in results["runs"]:
        for way, found in run["ways"].items():
            minutes = run["learned"]["minutes"] * (way == LEARNED) + found["minutes"]
            singles.append([run["seed"], way, *(found[p] for p in PARTS), round(minutes, 3)])
    reporting.write_csv(folder / "table.csv", ("seed", "networks", *PARTS, "minutes"), singles)
    reporting.write_markdown(folder, reporting.markdown(COLUMNS, _rows(results)))
    call = results["call"]
    names = [short(name) for name in call["alphabets"]]
    shown = {
        way: Shared(
            correlations(list(transforms)),
            {PARTS[part]: float(np.mean(values(results, way, part))) for part in PARTS},
        )
        for way, transforms in _transforms(results).items()
    }
    valid = [run["learned"]["valid"] for run in results["runs"]]
    losses = {
        way: {PARTS[p]: values(results, way, p) for p in PARTS}
        for way in results["runs"][0]["ways"]
    }
    pairs = [strengths(run["learned"]["transforms"]) for run in results["runs"]]
    rotated, others = (np.array([pair[i] for pair in pairs]) for i in (0, 1))
    pictures = {
        "matrices": matrices_figure(names, shown),
        "sharing": outcome_figure(losses, valid, rotated, others),
    }
    reporting.save(folder, pictures)


def values(results: Results, way: str, part: str) -> list[float]:
    """A way's losses, seed by seed."""
    return [run["ways"][way][part] for run in results["runs"]]


def short(alphabet: str) -> str:
    """A name without its remark."""
    return alphabet.split("_(")[0].replace("_", "'")


def correlations(
    transforms: Sequence[Any],
) -> Float[np.ndarray, "layers tasks tasks"]:
    """T Tᵀ with ones on the diagonal, for each layer: the correlations of the weights of two tasks
    if those of z are independent. A task comes next to the same one turned."""
    found = []
    for transform in np.asarray(transforms, float):
        covariance = transform @ transform.T
        deviation = np.sqrt(np.diag(covariance))
        found.append(covariance / np.outer(deviation, deviation))
    return np.array(found)[:, *np.ix_(*[_order(len(found[0]))] * 2)]


def _order(tasks: int) -> np.ndarray:
    """Each alphabet and then the same one turned; the tasks have all turned ones last."""
    return np.arange(tasks).reshape(2, -1).T.ravel()


def strengths(
    transforms: Sequence[Any],
) -> tuple[Float[np.ndarray, " layers"], Float[np.ndarray, " layers"]]:
    """For each layer the mean correlation of alphabets with themselves turned, and that of all
    other pairs."""
    found = correlations(transforms)
    alphabet = np.arange(found.shape[1]) // 2
    rotated = (alphabet[:, None] == alphabet[None]) & ~np.eye(len(alphabet), dtype=bool)
    others = alphabet[:, None] != alphabet[None]
    return found[:, rotated].mean(axis=1), found[:, others].mean(axis=1)


def _transforms(results: Results) -> dict[str, np.ndarray]:
    """The matrices of each way; the learned ones are those of the first seed."""
    learned = np.array(results["runs"][0]["learned"]["transforms"])
    layers, tasks, _ = learned.shape
    separate = np.stack([np.eye(tasks)] * layers)
    tied = separate.copy()
    tied[0] = 1 / tasks
    return {SEPARATE: separate, TIED: tied, LEARNED: learned}


def table(results: Results) -> Table:
    """Losses beside the authors'."""
    title = "Sharing: mean negative log-likelihood of the tasks, in nats"
    return reporting.table(title, COLUMNS, _rows(results))


def _rows(results: Results) -> list[list[str]]:
    rows = []
    for way in results["runs"][0]["ways"]:
        authors = [f"{AUTHORS[way][p]:.3f}" if way in AUTHORS else "" for p in ("train", "test")]
        rows.append([way, *(mean_sd(values(results, way, part), 3) for part in PARTS), *authors])
    return rows


def summary(results: Results) -> list[str]:
    """The outcome in words."""
    call, runs = results["call"], results["runs"]
    lines = [_order_words(results, part) for part in ("test", "new")]
    pairs = np.array([strengths(run["learned"]["transforms"]) for run in runs]).mean(axis=0)
    where = ["bottom", *["middle"] * (pairs.shape[1] - 2), "top"]
    words = ", ".join(
        f"{name} layer {rotated:.2f} against {others:.2f}"
        for name, (rotated, others) in zip(where, pairs.T, strict=True)
    )
    top = int(np.argmax(pairs[0]))
    lines.append(
        f"Correlation of the weights of an alphabet with those of itself turned, against all other "
        f"pairs: {words} (authors: about .75 in the top layer). Turned pairs share most in the "
        f"{where[top]} layer."
    )
    lines.append(
        f"{call['drawers']} drawings of each character: {call['drawers'] - call['test']} for "
        f"training, {call['test']} for the test; the outer loss is taken on {call['valid']} of the "
        "training ones, others at each outer step. New people drew the other "
        "drawings; nothing was learned from any of theirs."
    )
    minutes = [
        run["learned"]["minutes"] + sum(w["minutes"] for w in run["ways"].values()) for run in runs
    ]
    tuning = [run["learned"]["minutes"] for run in runs]
    weights = 2 * len(call["alphabets"]) * results["weights"]
    each = ", ".join(f"{m:.1f}" for m in tuning)
    lines.append(
        f"Wall-clock: {sum(minutes):.1f} minutes, of which {each} for tuning on the seeds: "
        f"{call['steps_outer']} hypergradients through a training of {weights:,} weights each."
    )
    return lines


def _order_words(results: Results, part: str) -> str:
    means = {way: np.mean(values(results, way, part)) for way in AUTHORS}
    order = sorted(means, key=lambda way: means[way])
    best_first = [LEARNED, TIED, SEPARATE]
    found = [
        sorted(AUTHORS, key=lambda way, run=run: run["ways"][way][part]) == best_first
        for run in results["runs"]
    ]
    which = {"test": "test drawings", "new": "drawings by new people"}[part]
    words = ", ".join(f"{way} {means[way]:.3f}" for way in order)
    right = "the authors' order" if order == best_first else "not the authors' order"
    return (
        f"Loss on the {which}, best first: {words}; {right} (on {sum(found)} of {len(found)} "
        "seeds)."
    )


def layer_names(count: int) -> list[str]:
    """What a network's layers are called."""
    middle = [f"middle layer {i + 1}" for i in range(count - 2)]
    return ["bottom layer", *(["middle layer"] if count == 3 else middle), "top layer"]


def matrices_figure(names: Sequence[str], shown: Mapping[str, Shared]) -> Figure:
    """For each way, the correlations of the tasks' weights, layer by layer."""
    layers, tasks, _ = next(iter(shown.values())).correlations.shape
    figure = new_figure(2.7 * layers + 2.8, 2.7 * len(shown) + 1.1)
    axes = figure.subplots(len(shown), layers, squeeze=False)
    labels = [text for name in names for text in (name, "turned")]
    for ax, name in zip(axes[0], layer_names(layers), strict=True):
        head(ax, name, legend=False)
    for row, (way, found) in zip(axes, shown.items(), strict=True):
        for layer, ax in enumerate(row):
            ax.imshow(found.correlations[layer], cmap=COLORMAP, norm=NORM)
            ax.set_xticks([])
            ax.set_yticks(range(tasks), labels if layer == 0 else [""] * tasks, fontsize=8)
            ax.tick_params(length=0, colors=INK)
            for edge in range(2, tasks, 2):
                ax.axhline(edge - 0.5, color="white", linewidth=0.8)
                ax.axvline(edge - 0.5, color="white", linewidth=0.8)
            for side in ax.spines.values():
                side.set_color(FAINT)
        losses = "\n".join(f"{part} {loss:.2f}" for part, loss in found.losses.items())
        row[-1].annotate(
            f"{way}\n\n",
            (1.06, 0.5),
            xycoords="axes fraction",
            fontsize=11,
            fontweight="bold",
            color=INK,
            va="bottom",
        )
        row[-1].annotate(
            losses, (1.06, 0.52), xycoords="axes fraction", fontsize=10, color=INK, va="center"
        )
    mappable = ScalarMappable(NORM, COLORMAP)
    bar = figure.colorbar(mappable, ax=axes, location="bottom", shrink=0.4, aspect=30)
    bar.set_label("correlation of the tasks' weights (learned: first seed)", color=INK, fontsize=9)
    reporting.tidy_bar(bar)
    return figure


def outcome_figure(
    losses: Mapping[str, Mapping[str, Sequence[float]]],
    valid: Sequence[Sequence[float]],
    rotated: np.ndarray,
    others: np.ndarray,
) -> Figure:
    """Losses of each way, the outer loss on the way, and the correlation of pairs by layer; the
    last two are [seeds, layers]."""
    figure = new_figure(13.0, 4.3)
    axes = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
    reporting.draw_losses(axes[0], losses)
    head(axes[0], "losses of the tasks, seed by seed")
    reporting.draw_runs(axes[1], valid, PALETTE["tuned"])
    head(axes[1], "validation loss while tuning", legend=False)
    draw_pairs(axes[2], rotated, others)
    return figure


def draw_pairs(ax: Axes, rotated: np.ndarray, others: np.ndarray) -> None:
    """The mean correlation of turned pairs, and of the others, layer by layer."""
    x = np.arange(rotated.shape[1])
    kinds = (
        ("an alphabet and itself turned", rotated, PALETTE["tuned"]),
        ("other pairs", others, PALETTE["defaults"]),
    )
    for name, values, color in kinds:
        ax.plot(x, values.mean(axis=0), "o-", color=color, label=name, linewidth=1.8)
        for seed in values:
            ax.plot(x, seed, "o", color=color, markersize=4, alpha=0.4)
    ax.set_xticks(x, [name.removesuffix(" layer") for name in layer_names(len(x))])
    ax.set_xlim(-0.3, len(x) - 0.7)
    ax.set_xlabel("layer")
    head(ax, "correlation of weights")
    tidy(ax)

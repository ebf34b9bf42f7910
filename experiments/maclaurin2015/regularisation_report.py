"""What `regularisation` leaves behind: tables, words and pictures, made from its results."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from rich.table import Table

from experiments import reporting
from experiments.reporting import mean_sd
from experiments.runner import Results
from hindgrad.apps.report.figures import INK, PALETTE, head, new_figure

NONE, START, SHARED = "no penalty", "the start", "one for all"
LAYER, UNIT, WEIGHT = "one per layer", "one per unit", "one per weight"
AUTHORS, FRESH = "one per weight, authors' descent", "one per weight, fresh images"

MODELS = {"logistic": "logistic regression", "network": "network"}
PARTS = {"train": "training", "valid": "validation", "test": "test"}
COLUMNS = ("model", "penalties", "number", *PARTS.values(), "test error, %")

COLORS = (PALETTE["random"], PALETTE["tuned"], PALETTE["TPE"])
COLORMAP = "magma"
ROW = 5
"""Examples in a row."""


def write(results: Results, folder: Path) -> None:
    """Writes the tables and the pictures into a folder."""
    measures = ("count", *PARTS, "error", "minutes")
    singles = [
        [run["seed"], model, way, *(found.get(measure, "") for measure in measures)]
        for run in results["runs"]
        for model in MODELS
        for way, found in run[model].items()
    ]
    reporting.write_csv(folder / "table.csv", ("seed", "model", "penalties", *measures), singles)
    reporting.write_markdown(folder, reporting.markdown(COLUMNS, _rows(results), words=2))
    histories = {
        way: [run["logistic"][way]["history"] for run in results["runs"]]
        for way in (SHARED, WEIGHT, AUTHORS)
    }
    outcomes = {
        f"{title}, {results['call'][model]['train']:,} images": {
            way: {name: values(results, model, way, part) for part, name in PARTS.items()}
            for way in results["runs"][0][model]
        }
        for model, title in MODELS.items()
    }
    pictures = {"regularisation": outcome_figure(histories, outcomes), **_maps(results)}
    reporting.save(folder, pictures)


def _maps(results: Results) -> dict[str, Figure]:
    """The penalties of the first seed as images."""
    first, found = results["runs"][0], {}
    for model, kind, title in (
        ("logistic", "class", "Learned penalties of the logistic regression, class by class"),
        ("network", "unit", "Learned penalties of the network's first layer, lowest units"),
    ):
        shown = np.exp(np.array(first[model][WEIGHT]["maps"]))
        shown = shown.reshape(-1, *first["image"])
        names = [f"{kind} {i if kind == 'class' else i + 1}" for i in range(len(shown))]
        found[f"penalties-{model}"] = maps_figure(title, names, shown)
    return found


def values(results: Results, model: str, way: str, part: str) -> list[float]:
    """A way's losses or errors, seed by seed."""
    return [run[model][way][part] for run in results["runs"]]


def table(results: Results) -> Table:
    """Losses and errors."""
    title = "Penalties: mean negative log-likelihood in nats, and test error"
    return reporting.table(title, COLUMNS, _rows(results), words=2)


def _rows(results: Results) -> list[list[str]]:
    rows = []
    for model, title in MODELS.items():
        for way, found in results["runs"][0][model].items():
            count = f"{found['count']:,}" if "count" in found else ""
            losses = [mean_sd(values(results, model, way, part), 3) for part in PARTS]
            errors = 100 * np.array(values(results, model, way, "error"))
            rows.append([title, way, count, *losses, mean_sd(errors.tolist(), 2)])
    return rows


def summary(results: Results) -> list[str]:
    """The outcome in words."""
    runs = results["runs"]
    curves = [run["logistic"][AUTHORS]["history"] for run in runs]
    first, last = (float(np.mean([curve[i] for curve in curves])) for i in (0, -1))
    lines = [
        f"Logistic regression as in the authors' code, by plain descent: the validation loss goes "
        f"from {first:.3f} to {last:.3f} (their figure: about .76 to .425), the test loss from "
        f"{np.mean(values(results, 'logistic', START, 'test')):.3f} to "
        f"{np.mean(values(results, 'logistic', AUTHORS, 'test')):.3f} (about .705 to .45)."
    ]
    lines += [_against(results, "logistic", WEIGHT, rival) for rival in (SHARED, NONE)]
    finer = [way for way in runs[0]["network"] if way not in (NONE, START, SHARED)]
    lines += [_against(results, "network", way, SHARED) for way in finer]
    lines.append(_fitted(results, finer))
    lines.append(
        "Each way's losses are means over "
        f"{results['call']['draws']} trainings with fresh initial weights and batches, the same "
        "for all ways. The ± is the standard deviation over the seeds."
    )
    minutes = {
        model: sum(found.get("minutes", 0) for run in runs for found in run[model].values())
        for model in MODELS
    }
    lines.append(
        f"Wall-clock of the tuning on {len(runs)} seeds: {minutes['logistic']:.1f} minutes for the "
        f"logistic regression, {minutes['network']:.1f} for the network."
    )
    return lines


def _against(results: Results, model: str, way: str, rival: str) -> str:
    """What a way brings against another, in validation and in test loss."""
    gains = {}
    for part in ("valid", "test"):
        pair = (np.array(values(results, model, name, part)) for name in (way, rival))
        gains[part] = np.subtract(*pair)
    wins = int((gains["test"] < 0).sum())
    return (
        f"{MODELS[model].capitalize()}, {way} against {rival}: validation loss "
        f"{gains['valid'].mean():+.3f}, test loss {gains['test'].mean():+.3f} (lower on {wins} of "
        f"{len(gains['test'])} seeds)."
    )


def _fitted(results: Results, finer: Sequence[str]) -> str:
    """Whether finer penalties overfit the validation images of the network."""
    gap = {}
    for way in [SHARED, *finer]:
        test, valid = (np.mean(values(results, "network", way, part)) for part in ("test", "valid"))
        gap[way] = float(test - valid)
    shown = ", ".join(f"{way} {value:+.3f}" for way, value in gap.items())
    more = gap[WEIGHT] - gap[SHARED]
    verdict = (
        f"one per weight has fitted the validation images by {more:.3f} more than one for all"
        if more > 0
        else "one per weight has not fitted the validation images more than one for all"
    )
    return f"Network, test loss less validation loss: {shown}; {verdict}."


def maps_figure(
    title: str, names: Sequence[str], penalties: Float[np.ndarray, "maps height width"]
) -> Figure:
    """Penalties as images, one for each class or unit."""
    rows = -(-len(penalties) // ROW)
    figure = new_figure(9.2, 1.95 * rows + 0.6)
    reporting.caption(figure, title)
    axes = figure.subplots(rows, ROW, squeeze=False)
    norm = LogNorm(float(penalties.min()), float(penalties.max()))
    for ax in axes.flat[len(penalties) :]:
        ax.axis("off")
    for ax, name, penalty in zip(axes.flat, names, penalties, strict=False):
        ax.imshow(penalty, cmap=COLORMAP, norm=norm, interpolation="nearest")
        reporting.bare(ax)
        ax.set_yticks([])
        ax.set_title(name, fontsize=9, color=INK, pad=3)
    bar = figure.colorbar(ScalarMappable(norm, COLORMAP), ax=axes, shrink=0.85, aspect=28)
    bar.set_label("penalty", color=INK, fontsize=9)
    reporting.tidy_bar(bar)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    return figure


def outcome_figure(
    histories: Mapping[str, Sequence[Sequence[float]]],
    outcomes: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
) -> Figure:
    """The validation loss while tuning for each way and seed, and losses in the end for each
    model, way and part of the images."""
    figure = new_figure(6.2 * len(outcomes) + 4.2, 4.4)
    axes = figure.subplots(1, 1 + len(outcomes), width_ratios=(1, *[1.35] * len(outcomes)))
    draw_histories(axes[0], histories)
    for ax, (model, losses) in zip(axes[1:], outcomes.items(), strict=True):
        reporting.draw_losses(ax, losses)
        head(ax, model)
    return figure


def draw_histories(ax: Axes, histories: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """A line for each seed."""
    for (way, runs), color in zip(histories.items(), COLORS, strict=False):
        reporting.draw_runs(ax, runs, color, way)
    head(ax, "logistic regression: validation loss", legend=False)
    ax.legend(frameon=False, fontsize=8.5, loc="upper right")

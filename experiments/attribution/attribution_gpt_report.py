"""What `attribution-gpt` leaves behind: a table, words and a picture, made from its results."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from experiments import reporting
from experiments.reporting import different, picked
from experiments.runner import Results
from hindgrad.apps.report.figures import FAINT, INK, PALETTE, head, new_figure, save, tidy

REFUSED = "refused"
"""The verdict where there are no scores to certify."""
COLUMNS = ("peak rate", "loss", "LDS", "worst query", "metasmoothness", "verdict")


def write(results: Results, folder: Path) -> None:
    """Writes the table and the picture into a folder."""
    columns = ("peak", "seed", "loss", "lds", "low", "high", "worst", "ratio", "smooth")
    columns = (*columns, "precision", "verdict", "reason")
    rows = [[one.get(name) for name in columns] for one in results["found"]]
    reporting.write_csv(folder / "table.csv", columns, rows)
    reporting.write_markdown(folder, reporting.markdown(COLUMNS, _rows(results)))
    figure = new_figure(5.6, 3.4)
    ax = figure.subplots()
    peaks = different(results["found"], "peak")
    ax.axhline(0.9, color=FAINT, linewidth=1)
    for peak in peaks:
        lds = picked(results["found"], "lds", peak=peak)
        ax.scatter([peak] * len(lds), lds, s=14, color=PALETTE["tuned"], alpha=0.6)
    means = [np.mean(picked(results["found"], "lds", peak=peak) or [np.nan]) for peak in peaks]
    ax.plot(peaks, means, color=INK, linewidth=1.5)
    ax.set_xscale("log")
    ax.set_xlabel("peak of the rate")
    ax.set_ylim(top=1.02)
    tidy(ax, "y")
    head(ax, "LDS: does attribution foretell retraining?", legend=False)
    save(figure, folder / "attribution-gpt.png")


def table(results: Results) -> Table:
    """What is printed."""
    call = results["call"]
    dropped = max(1, round(call["drop"] * call["documents"]))
    title = f"Without {dropped} of {call['documents']} documents, {call['runs']} retrainings"
    return reporting.table(title, COLUMNS, _rows(results))


def summary(results: Results) -> list[str]:
    """The outcome in words, whichever way it went."""
    means = {
        peak: picked(results["found"], "lds", peak=peak)
        for peak in different(results["found"], "peak")
    }
    known = {peak: float(np.mean(values)) for peak, values in means.items() if values}
    if not known:
        return ["At no rate was there anything to certify."]
    best = max(known, key=lambda peak: known[peak])
    lines = [f"The LDS is highest at a peak of {best:g}: {known[best]:.3f}."]
    low = [f"{peak:g}" for peak, value in known.items() if value < 0.9]
    if low:
        lines.append(f"It is below 0.9 at {', '.join(low)}.")
    return lines


def _rows(results) -> Sequence[Sequence[str]]:
    show = lambda peak, name: reporting.mean_sd(
        picked(results["found"], name, peak=peak) or [np.nan], 3
    )
    return [
        (
            f"{peak:g}",
            *(show(peak, name) for name in ("loss", "lds", "worst", "smooth")),
            ", ".join(dict.fromkeys(_verdicts(results, peak))),
        )
        for peak in different(results["found"], "peak")
    ]


def _verdicts(results, peak) -> list[str]:
    return [one["verdict"] for one in results["found"] if one["peak"] == peak]

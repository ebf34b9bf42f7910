"""The figures of an explanation."""

from typing import Any

import numpy as np
from plotly.graph_objects import Bar, Figure, Scatter
from plotly.subplots import make_subplots

from hindgrad.apps.explain.measures import Measure
from hindgrad.apps.report.page import AXIS, layout, plain
from hindgrad.apps.saved import softmax

LINES = 4
"""Classes whose chances are drawn."""

COLOURS = ("#1f6fa8", "#cf3f4f", "#8a96a3", "#b9c2cb")
UP, DOWN = "#2f8f5b", "#cf3f4f"


def moments(
    times: np.ndarray,
    outputs: np.ndarray,
    edges: np.ndarray,
    scores: np.ndarray,
    measure: Measure,
    entry: dict[str, Any],
    data: dict[str, Any],
) -> Figure:
    """The prediction over the steps [times, outputs], and under it what longer steps would have
    done in each part of the training [windows]."""
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.62, 0.38]
    )
    if data["kind"] == "classification":
        _chances(figure, times, outputs, entry, data["classes"])
    else:
        _answers(figure, times, outputs[:, 0], entry)
    changes = np.array([measure.difference(float(score)) for score in scores])
    figure.add_trace(
        Bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=changes,
            width=np.diff(edges) * 0.9,
            marker={"color": [UP if c >= 0 else DOWN for c in changes]},
            showlegend=False,
            hovertemplate="steps around %{x:.0f}: %{y:+.3g}<extra></extra>",
        ),
        row=2,
        col=1,
    )
    figure.update_layout(**layout(xaxis2=AXIS, yaxis2=AXIS))
    figure.update_xaxes(range=[0, int(times[-1])])
    if data["kind"] == "classification":
        figure.update_yaxes(title_text="chance, %", range=[-2, 102], row=1, col=1)
    else:
        figure.update_yaxes(title_text=plain(data["label"]), row=1, col=1)
    figure.update_yaxes(title_text=f"change, {plain(measure.unit[1])}", row=2, col=1)
    figure.update_xaxes(title_text="training step", row=2, col=1)
    return figure


def _chances(figure, times, outputs, entry, classes):
    chances = 100 * softmax(np.asarray(outputs, np.float64))
    first = list(dict.fromkeys([entry["explained"], entry["answer"]]))
    rest = [int(i) for i in np.argsort(-chances.max(0), kind="stable") if i not in first]
    for colour, i in zip(COLOURS, [*first, *rest][:LINES], strict=False):
        about = " (label)" if i == entry["right"] else ""
        figure.add_trace(
            Scatter(
                x=times,
                y=chances[:, i],
                name=f"'{plain(classes[i])}'{about}",
                line={"color": colour, "width": 2.5 if i in first else 1.5},
                hovertemplate="step %{x}: %{y:.3g} %<extra></extra>",
            ),
            row=1,
            col=1,
        )


def _answers(figure, times, answers, entry):
    figure.add_trace(
        Scatter(x=times, y=answers, name="predicted", line={"color": COLOURS[0], "width": 2.5}),
        row=1,
        col=1,
    )
    if entry["right"] is not None:
        right = [entry["right"]] * 2
        ends = [times[0], times[-1]]
        line = {"color": COLOURS[1], "dash": "dash"}
        drawn = Scatter(x=ends, y=right, name="label", line=line, mode="lines")
        figure.add_trace(drawn, row=1, col=1)


def settings(entry: dict[str, Any], measure: Measure) -> Figure:
    """What a tenth more of each setting would do, the greatest first."""
    names, changes = [], []
    for name, layers in entry["settings"].items():
        for layer, change in enumerate(layers):
            of = f"{name}, layer {layer + 1}" if len(layers) > 1 else name
            names.append(of)
            changes.append(measure.difference(change))
    order = np.argsort(np.abs(changes), kind="stable")
    values = np.array(changes)[order]
    figure = Figure(
        Bar(
            x=values,
            y=[names[i] for i in order],
            orientation="h",
            marker={"color": [UP if c >= 0 else DOWN for c in values]},
            hovertemplate="%{y}: %{x:+.3g}<extra></extra>",
        )
    )
    title = f"change of the {plain(measure.name)}, {plain(measure.unit[1])}"
    figure.update_layout(**layout(xaxis=AXIS | {"title": {"text": title}}))
    return figure

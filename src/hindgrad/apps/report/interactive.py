"""The figures of a tuning on its page: what the pictures show, to point at and to zoom into."""

from collections.abc import Mapping, Sequence

import numpy as np
from plotly.graph_objects import Figure, Scatter
from plotly.subplots import make_subplots

from hindgrad.apps.report.figures import (
    INK,
    Answers,
    Curve,
    Tuned,
    band,
    color,
    layer_colors,
)
from hindgrad.apps.report.page import AXIS, layout
from hindgrad.apps.report.tables import Arm

TICKS = {3: (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), 10: (1, 1.5, 2, 3, 5, 7), np.inf: (1, 2, 5)}
"""The ticks of a logarithmic axis in each decade, by how many times the largest value is the
smallest."""
SPACE = 0.12
"""Between two axes, as a share of the width."""


def curves(of_arms: Mapping[str, tuple[Curve, Curve]], loss: str) -> Figure:
    """Learning curves: training and validation loss while training, for each arm."""
    figure = make_subplots(cols=2, horizontal_spacing=SPACE)
    for name, pair in of_arms.items():
        for col, curve in enumerate(pair, 1):
            for trace in _banded(name, curve, named=col == 1):
                figure.add_trace(trace, row=1, col=col)
    axes = []
    for part, about in enumerate(("training", "validation")):
        values = [pair[part].values for pair in of_arms.values()]
        axes.append(_logarithmic(f"{loss} on the {about} rows", values))
    return _laid_out(figure, "training step", yaxis=axes[0], yaxis2=axes[1], xaxis2=AXIS)


def progress(of_arms: Mapping[str, Curve], answers: Answers, default: float, loss: str) -> Figure:
    """How far each way is after so many training gradients; a diamond is its answer."""
    figure = Figure()
    for name, curve in of_arms.items():
        figure.add_traces(_banded(name, curve, named=True))
        spent, value = answers[name]
        marker = {"symbol": "diamond", "size": 10, "color": color(name)}
        about = f"{name}, the answer: %{{y:.4g}}<extra></extra>"
        point = {"x": [spent], "y": [value], "marker": marker, "hovertemplate": about}
        figure.add_trace(Scatter(**point, mode="markers", showlegend=False))
    end = max(spent for spent, _ in answers.values())
    line = {"dash": "dash", "color": color("defaults")}
    figure.add_trace(Scatter(x=[0, end], y=[default] * 2, mode="lines", line=line, name="defaults"))
    values = [curve.values for curve in of_arms.values()]
    axis = _logarithmic(f"validation {loss}", [*values, np.array([default])])
    return _laid_out(figure, "training gradients spent", yaxis=axis)


def schedules(tuned: Tuned) -> Figure:
    """The learned rate and decay of each layer over the training; the other seeds' are thin."""
    figure = make_subplots(cols=2, horizontal_spacing=SPACE)
    for col, name in enumerate(("rate", "decay"), 1):
        for values in tuned.others:
            _layers(figure, col, name, values[name], tuned.steps, main=False)
        _layers(figure, col, name, tuned.hyper[name], tuned.steps, main=True)
        before = tuned.before[name].mean(axis=1)
        x, y = _stairs(before, tuned.steps)
        start = {"name": "start", "line": {"dash": "dash", "color": INK}}
        start |= {"showlegend": col == 1, "legendgroup": "start"}
        figure.add_trace(Scatter(x=x, y=y, mode="lines", **start), row=1, col=col)
    rates = [values["rate"] for values in (tuned.hyper, tuned.before, *tuned.others)]
    axes = _logarithmic("learned rate", rates), _titled(AXIS, "learned momentum decay")
    return _laid_out(figure, "training step", yaxis=axes[0], yaxis2=axes[1], xaxis2=AXIS)


def outcome(arms: Sequence[Arm], loss: str) -> Figure:
    """The test loss of each arm, seed by seed, and its mean."""
    figure = Figure()
    for arm in reversed(arms):
        values, about = arm.values["test_loss"], "%{y}: %{x:.4g}<extra></extra>"
        dot = {"color": color(arm.name), "opacity": 0.5, "size": 7}
        bar = {"color": color(arm.name), "symbol": "line-ns", "size": 18, "line": {"width": 3}}
        bar["line"] |= {"color": color(arm.name)}
        for x, marker in ((values, dot), ([arm.mean("test_loss")], bar)):
            points = {"x": x, "y": [arm.name] * len(x), "marker": marker, "hovertemplate": about}
            figure.add_trace(Scatter(**points, mode="markers", showlegend=False))
    return _laid_out(figure, f"test {loss}")


def _laid_out(figure, x, **axes):
    figure.update_layout(**layout(**axes))
    figure.update_xaxes(title_text=x)
    return figure


def _titled(axis, text):
    return axis | {"title": {"text": text}}


def _logarithmic(text, arrays):
    """An axis with ticks that read as plain numbers."""
    values = np.concatenate([array[np.isfinite(array) & (array > 0)] for array in arrays])
    low, high = (values.min(), values.max()) if len(values) else (1.0, 10.0)
    parts = next(parts for times, parts in TICKS.items() if high < times * low)
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks = [part * 10.0**power for power in powers for part in parts]
    shown = {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    return _titled(AXIS, text) | {"type": "log", **shown}


def _banded(name, curve, *, named):
    """The mean of the runs, and the range between them."""
    mean, low, high = band(curve.values)
    group = {"legendgroup": name, "hoverinfo": "skip", "showlegend": False, "mode": "lines"}
    edge = {"line": {"width": 0}, **group}
    about = f"{name}, %{{x:,}}: %{{y:.4g}}<extra></extra>"
    line = {"line": {"color": color(name), "width": 2}, "hovertemplate": about, "mode": "lines"}
    shade = {"fill": "tonexty", "fillcolor": f"rgba{(*_channels(color(name)), 0.15)}"}
    return [
        Scatter(x=curve.x, y=low, **edge),
        Scatter(x=curve.x, y=high, **edge, **shade),
        Scatter(x=curve.x, y=mean, name=name, legendgroup=name, showlegend=named, **line),
    ]


def _channels(code):
    return tuple(int(code[i : i + 2], 16) for i in (1, 3, 5))


def _layers(figure, col, name, values, steps, *, main):
    """A line for each layer."""
    for layer, shade in enumerate(layer_colors(values.shape[1]), 1):
        channels = tuple(round(255 * channel) for channel in shade[:3])
        line = {"color": f"rgba{(*channels, 1.0 if main else 0.3)}", "width": 2.5 if main else 1}
        about = f"layer {layer}, step %{{x:,.0f}}: {name} %{{y:.4g}}<extra></extra>"
        shown = {"name": f"layer {layer}", "legendgroup": f"layer {layer}", "mode": "lines"}
        shown |= {"showlegend": main and col == 1, "hovertemplate": about}
        x, y = _stairs(values[:, layer - 1], steps)
        figure.add_trace(Scatter(x=x, y=y, line=line, **shown), row=1, col=col)


def _stairs(values, steps):
    """Each value over its part of the training."""
    edges = np.linspace(0, steps, len(values) + 1)
    return np.repeat(edges, 2)[1:-1], np.repeat(values, 2)

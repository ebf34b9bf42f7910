"""What `l2l-conv` leaves behind: a table, words and pictures, made from its results."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from experiments import reporting
from experiments.reporting import number
from experiments.runner import Results
from hindgrad.apps.report.optimizer_curves import Panel, curves_figure, from_json

PAPERS, SUB = "LSTM by kind", "LSTM-sub"
SHARED, NORMALIZED = "one LSTM", "RNNProp by kind"
LEARNED = (PAPERS, NORMALIZED, SUB, SHARED)

ALL, OTHERS = "all classes", "other classes"

TUNING = 300
"""The tuning of a baseline takes about as long as so many gradients."""

PARTS = {"test": "held-out images", "train": "training minibatches"}
LINES = ("mean", "median")

STEPS = (10, 20, 50, 100)
"""Those reported, as far as there are so many."""

PIXELS, CHANNELS, KERNEL, DENSE, MINIBATCH = 32, (16, 16, 16), 5, 32, 128
"""The paper's network."""


def subset(labels: Sequence[int]) -> str:
    """What a subset of the classes is called."""
    return f"{len(labels)} classes"


def places(subsets: Sequence[Sequence[int]]) -> list[str]:
    """The data sets that optimizers are compared on."""
    return [ALL, *map(subset, subsets)]


def write(results: Results, folder: Path) -> None:
    """Writes the tables and the pictures into a folder."""
    columns = ("seed", "data", "optimizer", "images", "step", *LINES)
    reporting.write_csv(folder / "table.csv", columns, _singles(results))
    text = reporting.markdown(_columns(results), _rows(results), words=2)
    reporting.write_markdown(folder, text)
    pictures = {
        part: curves_figure(_panels(results, part), loss=f"cross-entropy, {about}")
        for part, about in PARTS.items()
    }
    reporting.save(folder, pictures)


def _singles(results: Results) -> Iterator[list[Any]]:
    for seed in results["seeds"]:
        for name, found in seed["optimizers"].items():
            for where, parts in found["curves"].items():
                for (part, about), step in itertools.product(PARTS.items(), _steps(results)):
                    values = [number(parts[part][line][step], "") for line in LINES]
                    yield [seed["seed"], where, name, about, step, *values]


def _panels(results: Results, part: str) -> list[Panel]:
    """The data sets, of the first seed."""
    optimizers = results["seeds"][0]["optimizers"]
    panels = []
    for where in places(results["call"]["subsets"]):
        curves = {name: from_json(o["curves"][where][part]) for name, o in optimizers.items()}
        panels.append(
            Panel(
                f"{results['call']['data']}, {where}",
                {name: curves[name] for name in _learned(results)},
                {name: curves[name] for name in results["tuned"]},
            )
        )
    return panels


def table(results: Results) -> Table:
    """Means and medians at the reported steps."""
    title = (
        f"Cross-entropy of {results['call']['compared']} networks, mean at steps, and median at "
        "the last; on held-out images and on training minibatches"
    )
    return reporting.table(title, _columns(results), _rows(results), words=2)


def _columns(results: Results) -> list[str]:
    steps = _steps(results)
    columns = ["data", "optimizer"]
    for part in PARTS:
        columns += [f"{part} {step}" for step in steps] + ["median"]
    return columns


def _rows(results: Results) -> list[list[str]]:
    rows = []
    for where in places(results["call"]["subsets"]):
        for name in _names(results):
            row = [where, name]
            for part in PARTS:
                means = [_value(results, name, where, part, "mean", s) for s in _steps(results)]
                median = _value(results, name, where, part, "median", _steps(results)[-1])
                row += [_show(value) for value in (*means, median)]
            rows.append(row)
    return rows


def summary(results: Results) -> list[str]:
    """The outcome in words, whichever way it went."""
    lines = [_size_words(results)]
    for where in places(results["call"]["subsets"]):
        lines += [_rival_words(results, name, where) for name in _learned(results)]
    pairs = [(PAPERS, SHARED, ALL), (NORMALIZED, PAPERS, ALL)]
    pairs += [(SUB, PAPERS, subset(labels)) for labels in results["call"]["subsets"]]
    lines += [_pair_words(results, *pair) for pair in pairs if {*pair[:2]} <= {*_learned(results)}]
    lines.append(
        "The paper's words for its own figure: its LSTMs learn much more quickly than the others, "
        "most of all on the subsets; one LSTM for all parameters did not suffice; and learned on "
        "other classes they do hardly worse. It gives no numbers."
    )
    lines.append(_tuning_words(results))
    lines.append(_minutes_words(results))
    return lines


def _size_words(results: Results) -> str:
    call = results["call"]
    differs = [
        f"{what} {ours} (paper: {paper})"
        for what, ours, paper in (
            ("images of", f"{call['size']} × {call['size']} pixels, by averaging", PIXELS),
            ("channels", _listed(call["channels"]), _listed(CHANNELS)),
            ("kernels of", f"{call['kernel']} × {call['kernel']}", f"{KERNEL} × {KERNEL}"),
            ("dense units", call["dense"], DENSE),
            ("minibatches of", call["minibatch"], MINIBATCH),
        )
        if str(ours).split(" ")[0] != str(paper).split(" ")[0] or "," in str(paper)
    ]
    batches = f"{call['iterations']:,} gradients of {call['unroll']} steps"
    return (
        f"Networks of {results['parameters']:,} parameters on {call['data']}: "
        f"{'; '.join(differs)}. Each optimizer is learned from {batches} on {call['batch']} "
        "network at a time, with a third part for biases and for the scales of normalisations; "
        "on subsets the network keeps its outputs for all classes."
    )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _rival_words(results: Results, name: str, where: str) -> str:
    """Against the best baseline at each step, on held-out images."""
    steps, wins, losses = _steps(results), [], []
    for step in steps:
        rivals = {r: _value(results, r, where, "test", "mean", step) for r in results["tuned"]}
        rival = min(rivals, key=lambda r: rivals[r])
        own = _value(results, name, where, "test", "mean", step)
        words = f"{_show(own)} against {_show(rivals[rival])} ({rival}) at step {step}"
        (wins if own < rivals[rival] else losses).append(words)
    begin = f"{name}, {where}, mean loss on held-out images beside the best baseline's: "
    parts = [f"lower, {'; '.join(wins)}"] if wins else []
    parts += [f"not lower, {'; '.join(losses)}"] if losses else []
    return begin + ". But ".join(parts) + "."


def _pair_words(results: Results, name: str, other: str, where: str) -> str:
    last = _steps(results)[-1]
    mine, theirs = (_show(_value(results, n, where, "test", "mean", last)) for n in (name, other))
    return f"At step {last} on {where}, {name} is at {mine}, {other} at {theirs}."


def _tuning_words(results: Results) -> str:
    call, words = results["call"], []
    for name, found in results["tuned"].items():
        rates = [f"{on['rate']:.3g}" for on in found["on"].values()]
        edge = any(on["at_edge"] for on in found["on"].values())
        words.append(f"{name} {', '.join(rates)}" + " (one at the edge of those tried)" * edge)
    return (
        f"Rates, tuned at step {call['steps']} on {call['tuning']} other networks (few, as these "
        f"are dear; a race that begins on {call['first']}), for {', '.join(_places(results))}: "
        f"{'; '.join(words)}; momentum's and Nesterov's decay is .9."
    )


def _places(results: Results) -> list[str]:
    return places(results["call"]["subsets"])


def _minutes_words(results: Results) -> str:
    tuning = sum(found["minutes"] for found in results["tuned"].values())
    words = [f"tuning the others {tuning:.1f}"]
    for name in _learned(results):
        minutes = [seed["optimizers"][name]["minutes"] for seed in results["seeds"]]
        words.append(f"learning {name} {np.mean(minutes):.1f}")
    return f"Minutes on this machine: {', '.join(words)}."


def _steps(results: Results) -> list[int]:
    last = results["call"]["steps"]
    return [step for step in STEPS if step < last] + [last]


def _learned(results: Results) -> list[str]:
    return list(results["call"]["learned"])


def _names(results: Results) -> list[str]:
    return list(results["seeds"][0]["optimizers"])


def _value(results: Results, name: str, where: str, part: str, line: str, step: int) -> float:
    """The mean over the seeds."""
    values = [
        seed["optimizers"][name]["curves"][where][part][line][step] for seed in results["seeds"]
    ]
    return float(np.mean([number(v) for v in values]))


def _show(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "diverges"

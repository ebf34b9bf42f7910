"""Finding wrong labels, against confident learning: `python -m benchmarks.cleaning`.

Needs cleanlab, which hindgrad itself does not: `pip install cleanlab`.

Labels are flipped to another class, uniformly. Every way ranks the same rows, from the same
features (pixels of one common scale). Precision: the share of flipped labels among the first k of
the ranking, where k labels are flipped. AUC: of the ranking. Test accuracy: of one and the same
network (64 hidden units) trained without the rows that a way leaves out by its own count, and
tested on clean labels; where a way has no count of its own, it leaves out the rows whose label is
not the likeliest class.
"""

import argparse
import csv
import json
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from hindgrad.apps import datasets
from hindgrad.apps.clean import command as clean
from hindgrad.apps.clean.settings import Clean
from hindgrad.apps.clean.suspicion import DIVISIONS, Learner, Start, cleaning, opinion
from hindgrad.apps.model import predict

CLASSES = 10
LEARNER_STEPS, HIDDEN = 200, 64
MNIST_ROWS = 10_000
METRICS = ("precision", "auc", "accuracy")


@dataclass(frozen=True)
class Rows:
    """Rows with wrong labels, and test rows (perhaps none) with right ones."""

    x: np.ndarray
    """Pixels as numbers of one scale, [rows, pixels]."""
    y: np.ndarray
    """The right labels."""
    noisy: np.ndarray
    """The given labels."""
    images: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray

    @property
    def wrong(self) -> np.ndarray:
        return self.noisy != self.y


@dataclass(frozen=True)
class Answer:
    """What a way of finding wrong labels says."""

    worth: np.ndarray
    """Low where the label is suspicious."""
    left_out: np.ndarray | None = None
    """Mask of the rows that it would not train on; None if it is only a ranking."""


def load(name: str, noise: float, seed: int) -> Rows:
    """Draws the rows and flips labels: `digits` keeps a fifth for testing, `digits-all` nothing;
    `mnist` takes 10,000 training rows, and its test set."""
    rng = np.random.default_rng(seed)
    data = datasets.load("mnist" if name == "mnist" else "digits")
    if name == "mnist":
        rows = rng.permutation(np.flatnonzero(data.train))[:MNIST_ROWS]
        test = np.flatnonzero(~data.train)
    else:
        order = rng.permutation(len(data.y))
        count = 0 if name == "digits-all" else len(order) // 5
        test, rows = order[:count], np.sort(order[count:])
    y = data.y.astype(np.int64)[rows]
    noisy, _ = made_wrong(y, noise, CLASSES, rng)
    pixels = data.x.astype(np.float32)
    x, test_x = pixels[rows], pixels[test]
    mean, scale = x.mean(axis=0), x.std()
    images = data.x[rows].reshape(-1, *(data.image or ()))
    return Rows((x - mean) / scale, y, noisy, images, (test_x - mean) / scale, data.y[test])


def made_wrong(
    y: np.ndarray, share: float, classes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a share is another class, and which rows these are."""
    rows = rng.permutation(len(y))[: round(share * len(y))]
    noisy = y.copy()
    noisy[rows] = (y[rows] + rng.integers(1, classes, len(rows))) % classes
    return noisy, rows


def by_hindgrad(rows: Rows, seed: int) -> dict[str, Answer]:
    """The command itself, and the parts of its ranking alone."""
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "rows.npz", Path(folder) / "out"
        np.savez(file, x=rows.images, y=rows.noisy)
        clean.run(Clean(data=str(file), label="y", out=out, seed=seed), Console(quiet=True))
        results = json.loads((out / "results.json").read_text())
    left_out = np.isin(np.arange(len(rows.y)), results["removed"])
    return {
        "hindgrad clean": Answer(np.array(results["weight"]), left_out),
        "  its weights alone": Answer(np.array(results["learned"])),
        "  its confidence alone": Answer(np.array(results["confidence"])),
    }


def by_models(rows: Rows, seed: int) -> dict[str, Answer]:
    """Out-of-sample confidence of usual models, and confident learning on top of it."""
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    models = {
        "logistic regression": LogisticRegression(max_iter=300),
        "15 nearest neighbours": KNeighborsClassifier(15),
    }
    probabilities = {
        name: np.asarray(
            cross_val_predict(model, rows.x, rows.noisy, cv=folds, method="predict_proba")
        )
        for name, model in models.items()
    }
    learner = Learner((rows.x.shape[1], HIDDEN, CLASSES), LEARNER_STEPS)
    nobody = np.zeros(len(rows.y), bool)
    problem = cleaning(rows.x, rows.noisy.astype(np.int32), nobody, learner)
    ones, key = np.ones(len(rows.y)), jax.random.key(seed)
    probabilities["MLP"] = opinion(problem, ones, key, DIVISIONS)
    answers = {}
    for name, p in probabilities.items():
        own = p[np.arange(len(p)), rows.noisy]
        answers[f"confidence, {name}"] = Answer(own, p.argmax(axis=1) != rows.noisy)
    for name in ("logistic regression", "MLP"):
        for way, answer in confident_learning(rows.noisy, probabilities[name]).items():
            answers[f"cleanlab, {name}, {way}"] = answer
    return answers


def confident_learning(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Answer]:
    """Each of cleanlab's ways of ranking; the issues that it finds come first in "issues"."""
    from cleanlab.filter import find_label_issues  # pyright: ignore[reportMissingImports]
    from cleanlab.rank import get_label_quality_scores  # pyright: ignore[reportMissingImports]

    p = probabilities / probabilities.sum(axis=1, keepdims=True)
    issues = np.asarray(find_label_issues(labels, p, n_jobs=1))
    scores = {
        f"{method}{', adjusted' if adjust else ''}": get_label_quality_scores(
            labels, p, method=method, adjust_pred_probs=adjust
        )
        for method, adjust in (
            ("self_confidence", False),
            ("normalized_margin", False),
            ("self_confidence", True),
            ("normalized_margin", True),
        )
    }
    scores["issues"] = scores["normalized_margin"] + 1.0 - 2.0 * issues
    return {name: Answer(score, issues) for name, score in scores.items()}


def retrained(rows: Rows, kept: np.ndarray, key: jax.Array) -> float:
    """Test accuracy of the network trained on some of the rows; NaN without test rows."""
    if len(rows.test_y) == 0:
        return float("nan")
    learner = Learner((rows.x.shape[1], HIDDEN, CLASSES), LEARNER_STEPS)
    nobody = np.zeros(len(rows.y), bool)
    problem = cleaning(rows.x, rows.noisy.astype(np.int32), nobody, learner)
    hyper = {"weights": jnp.asarray(kept, jnp.float32)}
    everyone = jnp.arange(len(rows.y))
    run = problem.training_on(everyone, key)(Start(learner.sizes)(hyper, key), hyper)
    found = predict(run.params, jnp.asarray(rows.test_x)).argmax(axis=1)
    return float(np.mean(np.asarray(found) == rows.test_y))


def measure(name: str, noise: float, seed: int) -> dict[str, dict[str, float]]:
    """All ways on one draw."""
    rows = load(name, noise, seed)
    begin = time.perf_counter()
    answers = by_hindgrad(rows, seed)
    seconds = time.perf_counter() - begin
    answers |= by_models(rows, seed)
    key = jax.random.key(seed)
    found, wrong = {}, rows.wrong
    for way, answer in answers.items():
        first = np.argsort(answer.worth, kind="stable")[: wrong.sum()]
        found[way] = {
            "precision": float(wrong[first].mean()),
            "auc": float(roc_auc_score(wrong, -answer.worth)),
            **_trained(rows, answer.left_out, key),
            "flipped": int(wrong.sum()),
        }
    none = {"precision": np.nan, "auc": np.nan, "flipped": int(wrong.sum())}
    for way, left_out in {"no row left out": np.zeros_like(wrong), "the right rows": wrong}.items():
        found[way] = {**none, **_trained(rows, left_out, key)}
    found["hindgrad clean"]["seconds"] = seconds
    return found


def _trained(rows: Rows, left_out: np.ndarray | None, key: jax.Array) -> dict[str, float]:
    if left_out is None:
        return {"accuracy": np.nan, "left_out": np.nan}
    return {"accuracy": retrained(rows, ~left_out, key), "left_out": int(left_out.sum())}


def compared(runs: Sequence[dict[str, dict[str, float]]]) -> list[str]:
    """The ways to show: of cleanlab's rankings for one model, the one that proved best here."""
    names = []
    for name in runs[0]:
        family = [n for n in runs[0] if n.split(", ")[:2] == name.split(", ")[:2]]
        if not name.startswith("cleanlab") or name == max(
            family, key=lambda n: np.mean([run[n]["precision"] for run in runs])
        ):
            names.append(name)
    return names


def show(mean: float, spread: float, digits: int) -> str:
    if np.isnan(mean):
        return ""
    return f"{mean:.{digits}f} ±{spread:.{digits}f}".replace("0.", ".")


def cells(runs: Sequence[dict[str, dict[str, float]]], way: str) -> list[str]:
    """Mean ± standard deviation of each metric, and how many rows are left out."""
    shown = []
    for metric in METRICS:
        values = [run[way][metric] for run in runs]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        shown.append(show(float(np.mean(values)), spread, 4 if metric == "auc" else 3))
    left_out = np.mean([run[way]["left_out"] for run in runs])
    shown.append("" if np.isnan(left_out) else f"{left_out:,.0f}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["digits-all", "digits", "mnist"])
    parser.add_argument("--noise", nargs="+", type=float, default=[0.1, 0.3, 0.5])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, help="a folder for table.md and runs.csv")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", module="sklearn")  # that 300 iterations may be too few
    lines, records = [], []
    head = ["", "precision", "AUC", "test accuracy", "left out"]
    for name in args.data:
        for noise in args.noise:
            runs = []
            for seed in args.seeds:
                runs.append(measure(name, noise, seed))
                records += [[name, noise, seed, way, *_values(v)] for way, v in runs[-1].items()]
                if args.out is not None:
                    _write(args.out, lines, records)
            seconds = np.mean([run["hindgrad clean"]["seconds"] for run in runs])
            flipped = f"{runs[0]['hindgrad clean']['flipped']:,} labels flipped ({noise:.0%})"
            title = f"{name}, {flipped}, {len(runs)} seeds; hindgrad clean took {seconds:.0f} s"
            table = Table(*head, title=title, title_justify="left")
            lines += ["", f"**{title}**", "", _row(head), _row(["---"] + ["---:"] * 4)]
            for way in compared(runs):
                table.add_row(way, *cells(runs, way))
                lines.append(_row([way.strip(), *cells(runs, way)]))
            Console(width=120).print(table)
            if args.out is not None:
                _write(args.out, lines, records)


def _values(values: dict[str, float]) -> list[float]:
    return [values[metric] for metric in (*METRICS, "left_out", "flipped")]


def _row(items: Sequence[str]) -> str:
    return "| " + " | ".join(items) + " |"


def _write(folder: Path, lines: Sequence[str], records: Sequence[Sequence]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text("\n".join(lines).strip() + "\n")
    with (folder / "runs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["data", "noise", "seed", "way", *METRICS, "left_out", "flipped"])
        writer.writerows(records)


if __name__ == "__main__":
    main()

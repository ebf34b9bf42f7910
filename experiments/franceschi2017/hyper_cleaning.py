"""Data hyper-cleaning (Franceschi et al. 2017, section 5.1): which labels are wrong?

Half of the training labels are wrong. Each training example gets a weight in [0, 1], their sum is
bounded by a radius R, and all weights are tuned by the loss of a model, trained with them, on clean
validation examples. Examples whose weight ends at 0 are taken for corrupted; a model trained on the
others and on the validation examples is tested.

All radii are tuned at once: the objective is the sum of theirs, which share nothing, so that one
product of the images with the parameters of all models serves them all.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree
from sklearn.metrics import f1_score, roc_auc_score

import hindgrad as hg
from experiments import runner
from experiments.franceschi2017 import hyper_cleaning_report as report
from experiments.models import Examples, images
from experiments.runner import BySeed, Pieces, Results
from hindgrad.apps import datasets
from hindgrad.progress import Bar as Line
from hindgrad.tuning.state import Record

ABOUT = (
    "Which labels are wrong? Franceschi et al. 2017, *Forward and reverse gradient-based "
    "hyperparameter optimization*, section 5.1."
)

CORRUPTED = 1e-3
"""An example whose weight is below this is taken for corrupted, as in the paper."""

BINS = 20
"""Of the histograms of the weights."""

SHOWN, ODD = 32, 16
"""How many suspicious examples are shown, and how many that are suspected wrongly."""


@dataclass(frozen=True)
class Settings(BySeed):
    """Sizes and rates; the rates are those of a loss that is a mean."""

    data: str
    rows: int
    """Training examples; as many more are for validation."""
    radii: tuple[int, ...]
    steps: int
    rate: float
    steps_outer: int
    rate_outer: float
    steps_final: int
    """Steps of the models that are tested."""
    rate_final: float


class Draw(eqx.Module):
    """One draw of rows and of wrong labels."""

    train: Examples
    valid: Examples
    test: Examples
    flipped: Bool[np.ndarray, " rows"]
    """Which training labels are wrong."""
    indices: Int[np.ndarray, " rows"]
    """The training rows' numbers in the data set."""
    classes: int = eqx.field(static=True)


def draw(settings: Settings, seed: int) -> Draw:
    """Draws the rows, and turns the labels of half of the training rows into another class,
    uniformly; the test rows are the official ones, or what is left where there are none."""
    data = datasets.load(settings.data)
    rng, n, classes = np.random.default_rng(seed), settings.rows, len(data.classes)
    rows = rng.permutation(np.flatnonzero(data.train))
    test = rows[2 * n :] if data.train.all() else np.flatnonzero(~data.train)
    flipped = np.zeros(n, bool)
    flipped[rng.permutation(n)[: n // 2]] = True
    given = (data.y[rows[:n]] + flipped * rng.integers(1, classes, n)) % classes
    x = images(data, rows[:n]).x
    return Draw(
        Examples(x, jnp.asarray(given, jnp.int32)),
        images(data, rows[n : 2 * n]),
        images(data, test),
        flipped,
        rows[:n],
        classes,
    )


def logits(params: PyTree, x: Float[Array, "rows pixels"]) -> Float[Array, "models classes rows"]:
    """Of several softmax regressions, by one product; with the rows last the sums over the classes
    run along the processor's vectors."""
    models, classes, pixels = params["w"].shape
    product = params["w"].reshape(-1, pixels) @ x.T
    return product.reshape(models, classes, -1) + params["b"][:, :, None]


def losses(params: PyTree, images: Examples) -> Float[Array, "models rows"]:
    """The cross-entropy of each model for each row."""
    scores = logits(params, images.x)
    right = jax.nn.one_hot(images.y, scores.shape[1], axis=0)
    return jax.nn.logsumexp(scores, axis=1) - jnp.sum(scores * right[None], axis=1)


def training(images: Examples, totals: Float[Array, " models"], rate: float, steps: int):
    """Gradient descent of each model on its weighted loss over its total.

    With the radius for a total, the rate is the paper's .1 N/R for a mean over the N rows.
    """

    def loss(params, weights, batch):
        return jnp.sum(weights * losses(params, batch.data) / totals[:, None])

    # Decay 0 makes momentum plain gradient descent; XLA drops the velocity's arithmetic.
    descent = hg.Momentum(rate, decay=0.0, convention=hg.HeavyBall())
    return hg.Training(loss, optimizer=descent, batches=hg.full_batch(images), steps=steps)


def zeros(models: int, classes: int, pixels: int) -> PyTree:
    """The parameters at the start."""
    return {"w": jnp.zeros((models, classes, pixels)), "b": jnp.zeros((models, classes))}


class Cleaning(eqx.Module):
    """The sum of the radii's validation losses, as a function of `{radius: weights}`."""

    training: hg.Training
    params: PyTree
    valid: Examples
    names: tuple[str, ...] = eqx.field(static=True)
    """The radii, in the order of the models."""
    watch: Any = eqx.field(static=True)
    """Called with the losses of each run."""

    def __call__(self, hyper: Mapping[str, Float[Array, " rows"]]) -> Float[Array, ""]:
        weights = jnp.stack([hyper[name] for name in self.names])
        run = self.training(self.params, weights, adjoint=hg.Stored())
        means = losses(run.params, self.valid).mean(axis=1)
        jax.debug.callback(self.watch, means)
        return means.sum()


class Watch:
    """Writes down each outer step, so that a resumed tuning has those before it too."""

    def __init__(
        self, settings: Settings, folder: Path, flipped: Bool[np.ndarray, " rows"], line: Line
    ):
        self.folder, self.flipped, self.line = folder, flipped, line
        self.names = [str(radius) for radius in settings.radii]
        self.path = folder / "seen.jsonl"
        self.count = 0
        self.latest: list[float] = []

    def __call__(self, means) -> None:
        self.latest = np.asarray(means).tolist()

    def step(self, record: Record, hyper: Mapping[str, Float[Array, " rows"]]) -> None:
        """Writes down an outer step."""
        jax.effects_barrier()
        weights = [np.asarray(hyper[name]) for name in self.names]
        f1 = [f1_score(self.flipped, w < CORRUPTED) for w in weights]
        with self.path.open("a") as file:
            file.write("\n" + json.dumps({"step": record.step, "valid": self.latest, "f1": f1}))
        self.count += 1
        self.line.done(1)

    def of(self, history: Sequence[Record]) -> dict[str, list]:
        """What was seen at each accepted step."""
        rows = {row["step"]: row for row in self._rows()}
        seen = [rows[record.step] for record in history if record.status == "accepted"]
        return {name: [row[name] for row in seen] for name in ("valid", "f1")}

    def _rows(self) -> Iterator[dict[str, Any]]:
        for text in self.path.read_text().splitlines():
            # A kill may cut a line short; its step is taken, and written down, again.
            with suppress(ValueError):
                yield json.loads(text)


def tune(settings: Settings, drawn: Draw, watch: Watch) -> dict[str, Any]:
    """Tunes the weights of all radii; they begin at R/N."""
    n, radii = settings.rows, {str(radius): float(radius) for radius in settings.radii}
    totals = jnp.asarray(list(radii.values()))
    objective = Cleaning(
        training(drawn.train, totals, settings.rate, settings.steps),
        zeros(len(radii), drawn.classes, drawn.train.x.shape[1]),
        drawn.valid,
        tuple(radii),
        watch,
    )
    result = runner.tune(
        objective,
        {name: jnp.full(n, radius / n) for name, radius in radii.items()},
        optax.adam(settings.rate_outer),
        steps=settings.steps_outer,
        project=hg.constraints.Box(dict.fromkeys(radii, (0, 1))) & hg.constraints.L1Ball(radii),
        checkpoint=watch.folder / "tuning",
        on_step=watch.step,
    )
    return {
        "weights": {name: np.asarray(result.hyper[name]).tolist() for name in radii},
        "seen": watch.of(result.history),
        "how": result.message,
    }


def first_hypergradient(settings: Settings, drawn: Draw) -> Float[Array, " rows"]:
    """The hypergradient at equal weights: how much each example hurts. It is the same for all
    radii, up to a factor."""
    n = settings.rows
    train = training(drawn.train, jnp.asarray([float(n)]), settings.rate, settings.steps)
    start = zeros(1, drawn.classes, drawn.train.x.shape[1])

    def objective(weights):
        run = train(start, weights[None], adjoint=hg.Stored())
        return losses(run.params, drawn.valid).mean()

    return jax.grad(objective)(jnp.ones(n))


def accuracies(settings: Settings, drawn: Draw, kept: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Test accuracy, in percent, of models trained on the training rows that are kept, and on the
    validation rows."""
    n = settings.rows
    rows = np.stack([np.concatenate([rows, np.ones(n, bool)]) for rows in kept.values()])
    weights = jnp.asarray(rows, jnp.float32)
    both = drawn.train + drawn.valid
    train = training(both, weights.sum(axis=1), settings.rate_final, settings.steps_final)
    start = zeros(len(weights), drawn.classes, both.x.shape[1])
    predicted = logits(train(start, weights).params, drawn.test.x).argmax(axis=1)
    right = (predicted == drawn.test.y[None]).mean(axis=1)
    return {name: 100 * float(r) for name, r in zip(kept, right, strict=True)}


def one_seed(settings: Settings, seed: int, kept: Pieces, line: Line) -> dict[str, Any]:
    """One draw: tuned, cleaned, and all models tested."""
    drawn, n = draw(settings, seed), settings.rows
    line.stage(f"seed {seed}: tuning {n:,} weights for each radius")
    watch = Watch(settings, kept.folder(f"seed-{seed}"), drawn.flipped, line)
    tuned = kept(f"seed-{seed}/tuned", lambda: tune(settings, drawn, watch))
    line.done(settings.steps_outer - watch.count)  # done before an interruption
    weights = {radius: np.array(w) for radius, w in tuned["weights"].items()}
    line.stage(f"seed {seed}: testing")

    def judge():
        references = {
            report.ORACLE: ~drawn.flipped,
            report.BASELINE: np.ones(n, bool),
            report.VALIDATION: np.zeros(n, bool),
        }
        cleaned = {radius: w >= CORRUPTED for radius, w in weights.items()}
        hurts = np.asarray(first_hypergradient(settings, drawn))
        return {
            "accuracy": accuracies(settings, drawn, references | cleaned),
            "auc": float(roc_auc_score(drawn.flipped, hurts)),
            "detection": {r: detection(drawn.flipped, w) for r, w in weights.items()},
            "histogram": {r: histogram(drawn.flipped, w) for r, w in weights.items()},
            "suspects": suspects(drawn, weights, hurts),
        }

    return {
        "seed": seed,
        "seen": tuned["seen"],
        "how": tuned["how"],
        **kept(f"seed-{seed}/judged", judge),
    }


def detection(flipped: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """How well small weights tell the flipped labels."""
    found = weights < CORRUPTED
    return {
        "f1": float(f1_score(flipped, found)),
        "precision": float(np.mean(flipped[found])) if found.any() else 0.0,
        "recall": float(np.mean(found[flipped])),
        "found": int(found.sum()),
    }


def histogram(flipped: np.ndarray, weights: np.ndarray) -> dict[str, list[int]]:
    """Counts of weights in equal parts of [0, 1], of the flipped and of the other examples."""
    count = lambda w: np.histogram(w, BINS, (0, 1))[0].tolist()
    return {"flipped": count(weights[flipped]), "clean": count(weights[~flipped])}


def suspects(drawn: Draw, weights: Mapping[str, np.ndarray], hurts: np.ndarray) -> dict[str, list]:
    """The examples of weight 0 at every radius that hurt most at the start: of all, and of those
    whose label is the data set's own."""
    zero = np.all([w < CORRUPTED for w in weights.values()], axis=0)
    order = np.argsort(-hurts)
    order = order[zero[order]]
    worst, odd = order[:SHOWN], order[~drawn.flipped[order]][:ODD]
    given = np.asarray(drawn.train.y)
    say = lambda rows: [[int(drawn.indices[i]), int(given[i])] for i in rows]
    return {"worst": say(worst), "odd": say(odd)}


def run(settings: Settings, kept: Pieces, line: Line) -> Results:
    """All seeds."""
    return {"runs": [one_seed(settings, seed, kept, line) for seed in settings.each_seed()]}


def total(settings: Settings) -> int:
    """Outer steps."""
    return settings.seeds * settings.steps_outer


# Steps times rate, how far the models are trained, is a tenth of the paper's 2,000 × .1. Models
# that are trained less tell the wrong labels better, and take minutes.
DEFAULT = Settings(
    data="mnist",
    rows=5000,
    radii=(1000, 1500, 2000, 2500),
    steps=50,
    rate=0.4,
    steps_outer=60,
    rate_outer=0.03,
    steps_final=400,
    rate_final=0.5,
    seeds=3,
)

FULL = replace(
    DEFAULT,
    steps=2000,
    rate=0.1,
    steps_outer=500,
    rate_outer=0.005,
    steps_final=2000,
    rate_final=0.1,
)

SMALL = replace(
    DEFAULT,
    data="digits",
    rows=200,
    radii=(100, 60),
    steps=30,
    rate=0.4,
    steps_outer=15,
    rate_outer=0.1,
    steps_final=50,
    seeds=1,
)

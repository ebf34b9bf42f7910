"""Documents that made a GPT: does attribution foretell training without them, and at which rates?

A small GPT learns a text that is divided into documents, each with a weight. The losses at held-out
passages are attributed to the documents, and trainings without random ones show how far that holds
(`certify`), at several peaks of the rate.
"""

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

import hindgrad as hg
from experiments.attribution import attribution_gpt_report as report
from experiments.runner import BySeed, Results
from experiments.text import gpt
from experiments.text.gpt_tuning import Text, divided, losses
from hindgrad.progress import Bar as Line

ABOUT = "Attribution of a GPT's losses to the documents that it learned, at several rates."


@dataclass(frozen=True)
class Settings(BySeed):
    """Sizes, and what is asked."""

    text: str
    documents: int
    context: int
    rows: int
    """In a batch."""
    width: int
    layers: int
    steps: int
    peaks: tuple[float, ...]
    """Of the rate; each is a condition."""
    queries: int
    """Held-out passages."""
    passage: int
    """Rows of each."""
    runs: int
    """Retrainings."""
    drop: float
    """The share of the documents that each does without."""


def objective_of(settings: Settings, text: Text, peak: float) -> hg.Objective:
    """The loss on the passages; AdamW with warm-up and cosine, and dropout."""
    schedule = hg.schedules.WarmupCosine(steps=settings.steps)
    rate = schedule.init(peak=peak, warmup=0.1 * (settings.steps - 1), end=0.1 * peak)

    def loss(model, weights, batch):
        own = losses(model, batch.data, batch.key)
        return jnp.mean(weights[text.document[batch.index]] * own)

    def training(key):
        return hg.Training(
            loss,
            optimizer=hg.Adam(
                lambda _, t: schedule(rate, t),
                b2=0.99,
                eps=1e-5,
                weight_decay=hg.Decoupled(0.05),
            ),
            batches=hg.minibatches(text.train, size=settings.rows, key=key),
            steps=settings.steps,
        )

    sizes = {"context": settings.context, "width": settings.width, "layers": settings.layers}
    init = lambda _, key: gpt.GPT(text.vocabulary, **sizes, key=key, dtype="float32")
    queries = passages(settings, text)
    return hg.Objective(training, init=init, score=lambda model, *_: queries(model))


def passages(settings: Settings, text: Text) -> Any:
    """A function that gives the losses [queries] of a model at passages from all over the text
    that was not trained on."""
    starts = np.linspace(0, len(text.test) - settings.passage, settings.queries).astype(int)
    rows = text.test[(starts[:, None] + np.arange(settings.passage)).reshape(-1)]
    return lambda model: losses(model, rows, None).reshape(settings.queries, -1).mean(1)


def run(settings: Settings, kept: Any, line: Line) -> Results:
    """All rates, for every seed."""
    text = divided(settings.text, settings.context, settings.documents)
    found = []
    for seed in settings.each_seed():
        for peak in settings.peaks:
            one = kept(f"seed-{seed}/{peak}", lambda: certified(settings, text, peak, seed))  # noqa: B023
            found.append({"peak": peak, "seed": seed, **one})
            line.done(1)
    return {"found": found}


def certified(settings: Settings, text: Text, peak: float, seed: int) -> dict[str, Any]:
    """What the certificate at a rate says."""
    objective = objective_of(settings, text, peak)
    queries = passages(settings, text)
    ones = jnp.ones(settings.documents)
    try:
        found = hg.attribute(objective, ones, lambda model, *_: queries(model), key=seed)
    except RuntimeError as error:  # derivatives are beyond all bounds
        return {"verdict": report.REFUSED, "reason": str(error)}
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it finds
        certificate = found.certify(
            runs=settings.runs, drop=settings.drop, seed=seed, progress=False
        )
    low, high = certificate.interval or (None, None)
    return {
        "loss": float(jnp.mean(found.values)),
        "lds": certificate.mean,
        "low": low,
        "high": high,
        "worst": min(certificate.lds.values(), default=None),
        "ratio": certificate.ratio,
        "smooth": certificate.metasmoothness,
        "precision": certificate.precision and float(certificate.precision.error),
        "verdict": certificate.verdict,
    }


def total(settings: Settings) -> int:
    """In certificates."""
    return settings.seeds * len(settings.peaks)


DEFAULT = Settings(
    seeds=2,
    text="tinyshakespeare",
    documents=200,
    context=32,
    rows=16,
    width=32,
    layers=2,
    steps=150,
    peaks=(1e-3, 3e-3, 1e-2, 3e-2),
    queries=20,
    passage=8,
    runs=50,
    drop=0.01,
)
FULL = Settings(**{**vars(DEFAULT), "seeds": 5, "steps": 1000, "width": 64, "layers": 4})
SMALL = Settings(
    seeds=1,
    text="manual",
    documents=20,
    context=8,
    rows=16,
    width=16,
    layers=1,
    steps=30,
    peaks=(1e-3,),
    queries=3,
    passage=2,
    runs=15,
    drop=0.05,
)

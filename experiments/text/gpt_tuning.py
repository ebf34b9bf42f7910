"""A GPT's schedule, decay and document weights, tuned by hypergradient and by Optuna.

Of a text the first three fifths are documents to train on, the next fifth chooses, the last one
judges. Each arm costs the same, counted in trainings: outer steps times what a hypergradient takes,
and the trainings that choose the answer. Every training has a start, an order of the rows and
validation rows of its own; the answers are judged by trainings whose keys no arm has seen.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

import hindgrad as hg
from experiments import runner
from experiments.runner import BySeed, Results
from experiments.search import search
from experiments.text import gpt
from experiments.text import gpt_tuning_report as report
from hindgrad.apps import datasets
from hindgrad.progress import Bar as Line

ABOUT = "A GPT's schedule, weight decay and document weights, by hypergradient and by Optuna."

CHOOSING = 15
"""Trainings by which `hg.tune` chooses its answer: five keys, three candidates."""
FINALISTS, FURTHER = 5, 3
"""Optuna's best trials get as many more draws, which is as much."""
DROPOUT = 0.1
TEST_ROWS, UNSEEN = 512, 10_000
"""By how many rows an answer is judged, and what is added to the seed for it."""
ADJOINT = hg.Stored()

RANGES = {
    "log_peak": (np.log(1e-4), np.log(1e-1)),
    "warmup": (0.01, 0.5),
    "log_end": (np.log(1e-3), 0.0),
    "log_decay": (np.log(1e-3), np.log(3.0)),
}
"""What Optuna searches; the warm-up is a share of the steps, the end one of the peak."""
START = {"log_peak": np.log(1e-3), "warmup": 0.1, "log_end": np.log(0.1), "log_decay": -3.0}
"""Where all arms begin."""


@dataclass(frozen=True)
class Settings(BySeed):
    """Sizes, and what a hypergradient costs."""

    text: str
    damaged: tuple[int, ...]
    """Of how many documents the letters are shuffled; each is a condition."""
    documents: int
    context: int
    rows: int
    """In a batch."""
    width: int
    layers: int
    steps: int
    steps_outer: int
    rate_outer: float
    cost: float
    """Trainings that a hypergradient takes, as measured."""
    judges: int
    """Trainings that judge an answer."""

    @property
    def trainings(self) -> int:
        """What an arm may spend before the answer is chosen."""
        return round(self.steps_outer * self.cost)


class Text(eqx.Module):
    """Rows of letters, as numbers."""

    train: Int[Array, "rows context+1"]
    document: Int[Array, " rows"]
    """Of each training row."""
    valid: Int[Array, "rows context+1"]
    test: Int[Array, "rows context+1"]
    vocabulary: int = eqx.field(static=True)
    documents: int = eqx.field(static=True)


def read(name: str) -> str:
    """The text of that name: `manual`, Python's own, or NAME.txt in the folder of the data."""
    if name == "manual":
        return "".join(topics.values())
    path = Path(os.environ.get(datasets.FOLDER, ".")) / f"{name}.txt"
    if not path.exists():
        raise datasets.DataError(
            f"{path} is not there: name the folder that holds {name}.txt in {datasets.FOLDER}."
        )
    return path.read_text(encoding="utf-8")


def load(settings: Settings, damaged: int, seed: int) -> Text:
    """The text in rows; the letters of some documents, drawn by the seed, are shuffled."""
    text = divided(settings.text, settings.context, settings.documents)
    rng, train = np.random.default_rng(seed), np.array(text.train)
    for number in spoiled(settings, damaged, seed):
        within = np.asarray(text.document) == number
        train[within] = rng.permuted(train[within].reshape(-1)).reshape(-1, train.shape[1])
    return eqx.tree_at(lambda text: text.train, text, jnp.asarray(train))


def divided(name: str, context: int, documents: int) -> Text:
    """The text of that name in rows, of which the first three fifths are documents, as long as
    each other."""
    letters, numbers = np.unique(list(read(name)), return_inverse=True)
    length = context + 1
    rows = numbers[: len(numbers) // length * length].reshape(-1, length)
    train, valid, test = np.split(rows, [len(rows) * 3 // 5, len(rows) * 4 // 5])
    document = np.arange(len(train)) * documents // len(train)
    parts = (jnp.asarray(part, jnp.int32) for part in (train, document, valid, test))
    return Text(*parts, vocabulary=len(letters), documents=documents)


def spoiled(settings: Settings, damaged: int, seed: int) -> list[int]:
    """The numbers of the documents whose letters are shuffled."""
    return sorted(np.random.default_rng(seed).permutation(settings.documents)[:damaged].tolist())


def hyper_of(settings: Settings, point: Mapping[str, float]) -> PyTree:
    """The hyperparameters at a point of Optuna's space."""
    peak, end = np.exp(point["log_peak"]), np.exp(point["log_peak"] + point["log_end"])
    schedule = hg.schedules.WarmupCosine(steps=settings.steps)
    rate = schedule.init(peak=peak, warmup=point["warmup"] * (settings.steps - 1), end=end)
    return {"rate": rate, "log_decay": jnp.float32(point["log_decay"])}


def shares(hyper: PyTree, documents: int) -> Float[Array, " documents"]:
    """The weights of the documents, whose mean is 1: all 1 unless they are tuned."""
    if "log_weight" not in hyper:
        return jnp.ones(documents)
    return jax.nn.softmax(hyper["log_weight"]) * documents


def objective_of(settings: Settings, text: Text) -> hg.Objective:
    """The loss on validation rows drawn by the key."""
    schedule = hg.schedules.WarmupCosine(steps=settings.steps)

    def loss(model, hyper, batch):
        weights = shares(hyper, text.documents)[text.document[batch.index]]
        return jnp.mean(weights * losses(model, batch.data, batch.key))

    def training(key):
        return hg.Training(
            loss,
            optimizer=hg.Adam(
                lambda hyper, t: schedule(hyper["rate"], t),
                b2=0.99,
                eps=1e-5,
                weight_decay=hg.Decoupled(lambda hyper, _: jnp.exp(hyper["log_decay"])),
            ),
            batches=hg.minibatches(text.train, size=settings.rows, key=key),
            steps=settings.steps,
        )

    def score(model, hyper, key):
        del hyper
        rows = jax.random.randint(key, (8 * settings.rows,), 0, len(text.valid))
        return jnp.mean(losses(model, text.valid[rows], None))

    sizes = {"context": settings.context, "width": settings.width, "layers": settings.layers}
    init = lambda _, key: gpt.GPT(text.vocabulary, **sizes, key=key, dtype="float32")
    return hg.Objective(training, init=init, score=score)


def losses(
    model: gpt.GPT, rows: Int[Array, "rows context+1"], key: PRNGKeyArray | None
) -> Float[Array, " rows"]:
    """The mean loss of each row's next letters."""
    return gpt.cross_entropy(model(rows[:, :-1], DROPOUT, key), rows[:, 1:])


def by_hypergradient(
    settings: Settings, objective: hg.Objective, start: PyTree, seed: int, line: Line
) -> PyTree:
    """What `hg.tune` makes of the start."""
    result = runner.tune(
        objective,
        start,
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(settings.rate_outer)),
        steps=settings.steps_outer,
        key=seed,
        adjoint=ADJOINT,
        on_step=lambda *_: line.done(round(settings.cost)),
    )
    return result.hyper


def by_search(
    settings: Settings, value: Callable[[PyTree, PRNGKeyArray], Any], seed: int, line: Line
) -> PyTree:
    """The best finalist of Optuna's estimator, which begins at the start."""
    key = jax.random.key(seed)

    def loss(point, draw):
        found = float(value(hyper_of(settings, point), jax.random.fold_in(key, draw)))
        line.done(1)
        return found

    counts = {"trials": settings.trainings, "finalists": FINALISTS, "further": FURTHER}
    return hyper_of(settings, search(loss, START, RANGES, **counts, seed=seed).late)


def judged(
    settings: Settings, text: Text, objective: hg.Objective, hyper: PyTree, seed: int
) -> float:
    """The mean loss on the test rows, of trainings that no arm has seen."""
    rows = text.test[:TEST_ROWS]
    score = lambda model, *_: jnp.mean(losses(model, rows, None))
    test = hg.Objective(objective.training, init=objective.init, score=score)
    keys = jax.random.split(jax.random.key(UNSEEN + seed), settings.judges)
    return float(np.mean([float(test(hyper, key)) for key in keys]))


def answer(settings: Settings, hyper: PyTree) -> dict[str, Any]:
    """The hyperparameters as the report has them."""
    schedule = hg.schedules.WarmupCosine(steps=settings.steps)
    return {
        "rates": np.asarray(schedule.values(hyper["rate"]), float).tolist(),
        "decay": float(np.exp(hyper["log_decay"])),
        "weights": np.asarray(shares(hyper, settings.documents), float).tolist(),
    }


def run(settings: Settings, kept: Any, line: Line) -> Results:
    """All arms, for every number of damaged documents and every seed."""
    found = []
    for seed in settings.each_seed():
        for damaged in settings.damaged:
            found += one_seed(settings, damaged, seed, kept, line)
    return {"found": found}


def one_seed(
    settings: Settings, damaged: int, seed: int, kept: Any, line: Line
) -> list[dict[str, Any]]:
    """All arms on one draw of damaged documents."""
    text = load(settings, damaged, seed)
    objective, start = objective_of(settings, text), hyper_of(settings, START)
    value = jax.jit(lambda hyper, key: objective(hyper, key))
    whole = start | {"log_weight": jnp.zeros(settings.documents)}
    ways: dict[str, Callable[[], PyTree]] = {
        report.START: lambda: start,
        report.OPTUNA: lambda: by_search(settings, value, seed, line),
        report.SCHEDULE: lambda: by_hypergradient(settings, objective, start, seed, line),
        report.ALL: lambda: by_hypergradient(settings, objective, whole, seed, line),
    }

    def judge(way):
        hyper = way()
        loss = judged(settings, text, objective, hyper, seed)
        return {"loss": loss, **answer(settings, hyper)}

    about = {"damaged": damaged, "seed": seed, "spoiled": spoiled(settings, damaged, seed)}
    return [
        {"way": name, **about, **kept(f"seed-{seed}/{place}-{damaged}", partial(judge, way))}
        for place, (name, way) in enumerate(ways.items())
    ]


def total(settings: Settings) -> int:
    """In trainings."""
    arms = 3 * settings.trainings + FINALISTS * FURTHER
    return len(settings.damaged) * settings.seeds * arms


DEFAULT = Settings(
    seeds=3,
    text="tinyshakespeare",
    damaged=(0, 10),
    documents=50,
    context=32,
    rows=16,
    width=32,
    layers=2,
    steps=150,
    steps_outer=20,
    rate_outer=0.3,
    cost=5.0,
    judges=3,
)
FULL = Settings(**{**vars(DEFAULT), "seeds": 10, "steps": 1000, "width": 64, "layers": 4})
SMALL = Settings(
    seeds=1,
    text="manual",
    damaged=(2,),
    documents=5,
    context=8,
    rows=4,
    width=16,
    layers=1,
    steps=6,
    steps_outer=2,
    rate_outer=0.1,
    cost=3.0,
    judges=1,
)

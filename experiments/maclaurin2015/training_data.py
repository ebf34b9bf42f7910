"""Ten images to learn from, learned themselves, with the penalty (Maclaurin et al. 2015, section
3.3).

Logistic regression trains on ten images, one of each class, which begin as noise. Their pixels and
the logarithm of an L2 penalty are lowered by the hypergradient of the validation loss on real
images. Beside it: what ten real images and the ten class means give, in the same training and in
one chosen for them on the validation images.
"""

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

import hindgrad as hg
from experiments import runner
from experiments.maclaurin2015 import training_data_report as report
from experiments.models import Examples, Layers, Split, error, gaussian, nll, split
from experiments.runner import BySeed, Pieces, Results
from hindgrad import programs
from hindgrad.batches import Batch
from hindgrad.progress import Bar as Line

ABOUT = (
    "Ten images to learn from, learned themselves. Maclaurin, Duvenaud and Adams 2015, "
    "*Gradient-based hyperparameter optimization through reversible learning*, section 3.3."
)

CHOICE = 10
"""What choosing a training for one set of images counts as, in outer steps."""


@dataclass(frozen=True)
class Settings(BySeed):
    """Sizes, and the start of what is learned."""

    data: str
    train: int
    """Examples that real ones and class means are taken from."""
    valid: int
    test: int
    scale: float
    """Standard deviation of the pixels of the images to begin with."""
    l2: float
    """The penalty to begin with."""
    log_scale: float
    """Logarithm of the standard deviation of the initial weights."""
    rate: float
    decay: float
    steps: int
    rate_outer: float
    """Of plain gradient descent, as in the paper;"""
    steps_outer: int
    rate_longer: float
    """and of Adam, for learning longer than the paper does."""
    steps_longer: int
    rates: tuple[float, ...]
    """What the choice of a training for real images is among,"""
    l2s: tuple[float, ...]
    lengths: tuple[int, ...]
    batch: int
    """Examples in a step, for training on more than ten."""
    draws: int
    """Draws of real images, and of fresh initial weights."""


class Way(NamedTuple):
    """How to train on some images."""

    rate: float
    l2: float
    steps: int


Hyper = dict[str, Any]
"""`images` [classes, pixels] and `log_l2`."""


def loss(layers: Layers, hyper: Hyper, batch: Batch) -> Float[Array, ""]:
    """The mean negative log-likelihood of a batch, and the penalty."""
    squares = sum(jnp.sum(w**2) for w in jax.tree.leaves(layers))
    return nll(layers, batch.data) + jnp.exp(hyper["log_l2"]) * squares


def initial(settings: Settings, drawn: Split, key: PRNGKeyArray) -> Layers:
    """Initial weights of the logistic regression."""
    sizes = (drawn.train.x.shape[1], drawn.classes)
    return gaussian(key, sizes, [jnp.array(settings.log_scale)] * 2)


def objective(settings: Settings, drawn: Split, init: Any) -> hg.Objective:
    """The validation loss as a function of the images and the penalty."""
    y = jnp.arange(drawn.classes)

    def learned(layers, hyper, batch):
        del batch
        return loss(layers, hyper, Batch(Examples(hyper["images"], y), None, y))

    training = hg.Training(
        learned,
        optimizer=hg.Momentum(settings.rate, settings.decay),
        batches=hg.full_batch(y),
        steps=settings.steps,
    )
    score = lambda layers, *_: nll(layers, drawn.valid)
    return hg.Objective(training, init=init, score=score)


def start(settings: Settings, drawn: Split, seed: int) -> Hyper:
    """Examples of noise, and the penalty."""
    key = jax.random.fold_in(jax.random.key(seed), 1)
    noise = jax.random.normal(key, (drawn.classes, drawn.train.x.shape[1]))
    return {"images": settings.scale * noise, "log_l2": jnp.log(settings.l2)}


def learn(settings: Settings, drawn: Split, seed: int) -> dict[str, Any]:
    """Learns by gradient descent, from the same initial weights at each outer step, as the
    authors' code does."""
    run = objective(settings, drawn, initial(settings, drawn, jax.random.key(seed)))
    return _tuned(
        run,
        start(settings, drawn, seed),
        optax.sgd(settings.rate_outer),
        steps=settings.steps_outer,
    )


def learn_longer(settings: Settings, drawn: Split, seed: int) -> dict[str, Any]:
    """Learns by Adam, from fresh initial weights at each outer step."""
    run = objective(settings, drawn, lambda _, key: initial(settings, drawn, key))
    return _tuned(
        run,
        start(settings, drawn, seed),
        optax.adam(settings.rate_longer),
        steps=settings.steps_longer,
        key=seed,
    )


def _tuned(run: hg.Objective, hyper: Hyper, optimizer: Any, **options: Any) -> dict[str, Any]:
    begun = time.monotonic()
    result = runner.tune(
        run,
        hyper,
        optimizer,
        adjoint=hg.Reversible(),
        **options,
    )
    return {
        "valid": [float(record.value) for record in result.history],
        "images": np.asarray(result.hyper["images"], float).round(6).tolist(),
        "l2": float(jnp.exp(result.hyper["log_l2"])),
        "how": result.message,
        "seconds": time.monotonic() - begun,
    }


@programs.compiled
def judged(layers: PyTree, drawn: Split) -> dict[str, Float[Array, "..."]]:
    """How weights do, many at once: leaves of them have the same leading axes."""

    def one(layers):
        return {
            "valid_loss": nll(layers, drawn.valid),
            "test_loss": nll(layers, drawn.test),
            "test_error": error(layers, drawn.test),
        }

    return jax.lax.map(one, layers)


@programs.compiled
def train(
    settings: Settings,
    images: Examples,
    rate: Float[Array, ""],
    l2: Float[Array, ""],
    run: tuple[Layers, PyTree],
    begin: int,
    steps: int,
) -> tuple[Layers, PyTree]:
    """Trains on images that stay as they are, from step `begin` on."""
    training = hg.Training(
        loss,
        optimizer=hg.Momentum(lambda hyper, _: hyper["rate"], settings.decay),
        batches=hg.minibatches(images, size=min(settings.batch, len(images.y)), key=0),
        steps=steps,
    )
    hyper = {"rate": rate, "log_l2": jnp.log(l2)}
    layers, memory = run
    after = training(layers, hyper, state=memory, start=begin, adjoint=hg.Stored())
    return after.params, after.state


def trained(
    settings: Settings, drawn: Split, sets: list[Examples], way: Way, seeds: list[int]
) -> dict[str, float]:
    """The mean over sets of images, each with the initial weights of a seed of its own."""
    runs = []
    for images, seed in zip(sets, seeds, strict=True):
        rest = (jnp.asarray(way.rate), jnp.asarray(way.l2))
        run = (initial(settings, drawn, jax.random.key(seed)), None)
        runs.append(train(settings, images, *rest, run, 0, way.steps)[0])
    found = judged(jax.tree.map(lambda *leaves: jnp.stack(leaves), *runs), drawn)
    return {name: float(values.mean()) for name, values in found.items()} | way._asdict()


def chosen(settings: Settings, drawn: Split, sets: list[Examples], seeds: list[int]) -> Way:
    """The training whose mean validation loss over the sets is lowest."""
    grid = [(rate, l2) for rate in settings.rates for l2 in settings.l2s]
    rates, l2s = jnp.asarray(grid).T
    losses = np.zeros((len(settings.lengths), len(grid)))
    for images, seed in zip(sets, seeds, strict=True):
        layers = initial(settings, drawn, jax.random.key(seed))
        layers = jax.tree.map(lambda w: jnp.broadcast_to(w, (len(grid), *w.shape)), layers)
        run, begin = (layers, jax.tree.map(jnp.zeros_like, layers)), 0
        for i, length in enumerate(settings.lengths):
            go = partial(train, settings, images, begin=begin, steps=length - begin)
            together = eqx.filter_vmap(lambda rate, l2, run, go=go: go(rate, l2, run))
            run, begin = together(rates, l2s, run), length
            losses[i] += np.nan_to_num(judged(run[0], drawn)["valid_loss"], nan=np.inf)
    i, j = np.unravel_index(losses.argmin(), losses.shape)
    return Way(*grid[j], settings.lengths[i])


def real(settings: Settings, drawn: Split, seed: int) -> list[Examples]:
    """Draws of one random training image of each class."""
    rng = np.random.default_rng(seed)
    y = np.asarray(drawn.train.y)
    sets = []
    for _ in range(settings.draws):
        rows = np.array([rng.choice(np.flatnonzero(y == c)) for c in range(drawn.classes)])
        sets.append(drawn.train[rows])
    return sets


def means(drawn: Split) -> Examples:
    """The mean training image of each class."""
    x, y = np.asarray(drawn.train.x), np.asarray(drawn.train.y)
    mean = np.stack([x[y == c].mean(axis=0) for c in range(drawn.classes)])
    return Examples(jnp.asarray(mean), jnp.arange(drawn.classes))


def one_seed(settings: Settings, seed: int, kept: Pieces, line: Line) -> dict[str, Any]:
    """One split, with everything learned and tested on it."""
    drawn = split(settings.data, settings.train, settings.valid, settings.test, seed)
    line.stage(f"seed {seed}: learning {drawn.classes} images")
    piece = lambda name, compute: kept(f"seed-{seed}/{name}", compute)
    learned = piece("learned", lambda: learn(settings, drawn, seed))
    line.done(settings.steps_outer)
    line.stage(f"seed {seed}: learning longer")
    longer = piece("longer", lambda: learn_longer(settings, drawn, seed))
    line.done(settings.steps_longer)
    line.stage(f"seed {seed}: training on real images")
    images = lambda found: Examples(jnp.asarray(found["images"]), jnp.arange(drawn.classes))
    same = Way(settings.rate, settings.l2, settings.steps)
    fresh = [1000 * (seed + 1) + i for i in range(settings.draws)]

    def judge():
        begun = time.monotonic()
        noise = Examples(start(settings, drawn, seed)["images"], jnp.arange(drawn.classes))
        arms = {report.START: trained(settings, drawn, [noise], same, [seed])}
        way = same._replace(l2=learned["l2"])
        arms[report.LEARNED] = trained(settings, drawn, [images(learned)], way, [seed])
        arms[f"{report.LEARNED}, {report.FRESH}"] = trained(
            settings, drawn, [images(learned)] * len(fresh), way, fresh
        )
        way = same._replace(l2=longer["l2"])
        arms[report.LONGER] = trained(settings, drawn, [images(longer)] * len(fresh), way, fresh)
        others = {
            report.RANDOM: real(settings, drawn, seed),
            report.MEANS: [means(drawn)] * len(fresh),
        }
        for name, sets in others.items():
            arms[name] = trained(settings, drawn, sets, same, fresh)
            arms[f"{name}, {report.TUNED}"] = trained(
                settings, drawn, sets, chosen(settings, drawn, sets, fresh), fresh
            )
        one = fresh[:1]
        way = chosen(settings, drawn, [drawn.train], one)
        arms[report.ALL] = trained(settings, drawn, [drawn.train], way, one)
        return {"arms": arms, "seconds": time.monotonic() - begun}

    tested = piece("tested", judge)
    line.done(CHOICE * 3)
    return {
        "seed": seed,
        "arms": tested["arms"],
        "valid": {report.LEARNED: learned["valid"], report.LONGER: longer["valid"]},
        "seconds": {
            report.LEARNED: learned["seconds"],
            report.LONGER: longer["seconds"],
            "real images": tested["seconds"],
        },
        "images": {
            report.LEARNED: learned["images"],
            report.LONGER: longer["images"],
            report.MEANS: np.asarray(means(drawn).x, float).round(6).tolist(),
        },
        "image": list(drawn.image),
    }


def run(settings: Settings, kept: Pieces, line: Line) -> Results:
    """All seeds; the images of the first are kept."""
    runs = [one_seed(settings, seed, kept, line) for seed in settings.each_seed()]
    first = {name: runs[0][name] for name in ("images", "image")}
    for each in runs:
        del each["images"], each["image"]
    return {"runs": runs, **first}


def total(settings: Settings) -> int:
    """Outer steps, and the choices of a training."""
    return settings.seeds * (settings.steps_outer + settings.steps_longer + CHOICE * 3)


DEFAULT = Settings(
    data="mnist",
    train=10_000,
    valid=10_000,
    test=10_000,
    scale=0.01,
    l2=0.01,
    log_scale=-4.0,
    rate=1.0,
    decay=0.9,
    steps=20,
    rate_outer=1.0,
    steps_outer=40,
    rate_longer=0.02,
    steps_longer=200,
    rates=(0.03, 0.1, 0.3, 1.0, 3.0),
    l2s=(1e-4, 1e-3, 1e-2, 1e-1),
    lengths=(20, 100, 500),
    batch=200,
    draws=5,
    seeds=5,
)

FULL = replace(DEFAULT, seeds=10)

SMALL = replace(
    DEFAULT,
    data="digits",
    train=600,
    valid=600,
    test=500,
    steps=10,
    steps_outer=40,
    steps_longer=40,
    rates=(0.3, 3.0),
    l2s=(1e-2,),
    lengths=(10,),
    draws=2,
    seeds=1,
)

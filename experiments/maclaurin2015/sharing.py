"""Learned sharing of weights between tasks (Maclaurin, Duvenaud and Adams 2015, section 3.4).

Ten tasks, five alphabets of Omniglot and the same five turned by 90 degrees, are learned by ten
networks at once. The weights of layer l of all networks are w_l = T_l z_l: z is trained, and the
matrix T_l [tasks, tasks] says who shares that layer's weights with whom. The three matrices are
tuned by the hypergradient of the validation loss. Beside them: separate networks (T = I), and
networks that all have the same bottom layer.

Training, sizes and rates are those of the authors' code, also the drawings that the outer loss is
taken on: at each outer step other ones of the training drawings are held back.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

import hindgrad as hg
from experiments import runner
from experiments.maclaurin2015 import sharing_report as report
from experiments.models import Examples, Layers, gaussian, nll
from experiments.runner import BySeed, Pieces, Results
from hindgrad import programs
from hindgrad.apps import datasets
from hindgrad.progress import Bar as Line

ABOUT = (
    "Which tasks share which layer? Maclaurin, Duvenaud and Adams 2015, *Gradient-based "
    "hyperparameter optimization through reversible learning*, section 3.4."
)

Matrices = list[Array]
"""T for each layer [tasks, tasks]."""

HELD_OUT = 15
"""How many trainings `hg.tune` takes to choose between the start, the best iterate and the mean of
the last ones: five fresh draws of each."""


@dataclass(frozen=True)
class Settings(BySeed):
    """Sizes and rates."""

    data: str
    alphabets: tuple[str, ...]
    """Each is a task, and once more turned by 90 degrees."""
    drawers: int
    """The first so many drawings of each character are for training and testing, and the others
    for a second test, by people whom nothing was learned from."""
    test: int
    """How many of those of each character are for testing,"""
    valid: int
    """and how many of the rest are held back for the outer loss."""
    hidden: tuple[int, ...]
    outputs: int
    """Of each network; those beyond its alphabet's number of characters are never right."""
    steps: int
    rate: float
    decay: float
    log_l2: float
    """Of the penalty on all z."""
    log_scale: float
    """Logarithm of the standard deviation of the initial z."""
    correlation: float
    """How much the layers are shared to begin with: T = (1 - c) I + c / tasks."""
    rate_outer: float
    steps_outer: int
    average: float
    """The share of the last outer steps whose matrices are averaged."""

    @property
    def tasks(self) -> int:
        return 2 * len(self.alphabets)

    @property
    def layers(self) -> int:
        return len(self.hidden) + 1


class Task(eqx.Module):
    """The characters of one alphabet; a character's number is its class."""

    x: Float[Array, "characters drawings pixels"]

    def images(self) -> Examples:
        """All drawings, with their classes."""
        characters, drawings, pixels = self.x.shape
        y = jnp.repeat(jnp.arange(characters, dtype=jnp.int32), drawings)
        return Examples(self.x.reshape(-1, pixels), y)

    def divide(self, key: PRNGKeyArray, held: int) -> tuple["Task", "Task"]:
        """Holds back `held` drawings of each character, drawn anew for each."""
        order = jnp.argsort(jax.random.uniform(key, self.x.shape[:2]), axis=1)
        x = jnp.take_along_axis(self.x, order[:, :, None], axis=1)
        kept = x.shape[1] - held
        return Task(x[:, :kept]), Task(x[:, kept:])


Tasks = tuple[Task, ...]


class Draw(eqx.Module):
    """The drawings of one seed."""

    train: Tasks
    test: Tasks
    new: Tasks
    """Drawings by other people."""


def draw(settings: Settings, seed: int) -> Draw:
    """Divides the drawings of each character of each task at random, the turned ones apart from
    the others, as in the authors' code. Pixels are in [0, 1] less the mean image."""
    data, rng = datasets.load(settings.data), np.random.default_rng(seed)
    assert data.image is not None
    upright = [drawings(data, alphabet) for alphabet in settings.alphabets]
    turned = [np.rot90(x.reshape(*x.shape[:2], *data.image), axes=(2, 3)) for x in upright]
    tasks = upright + [x.reshape(*x.shape[:2], -1) for x in turned]
    mean = np.concatenate([x.reshape(-1, x.shape[-1]) for x in tasks]).mean(axis=0)
    first = settings.drawers - settings.test
    train, test, new = [], [], []
    for x in tasks:
        x = jnp.asarray(x - mean, jnp.float32)
        order = rng.permuted(np.tile(np.arange(settings.drawers), (len(x), 1)), axis=1)
        shuffled = jnp.take_along_axis(x, jnp.asarray(order)[:, :, None], axis=1)
        train.append(Task(shuffled[:, :first]))
        test.append(Task(shuffled[:, first:]))
        new.append(Task(x[:, settings.drawers :]))
    return Draw(tuple(train), tuple(test), tuple(new))


def drawings(
    data: datasets.Dataset, alphabet: str
) -> Float[np.ndarray, "characters drawings pixels"]:
    """All characters of an alphabet, drawer by drawer."""
    classes = [c for c, name in enumerate(data.classes) if name.rpartition(" ")[0] == alphabet]
    rows = [np.flatnonzero(data.y == c) for c in classes]
    drawer = data.groups["drawer"]
    return np.stack([data.x[r[np.argsort(drawer[r])]] for r in rows]) / data.x.max()


class Whole(eqx.Module):
    """All training drawings at every step."""

    tasks: Tasks

    def __call__(self, t: Int[Array, ""]) -> Tasks:
        del t
        return self.tasks


def matrices(tasks: int, correlations: Sequence[float]) -> Matrices:
    """For each layer (1 - c) I + c / tasks: 0 for separate networks, 1 for one that all share."""
    same = jnp.full((tasks, tasks), 1 / tasks)
    return [(1 - c) * jnp.eye(tasks) + c * same for c in correlations]


def weights(transforms: Matrices, z: Layers) -> Layers:
    """w = T z, layer by layer; each array has the tasks first."""
    mix = lambda transform: lambda part: jnp.tensordot(transform, part, 1)
    return [jax.tree.map(mix(t), layer) for t, layer in zip(transforms, z, strict=True)]


def losses(networks: Layers, tasks: Tasks) -> Float[Array, " tasks"]:
    """The mean negative log-likelihood of each task by its network, in nats."""
    # One product for each task: batched ones would need all alphabets padded to the largest.
    own = lambda i: jax.tree.map(lambda part: part[i], networks)
    return jnp.stack([nll(own(i), task.images()) for i, task in enumerate(tasks)])


def training(settings: Settings, tasks: Tasks) -> hg.Training:
    """Trains z on these drawings: the loss is the tasks' sum, and the penalty."""

    def loss(z, transforms, batch):
        squares = sum(jnp.sum(part**2) for part in jax.tree.leaves(z))
        return losses(weights(transforms, z), batch).sum() + np.exp(settings.log_l2) * squares

    momentum = hg.Momentum(settings.rate, settings.decay)
    return hg.Training(loss, optimizer=momentum, batches=Whole(tasks), steps=settings.steps)


def initial(settings: Settings, pixels: int, key: PRNGKeyArray) -> Layers:
    """Random z."""
    sizes = (pixels, *settings.hidden, settings.outputs)
    scales = [jnp.array(settings.log_scale)] * (2 * settings.layers)
    one = lambda key: gaussian(key, sizes, scales)
    return jax.vmap(one)(jax.random.split(key, settings.tasks))


class Sharing(eqx.Module):
    """The mean validation loss of the tasks as a function of the matrices; the key says which
    training drawings are held back and where z begins, anew at each outer step."""

    train: Tasks
    settings: Settings = eqx.field(static=True)

    def __call__(self, transforms: Matrices, key: PRNGKeyArray) -> Float[Array, ""]:
        def divided(key):
            keys = jax.random.split(key, len(self.train))
            pairs = [
                task.divide(k, self.settings.valid)
                for task, k in zip(self.train, keys, strict=True)
            ]
            return tuple(zip(*pairs, strict=True))

        pixels = self.train[0].x.shape[-1]
        objective = hg.Objective(
            lambda key: training(self.settings, divided(key)[0]),
            init=lambda _, key: initial(self.settings, pixels, key),
            score=lambda z, transforms, key: losses(weights(transforms, z), divided(key)[1]).mean(),
        )
        return objective(transforms, key, adjoint=hg.Reversible())


def learn(
    settings: Settings, drawn: Draw, seed: int, folder: Any, step: Callable[..., None]
) -> dict[str, Any]:
    """Tunes the matrices by gradient descent."""
    begun = time.monotonic()
    result = runner.tune(
        Sharing(drawn.train, settings),
        matrices(settings.tasks, [settings.correlation] * settings.layers),
        optax.sgd(settings.rate_outer),
        steps=settings.steps_outer,
        key=seed,
        average=settings.average,
        checkpoint=folder,
        on_step=step,
    )
    return {
        "transforms": [np.asarray(t, float).tolist() for t in result.hyper],
        "valid": [float(record.value) for record in result.history],
        "how": result.message,
        "minutes": (time.monotonic() - begun) / 60,
    }


@programs.compiled
def trained(settings: Settings, drawn: Draw, transforms: Matrices, key: PRNGKeyArray) -> Layers:
    """The networks after training on all training drawings."""
    z = initial(settings, drawn.train[0].x.shape[-1], key)
    return weights(transforms, training(settings, drawn.train)(z, transforms).params)


def judge(settings: Settings, drawn: Draw, transforms: Matrices, seed: int) -> dict[str, Any]:
    """Mean losses of networks trained from the same z for all ways."""
    begun = time.monotonic()
    networks = trained(settings, drawn, transforms, jax.random.key(seed))
    mean = lambda tasks: float(losses(networks, tasks).mean())
    found = {"train": mean(drawn.train), "test": mean(drawn.test), "new": mean(drawn.new)}
    return found | {"minutes": (time.monotonic() - begun) / 60}


def one_seed(settings: Settings, seed: int, kept: Pieces, line: Line) -> dict[str, Any]:
    """One division of the drawings: tuned, and all ways trained and tested."""
    drawn, seen = draw(settings, seed), 0

    def step(record, hyper):
        nonlocal seen
        del record, hyper
        seen += 1
        line.done(1)

    separate = [0.0] * settings.layers
    ways = {
        report.SEPARATE: matrices(settings.tasks, separate),
        report.TIED: matrices(settings.tasks, [1.0, *separate[1:]]),
        report.START: matrices(settings.tasks, [settings.correlation] * settings.layers),
    }
    line.stage(f"seed {seed}: tuning {settings.layers} matrices")
    folder = kept.folder(f"seed-{seed}") / "tuning"
    learned = kept(f"seed-{seed}/learned", lambda: learn(settings, drawn, seed, folder, step))
    line.done(settings.steps_outer + HELD_OUT - seen)  # done before an interruption
    ways[report.LEARNED] = [jnp.asarray(t, jnp.float32) for t in learned["transforms"]]
    found = {}
    for name, transforms in ways.items():
        line.stage(f"seed {seed}: {name}")
        compute = lambda transforms=transforms: judge(settings, drawn, transforms, seed)
        found[name] = kept(f"seed-{seed}/way-{name.replace(' ', '-')}", compute)
        line.done(1)
    return {"seed": seed, "learned": learned, "ways": found}


def run(settings: Settings, kept: Pieces, line: Line) -> Results:
    """All seeds."""
    data = datasets.load(settings.data)
    characters = [len(drawings(data, alphabet)) for alphabet in settings.alphabets]
    runs = [one_seed(settings, seed, kept, line) for seed in settings.each_seed()]
    sizes = (data.x.shape[1], *settings.hidden, settings.outputs)
    count = sum((n + 1) * m for n, m in itertools.pairwise(sizes))
    return {"characters": characters, "weights": count, "runs": runs}


def total(settings: Settings) -> int:
    """Trainings, differentiated or not."""
    return settings.seeds * (settings.steps_outer + HELD_OUT + 4)


DEFAULT = Settings(
    data="omniglot",
    alphabets=(
        "Aurek-Besh",
        "Blackfoot_(Canadian_Aboriginal_Syllabics)",
        "Hebrew",
        "N_Ko",
        "Ojibwe_(Canadian_Aboriginal_Syllabics)",
    ),
    drawers=15,
    test=3,
    valid=2,
    hidden=(400, 200),
    outputs=55,
    steps=50,
    rate=1.0,
    decay=0.9,
    log_l2=-4.0,
    log_scale=-2.0,
    correlation=0.5,
    rate_outer=0.2,
    steps_outer=20,
    average=0.25,
    seeds=3,
)

FULL = replace(DEFAULT, seeds=10)

SMALL = replace(
    DEFAULT,
    alphabets=("low", "high"),
    drawers=12,
    test=4,
    hidden=(8,),
    outputs=6,
    steps=15,
    steps_outer=3,
    average=0.5,
    seeds=2,
)

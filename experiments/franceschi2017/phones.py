"""Rates tuned in real time (Franceschi et al. 2017, section 5.3): which phone is a frame of?

A network with two heads tells five phones apart, and says beside that how the frame's smoothed
spectrum looks. Rate, momentum decay and the weight ρ of the second task are tuned while the one
training run goes on, from a sensible start and from zeros; beside that, ones that are kept, and a
random search that is given the same time. All parts of the data have speakers of their own.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree
from scipy.fft import dct

import hindgrad as hg
from experiments.franceschi2017 import phones_report as report
from experiments.models import affine, cross_entropy, dense
from experiments.runner import BySeed, Kept, Results, finite
from hindgrad import programs
from hindgrad.apps import datasets
from hindgrad.batches import Batch
from hindgrad.progress import Bar as Line

ABOUT = (
    "Rate, momentum and a task's weight tuned in real time. Franceschi et al. 2017, "
    "*Forward and reverse gradient-based hyperparameter optimization*, section 5.3."
)

LARGEST_RATE, LARGEST_DECAY = 1.0, 0.99
SMALLEST_RATE, LARGEST_RHO = 0.003, 2.0
"""Of the random search: rates log-uniform, decays and ρ uniform from 0."""

BOUNDS = hg.constraints.Box(rate=(0, LARGEST_RATE), decay=(0, LARGEST_DECAY), rho=(0, None))
"""In real time. One object for all seeds, so that they share one compiled program."""

NOISE = 1.0
"""Added to the inputs of each batch, in units of their standard deviation."""
L2 = 0.003
"""The penalty on the squares of all parameters."""
ROWS_OF_A_SPEAKER = 20
"""Where a data set has no speakers, so many rows in a row are taken for one."""


@dataclass(frozen=True)
class Settings(BySeed):
    """Sizes, and where the hyperparameters begin."""

    data: str
    valid: float
    """The share of the training speakers that are for validation."""
    coefficients: int
    """How many numbers tell the smoothed spectrum: the target of the second task."""
    width: int
    batch: int
    steps: int
    every: int
    """How many steps between two changes of the hyperparameters."""
    rate_outer: float
    rate: float
    decay: float
    rho: float

    def start(self) -> dict[str, float]:
        return {"rate": self.rate, "decay": self.decay, "rho": self.rho}


class Frames(eqx.Module):
    """Frames of speech."""

    x: Float[Array, "rows values"]
    """Log-periodograms, each value standardised over the training rows."""
    y: Int[Array, " rows"]
    """The phones."""
    z: Float[Array, "rows coefficients"]
    """The leading cosine coefficients of x, standardised: the smoothed spectrum."""


class Draw(eqx.Module):
    """One split of the speakers."""

    train: Frames
    valid: Frames
    test: Frames
    classes: int = eqx.field(static=True)


def parts(data: datasets.Dataset, share: float, seed: int) -> list[Int[np.ndarray, " rows"]]:
    """The rows for training, validation and test. The test speakers are the official ones, or the
    last third where there are none.

    A few frames are left out, so that all seeds have as many and share one compiled program.
    """
    rows = np.arange(len(data.y))
    speaker = data.groups.get("speaker", rows // ROWS_OF_A_SPEAKER)
    names, number, counts = np.unique(speaker, return_inverse=True, return_counts=True)
    test = number >= 2 * len(names) // 3 if data.train.all() else ~data.train
    place = np.random.default_rng(seed).permutation(len(names))[number]
    order = rows[~test][np.argsort(place[~test], kind="stable")]
    cut = round(share * len(order))
    valid, rest = order[:cut], order[cut:]
    train = rest[number[rest] != number[valid[-1]]]
    return [train[: len(rest) - counts.max()], valid, rows[test]]


def draw(settings: Settings, seed: int) -> Draw:
    """Splits the speakers."""
    data = datasets.load(settings.data)
    rows = parts(data, settings.valid, seed)
    x = _standard(data.x.astype(np.float64), rows[0])
    spectrum = np.asarray(dct(x, norm="ortho"))[:, : settings.coefficients]
    z = _standard(spectrum, rows[0])

    def frames(part):
        to = lambda array, kind: jnp.asarray(array[part], kind)
        return Frames(to(x, jnp.float32), to(data.y, jnp.int32), to(z, jnp.float32))

    return Draw(frames(rows[0]), frames(rows[1]), frames(rows[2]), len(data.classes))


def _standard(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Each column with mean 0 and deviation 1 over the training rows, a constant one 0."""
    deviation = x[rows].std(axis=0)
    scale = np.where(deviation > 0, deviation, 1)
    return (x - x[rows].mean(axis=0)[None]) / scale[None]


def init(drawn: Draw, width: int, seed: int) -> PyTree:
    """Two hidden layers and two heads, which begin small."""
    sizes = {
        "first": (drawn.train.x.shape[1], width, 1.0),
        "second": (width, width, 1.0),
        "phone": (width, drawn.classes, 0.1),
        "spectrum": (width, drawn.train.z.shape[1], 0.1),
    }
    keys = jax.random.split(jax.random.key(seed), len(sizes))
    return {name: dense(key, *size) for key, (name, size) in zip(keys, sizes.items(), strict=True)}


def heads(params: PyTree, x: Float[Array, "rows values"]) -> tuple[Array, Array]:
    """Logits of the phones, and the spectrum."""
    layer = lambda name, x: affine(params[name], x)
    hidden = jnp.tanh(layer("second", jnp.tanh(layer("first", x))))
    return layer("phone", hidden), layer("spectrum", hidden)


def loss(params: PyTree, hyper: Mapping[str, Array], batch: Batch) -> Float[Array, ""]:
    """Primary loss + ρ secondary loss, on inputs with noise."""
    frames = batch.data
    assert batch.key is not None
    noise = NOISE * jax.random.normal(batch.key, frames.x.shape)
    logits, spectrum = heads(params, frames.x + noise)
    penalty = sum(jnp.sum(w**2) for w in jax.tree.leaves(params))
    secondary = 0.5 * jnp.mean((spectrum - frames.z) ** 2)
    return cross_entropy(logits, frames.y) + hyper["rho"] * secondary + L2 * penalty


class Valid(eqx.Module):
    """The primary loss on the validation speakers. A module and no closure, so that all seeds
    share one compiled program."""

    frames: Frames

    def __call__(self, params, hyper, t) -> Float[Array, ""]:
        del hyper, t
        return cross_entropy(heads(params, self.frames.x)[0], self.frames.y)


def _rate(hyper, t):
    del t
    return hyper["rate"]


def _decay(hyper, t):
    del t
    return hyper["decay"]


def training(settings: Settings, drawn: Draw, seed: int) -> hg.Training:
    batches = hg.minibatches(drawn.train, size=settings.batch, key=seed)
    optimizer = hg.Momentum(_rate, _decay)
    return hg.Training(loss, optimizer=optimizer, batches=batches, steps=settings.steps)


@programs.compiled
def plain(train: hg.Training, params: PyTree, hyper: PyTree, valid: Valid, every: int):
    """A run with fixed hyperparameters: the parameters, and the validation loss every so often."""
    optimizer = train.optimizer
    memory = optimizer.init(params, optimizer.coefficients(hyper, jnp.int32(0)))

    def window(state, t):
        run = train(state[0], hyper, state=state[1], start=t, steps=every)
        return (run.params, run.state), valid(run.params, hyper, t)

    starts = jnp.arange(0, train.steps, every, dtype=jnp.int32)
    (params, _), values = jax.lax.scan(window, (params, memory), starts)
    return params, values


Timed = Callable[[str, Callable[[], Any]], tuple[Any, float]]
"""`timed(name, run)` gives the result of `run()` and its seconds."""


class Clock:
    """Seconds that something takes. The first time something of a name is timed it runs twice,
    so that compilation stays out."""

    def __init__(self):
        self._warm = set()

    def __call__(self, name: str, run: Callable[[], Any]) -> tuple[Any, float]:
        if name not in self._warm:
            jax.block_until_ready(run())
            self._warm.add(name)
        begin = time.perf_counter()
        result = jax.block_until_ready(run())
        return result, time.perf_counter() - begin


class Arms:
    """The ways to come by the hyperparameters, on one split."""

    def __init__(self, settings: Settings, seed: int, clock: Timed):
        self.settings, self.seed, self.clock = settings, seed, clock
        self.drawn = draw(settings, seed)
        self.params = init(self.drawn, settings.width, seed)
        self.training = training(settings, self.drawn, seed)
        self.valid = Valid(self.drawn.valid)

    def train(self, hyper: Mapping[str, float]) -> tuple[tuple[PyTree, Array], float]:
        """One run with fixed hyperparameters, and its seconds."""
        tuned = {name: jnp.float32(value) for name, value in hyper.items()}
        run = lambda: plain(self.training, self.params, tuned, self.valid, self.settings.every)
        return self.clock("plain", run)

    def fixed(self, hyper: Mapping[str, float]) -> dict[str, Any]:
        """One run with these hyperparameters throughout."""
        (params, values), seconds = self.train(hyper)
        curve = self._curve(np.asarray(values), {name: [h] for name, h in hyper.items()})
        return self._judged(params, seconds, 1, curve)

    def search(self, seconds: float) -> dict[str, Any]:
        """Random search for so many seconds: the trial that validates best."""
        rng = np.random.default_rng([self.seed, 1])
        best, lowest, spent, trials = None, np.inf, 0.0, 0
        while spent < seconds:
            hyper = {
                "rate": float(np.exp(rng.uniform(np.log(SMALLEST_RATE), np.log(LARGEST_RATE)))),
                "decay": rng.uniform(0, LARGEST_DECAY),
                "rho": rng.uniform(0, LARGEST_RHO),
            }
            (params, values), took = self.train(hyper)
            spent, trials = spent + took, trials + 1
            if best is None or values[-1] < lowest:
                curve = self._curve(np.asarray(values), {name: [h] for name, h in hyper.items()})
                best, lowest = (params, curve), np.nan_to_num(float(values[-1]), nan=np.inf)
        assert best is not None
        return self._judged(best[0], spent, trials, best[1])

    def real_time(self, hyper: Mapping[str, float], optimizer: Any) -> dict[str, Any]:
        """One run whose hyperparameters change on the way."""

        def run():
            return hg.tune_online(
                self.training,
                self.params,
                dict(hyper),
                self.valid,
                optimizer,
                every=self.settings.every,
                project=BOUNDS,
                progress=False,
            )

        result, seconds = self.clock("real time", run)
        seen = result.trajectory
        curve = self._curve(seen.values, {name: h.tolist() for name, h in seen.hyper.items()})
        curve |= {"steps": seen.steps.tolist(), "status": seen.status.tolist()}
        return self._judged(result.params, seconds, 1, curve) | {"how": result.message}

    def _curve(self, values: np.ndarray, hyper: Mapping[str, list[float]]) -> dict[str, Any]:
        steps = self.settings.every * np.arange(1, len(values) + 1)
        return {"steps": steps.tolist(), "valid": [*map(finite, values)], "hyper": dict(hyper)}

    def _judged(self, params, seconds: float, trials: int, curve: dict) -> dict[str, Any]:
        """What is kept of an arm: of its last parameters, as of all arms."""
        right = lambda f: float(jnp.mean(heads(params, f.x)[0].argmax(axis=1) == f.y))
        return {
            "valid": 100 * right(self.drawn.valid),
            "test": 100 * right(self.drawn.test),
            "valid_loss": float(self.valid(params, None, None)),
            "test_loss": float(Valid(self.drawn.test)(params, None, None)),
            "seconds": seconds,
            "trials": trials,
            "curve": curve,
        }


def one_seed(settings: Settings, arms: Arms, optimizer: Any) -> dict[str, Any]:
    """All arms on one split. The search is given as long as the run in real time took; vanilla
    leaves the second task out, as in the paper."""
    start = settings.start()
    tuned = arms.real_time(start, optimizer)
    return {
        report.FIXED: arms.fixed(start | {"rho": 0.0}),
        report.STILL: arms.fixed(start),
        report.SEARCH: arms.search(tuned["seconds"]),
        report.START: tuned,
        report.ZEROS: arms.real_time(dict.fromkeys(start, 0.0), optimizer),
    }


def run(settings: Settings, kept: Kept, line: Line) -> Results:
    """All seeds."""
    runs, clock, optimizer = [], Clock(), optax.adam(settings.rate_outer)
    for seed in settings.each_seed():
        line.stage(f"seed {seed}")

        def compute(seed=seed):
            return one_seed(settings, Arms(settings, seed, clock), optimizer)

        runs.append({"seed": seed, "arms": kept(f"seed-{seed}", compute)})
        line.done(1)
    sizes = [len(part) for part in parts(datasets.load(settings.data), settings.valid, 0)]
    return {"runs": runs, "rows": sizes}


def total(settings: Settings) -> int:
    """Seeds."""
    return settings.seeds


DEFAULT = Settings(
    data="phoneme",
    valid=0.25,
    coefficients=12,
    width=100,
    batch=100,
    steps=4000,
    every=50,
    rate_outer=0.005,
    rate=0.1,
    decay=0.9,
    rho=0.5,
    seeds=5,
)

FULL = replace(DEFAULT, steps=40_000, every=200, seeds=10)

SMALL = replace(
    DEFAULT, data="digits", coefficients=6, width=16, batch=50, steps=100, every=10, seeds=2
)

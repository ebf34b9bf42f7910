"""Optimizers written by hand that a learned one is compared with, at their best rates."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from hindgrad import trees
from hindgrad.learned import problems as learned_problems
from hindgrad.learned.curves import drawn_problems, made_losses, together
from hindgrad.learned.problems import Family
from hindgrad.progress import Bar

RATES = tuple(np.logspace(-4, 1, 51).tolist())
"""The rates that are tried unless others are given: ten for each factor of ten."""

DECAYS = (0.5, 0.8, 0.9, 0.95, 0.99)
"""The momentum decays that are tried."""

SMALL = 100
"""Problems of at most so many parameters are cheap: every rate is tried on all of them."""

FIRST = 8
"""On how many dearer problems the race begins."""

FINALISTS = 4
"""How many rates at least are tried on all problems, so that one that diverges on a rare problem
has others to take its place."""


@dataclass(frozen=True)
class Baseline:
    """An optimizer with a rate, and perhaps a decay, to be tuned.

    **Arguments:**

    - `name`: what it is called.
    - `make`: `rate -> optimizer` as optax knows them; `(rate, decay) -> optimizer` if it has
      `decays`.
    - `decays`: those that tuning tries.
    """

    name: str
    make: Callable[..., optax.GradientTransformation]
    decays: tuple[float, ...] = ()


def _sgd(rate):
    return optax.sgd(rate)


def _momentum(rate, decay=0.9):
    return optax.sgd(rate, momentum=decay)


def _nesterov(rate, decay=0.9):
    return optax.sgd(rate, momentum=decay, nesterov=True)


def _rmsprop(rate):
    return optax.rmsprop(rate)


def _adam(rate):
    return optax.adam(rate)


BASELINES = (
    Baseline("SGD", _sgd),
    Baseline("momentum", _momentum, DECAYS),
    Baseline("Nesterov", _nesterov, DECAYS),
    Baseline("RMSprop", _rmsprop),
    Baseline("Adam", _adam),
)
"""The optimizers of Andrychowicz et al. 2016, and momentum."""


@dataclass(frozen=True)
class Tuned:
    """A baseline at the rate, and the decay if it has one, that serve best at one step."""

    baseline: Baseline
    rate: float
    decay: float | None
    step: int
    value: float
    """The mean loss at that step (or what else `choose` says of the losses); inf if no rate that
    was tried keeps all problems from diverging."""
    at_edge: bool
    """Whether the rate is the smallest or the largest that was tried: a better one may lie
    beyond."""
    trials: "Trials"

    @property
    def name(self) -> str:
        return self.baseline.name

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """The optimizer at that rate and decay."""
        return self.baseline.make(*(h for h in (self.rate, self.decay) if h is not None))

    @property
    def hyper(self) -> list[Float[Array, ""]]:
        """The rate, and the decay if there is one, as arrays."""
        return [jnp.float32(h) for h in (self.rate, self.decay) if h is not None]

    @property
    def message(self) -> str:
        """What was chosen, in words."""
        decay = "" if self.decay is None else f" and decay {self.decay:g}"
        edge = ", at the edge of the rates tried: a better one may lie beyond" * self.at_edge
        return f"{self.name}: rate {self.rate:.3g}{decay}{edge}."

    def at(self, step: int) -> "Tuned":
        """The best for another of the steps that were looked at."""
        return self.trials.best(self.baseline, step)


@dataclass(frozen=True)
class Trials:
    """What a tuning tried."""

    hyper: Float[np.ndarray, "candidates hyper"]
    """Rates, and decays if there are any."""
    at: tuple[int, ...]
    """The steps looked at."""
    values: Float[np.ndarray, "candidates at"]
    """What `choose` says of the losses at these steps."""
    seen: tuple[int, ...]
    """On how many problems each candidate was tried; the best is one of those with the most."""

    def best(self, baseline: Baseline, step: int) -> Tuned:
        """The best candidate at a step.

        Raises `ValueError` if the step is none of those looked at.
        """
        if step not in self.at:
            raise ValueError(
                f"at({step}): the tuning looked at the steps {', '.join(map(str, self.at))}. Give "
                "one of them, or tune with other at=."
            )
        values = self.values[:, self.at.index(step)]
        finalist = np.array(self.seen) == max(self.seen)
        i = int(np.argmin(np.where(finalist, values, np.inf)))
        if not finalist[i]:
            i = int(np.argmax(finalist))
        rate, *decay = map(float, self.hyper[i])
        rates = self.hyper[:, 0]
        at_edge = np.ptp(rates) > 0 and rate in (rates.min(), rates.max())
        return Tuned(
            baseline,
            rate,
            decay[0] if decay else None,
            step,
            float(values[i]),
            bool(at_edge),
            self,
        )


def tune_rate(
    baseline: Baseline,
    family: Family,
    key: PRNGKeyArray,
    *,
    steps: int,
    problems: int = 1024,
    rates: Sequence[float] = RATES,
    decays: Sequence[float] | None = None,
    at: Sequence[int] | None = None,
    choose: Callable[..., np.ndarray] = np.mean,
    first: int | None = None,
    progress: bool | None = False,
) -> Tuned:
    """The rate, and the decay, with which a baseline's mean loss after `steps` steps is lowest.

        adam = tune_rate(BASELINES[-1], Quadratics(), jax.random.key(100), steps=100)
        optax_curves(adam.optimizer, Quadratics(), jax.random.key(0), count=128, steps=100)

    All candidates are tried on the same problems. Where problems are dear it is a race: all are
    tried on a few, the better half on twice as many, and so on, and at least four on all
    (successive halving: Jamieson and Talwalkar 2016). A problem that diverges counts as infinite.

    **Arguments:**

    - `baseline`: one of `BASELINES`.
    - `family`: the problems.
    - `key`: of the problems; take another for those that optimizers are compared on.
    - `steps`: how long a problem is trained.
    - `problems`: how many; on 128 quadratics, rates are chosen that diverge on others.
    - `rates`, `decays`: what is tried, every pair; the baseline's own decays unless given.
    - `at`: steps of which the losses are kept, for `Tuned.at`; a candidate that is good at one of
      them stays in the race.
    - `choose`: which summary of the problems' losses is to be lowest: `np.mean`, `np.median`.
    - `first`: on how many problems the race begins; on all of them unless given, or on 8 where
      problems have more than 100 parameters.
    - `progress`: whether to show a progress line.

    Raises `ValueError` if a rate or decay is out of its range, or a step beyond the last.
    """
    decays = baseline.decays if decays is None else tuple(decays)
    at = tuple(sorted({*(at or ()), steps}))
    _check(baseline, rates, decays, at, steps)
    pairs = [(rate, decay) for rate in rates for decay in decays]
    hyper = np.array(pairs if decays else [(rate,) for rate in rates])
    if first is None:
        size = trees.size(learned_problems.draw(family, key, 1).params)
        first = problems if size <= SMALL else FIRST
    first = max(1, min(first, problems))

    blocks = -(-problems // first)
    tried: list[list[np.ndarray]] = [[] for _ in hyper]

    def try_on(block: int, candidates: list[int]) -> None:
        drawn = drawn_problems(family, key, jnp.int32(block * first), count=first)
        for candidate in candidates:
            made = [jnp.float32(h) for h in hyper[candidate]]
            values = np.asarray(made_losses(baseline.make, made, drawn, at=at), np.float64)
            values = values[: problems - block * first]
            tried[candidate].append(np.where(np.isfinite(values), values, np.inf))
            bar.show(sum(map(len, tried)))

    def race(racing: list[int]) -> None:
        seen = 0
        while seen < blocks:
            racing = _better(racing, _values(tried, choose)) if seen else racing
            seen = min(max(1, 2 * seen), blocks)
            for block in range(seen):
                if late := [c for c in racing if len(tried[c]) == block]:
                    try_on(block, late)

    with Bar(_work(len(hyper), blocks), baseline.name, shown=progress) as bar:
        race(list(range(len(hyper))))
        # Those that were fast on the first problems may all diverge on a rare one.
        while not _finite(tried, blocks) and (rest := _unfinished(tried, blocks)):
            race(rest)
    counts = tuple(sum(map(len, losses)) for losses in tried)
    return Trials(hyper, at, _values(tried, choose), counts).best(baseline, steps)


def tuned_curves(
    tuned: Sequence[Tuned], family: Family, key: PRNGKeyArray, *, count: int, steps: int
) -> list[Float[np.ndarray, "problems {steps}+1"]]:
    """The losses at θ_0 … θ_steps of the first `count` problems of a key, with each of these: what
    `optax_curves` gives, but the problems are drawn once for all, and what differs in its rate
    only is compiled once."""
    at_once, at = together(family, key, count), tuple(range(steps + 1))
    blocks = []
    for first in range(0, count, at_once):
        drawn = drawn_problems(family, key, jnp.int32(first), count=at_once)
        losses = lambda t, drawn=drawn: made_losses(t.baseline.make, t.hyper, drawn, at=at)
        blocks.append([np.asarray(losses(t)) for t in tuned])
    return [np.concatenate(found)[:count] for found in zip(*blocks, strict=True)]


def _finite(tried, blocks: int) -> bool:
    """Whether some candidate that was tried on all problems diverges on none."""
    return any(len(t) == blocks and np.isfinite(np.concatenate(t)).all() for t in tried)


def _unfinished(tried, blocks: int) -> list[int]:
    return [i for i, losses in enumerate(tried) if len(losses) < blocks]


def _values(tried, choose) -> np.ndarray:
    return np.stack([choose(np.concatenate(blocks), axis=0) for blocks in tried])


def _better(racing: list[int], values: Float[np.ndarray, "candidates at"]) -> list[int]:
    """The better half, by each one's best rank among the steps."""
    order = np.argsort(np.argsort(values[racing], axis=0, kind="stable"), axis=0)
    ranked = np.argsort(order.min(axis=1), kind="stable")
    return sorted(racing[i] for i in ranked[: max(FINALISTS, len(racing) // 2)])


def _work(candidates: int, blocks: int) -> int:
    """How many blocks of problems are trained in all."""
    work, seen = 0, 0
    while seen < blocks:
        until = min(max(1, 2 * seen), blocks)
        work, seen = work + candidates * (until - seen), until
        candidates = min(candidates, max(FINALISTS, candidates // 2))
    return work


def _check(baseline, rates, decays, at, steps) -> None:
    if not len(rates) or not all(0 < rate < np.inf for rate in rates):
        raise ValueError(f"tune_rate(rates={rates!r}): positive numbers are needed.")
    if not all(0 <= decay < 1 for decay in decays):
        raise ValueError(f"tune_rate(decays={decays!r}): numbers from 0 to below 1 are needed.")
    if decays and not baseline.decays:
        raise ValueError(f"tune_rate(decays={decays!r}): {baseline.name} has no decay to tune.")
    if min(at) < 0 or max(at) > steps:
        raise ValueError(f"tune_rate(at={at!r}): steps from 0 to steps={steps} are needed.")

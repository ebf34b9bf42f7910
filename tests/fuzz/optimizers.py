"""Random optimizers: the library's own as their settings, and those of optax."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

import hindgrad as hg


@dataclass
class Momentum:
    """The settings of `hg.Momentum`."""

    convention: str
    rate: Any
    decay: Any
    kind: str | None
    """Of weight decay."""
    strength: Any

    def library(self, opened):
        return hg.Momentum(
            opened(self.rate),
            opened(self.decay),
            weight_decay=_weight_decay(self, opened),
            convention=getattr(hg, self.convention)(),
        )

    @property
    def reversible(self):
        return self.convention != "Nesterov"


@dataclass
class Adam:
    """The settings of `hg.Adam`."""

    rate: Any
    b1: Any
    b2: Any
    eps: float
    kind: str | None
    strength: Any

    def library(self, opened):
        moments = opened(self.b1), opened(self.b2)
        weight_decay = _weight_decay(self, opened)
        return hg.Adam(opened(self.rate), *moments, eps=self.eps, weight_decay=weight_decay)

    @property
    def reversible(self):
        return True


@dataclass
class Optax:
    """A function of the hyperparameters that makes an optax transformation."""

    name: str
    make: Callable[[Any], optax.GradientTransformation]

    def library(self, opened):
        return hg.from_optax(opened(self.make))

    @property
    def reversible(self):
        return False


def _weight_decay(settings, opened):
    if settings.kind is None:
        return None
    return getattr(hg, settings.kind)(opened(settings.strength))


def draw(rng, hypers):
    """An optimizer; what it takes from the hyperparameters is added to `hypers`."""
    which = rng.choice(["momentum", "adam", "optax"], p=[0.45, 0.2, 0.35])
    if which == "optax":
        return _optax(rng, hypers)
    if which == "adam":
        return Adam(
            rate=_coefficient(rng, hypers, "rate", 0.02, 0.1),
            b1=_coefficient(rng, hypers, "b1", 0.4, 0.95),
            b2=_coefficient(rng, hypers, "b2", 0.8, 0.99),
            eps=float(rng.choice([1e-8, 1e-4, 1e-2])),
            **_drawn_decay(rng, hypers, ["Coupled", "Decoupled"]),
        )
    convention = str(rng.choice(["Damped", "PositionFirst", "HeavyBall", "Nesterov"]))
    kinds = ["Coupled"] if convention == "PositionFirst" else ["Coupled", "Decoupled"]
    high = 0.4 if convention == "Damped" else 0.1
    return Momentum(
        convention=convention,
        rate=_coefficient(rng, hypers, "rate", high / 4, high),
        decay=_coefficient(rng, hypers, "decay", 0.2, 0.95),
        **_drawn_decay(rng, hypers, kinds),
    )


def _drawn_decay(rng, hypers, kinds):
    if rng.random() < 0.5:
        return {"kind": None, "strength": 0.0}
    return {
        "kind": str(rng.choice(kinds)),
        "strength": _coefficient(rng, hypers, "strength", 0.01, 0.3),
    }


def _coefficient(rng, hypers, name, low, high):
    """A coefficient in [low, high]: a number, a tree of numbers, or a function `(hyper, t)`."""
    draw = lambda *shape: rng.uniform(low, high, shape)
    kind = rng.choice(["number", "tree", "hyper", "schedule", "fading", "leaves", "switching"])
    masked = name in ("rate", "strength")
    if kind == "number":
        return float(draw())
    if kind == "tree":
        return hypers.tree(lambda i: 0.0 if masked and rng.random() < 0.3 else float(draw()))
    if kind == "hyper":
        hypers.add(name, draw())
        return lambda hyper, t: hyper[name]
    if kind == "schedule":
        hypers.add(name, draw(hypers.steps))
        return lambda hyper, t: hyper[name][t]
    if kind == "fading":
        hypers.add(name, draw())
        hypers.add("fading", rng.uniform(0.01, 0.1))
        return lambda hyper, t: hyper[name] * jnp.exp(-hyper["fading"] * t)
    if kind == "leaves":
        masks = [float(not masked or rng.random() < 0.7) for _ in range(hypers.leaves)]
        hypers.add(name, draw(hypers.leaves))
        return lambda hyper, t: hypers.tree(lambda i: hyper[name][i] * masks[i])
    hypers.add(name, draw(2))
    middle = int(rng.integers(hypers.steps + 1))
    return lambda hyper, t: jnp.where(t < middle, hyper[name][0], hyper[name][1])


def _is_matrix(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


def _frozen(params):
    return jax.tree.map(lambda p: "frozen" if p.ndim == 0 else "free", params)


OPTAX = {
    "sgd": lambda h: optax.sgd(h["rate"]),
    "momentum": lambda h: optax.sgd(h["rate"], momentum=h["decay"]),
    "nesterov": lambda h: optax.sgd(h["rate"], momentum=h["decay"], nesterov=True),
    "adam": lambda h: optax.adam(h["rate"], b1=h["decay"], eps_root=1e-8),
    "adamw": lambda h: optax.adamw(h["rate"], weight_decay=h["decay"], eps_root=1e-8),
    "masked adamw": lambda h: optax.adamw(
        h["rate"], weight_decay=h["decay"], eps_root=1e-6, mask=_is_matrix
    ),
    "nadam": lambda h: optax.nadam(h["rate"], b1=h["decay"], eps_root=1e-8),
    "amsgrad": lambda h: optax.amsgrad(h["rate"], b1=h["decay"], eps_root=1e-6),
    "adabelief": lambda h: optax.adabelief(h["rate"], b1=h["decay"], eps_root=1e-6),
    "rmsprop": lambda h: optax.rmsprop(h["rate"], decay=h["decay"], eps=1e-6),
    "adagrad": lambda h: optax.adagrad(h["rate"], eps=1e-3),
    "lion": lambda h: optax.lion(h["rate"] / 4, weight_decay=h["decay"]),
    "clipped": lambda h: optax.chain(
        optax.clip_by_global_norm(h["decay"]), optax.sgd(h["rate"], momentum=0.9)
    ),
    "clipped elementwise": lambda h: optax.chain(optax.clip(0.1), optax.sgd(h["rate"])),
    "decayed": lambda h: optax.chain(
        optax.add_decayed_weights(h["decay"]), optax.trace(0.8), optax.scale(-h["rate"])
    ),
    "masked": lambda h: optax.chain(
        optax.masked(optax.trace(h["decay"]), _is_matrix), optax.scale(-h["rate"])
    ),
    "frozen": lambda h: optax.partition(
        {"frozen": optax.set_to_zero(), "free": optax.sgd(h["rate"], momentum=h["decay"])}, _frozen
    ),
    "schedule": lambda h: optax.sgd(lambda count: h["rate"] / (1 + h["decay"] * count)),
    "cosine": lambda h: optax.chain(
        optax.scale_by_adam(b1=h["decay"], eps_root=1e-6),
        optax.scale_by_schedule(optax.cosine_decay_schedule(1.0, 20, 0.1)),
        optax.scale(-h["rate"]),
    ),
    "injected": lambda h: optax.inject_hyperparams(optax.sgd)(h["rate"], momentum=h["decay"]),
    "averaged": lambda h: optax.chain(optax.ema(h["decay"]), optax.sgd(h["rate"])),
    "accumulated": lambda h: optax.chain(
        optax.apply_every(2), optax.sgd(h["rate"], momentum=h["decay"])
    ),
}


def _optax(rng, hypers):
    name = str(rng.choice(list(OPTAX)))
    hypers.add("rate", rng.uniform(0.02, 0.1))
    hypers.add("decay", rng.uniform(0.3, 0.9))
    return Optax(name, OPTAX[name])

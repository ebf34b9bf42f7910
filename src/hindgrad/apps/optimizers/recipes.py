"""How the shipped optimizers are learned: everything that `fit` needs, in one place."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from hindgrad.apps.images import examples, images
from hindgrad.learned.base import LearnedOptimizer
from hindgrad.learned.classifiers import MLPs, small_normal
from hindgrad.learned.convnets import ConvNets
from hindgrad.learned.families import Quadratics
from hindgrad.learned.fit import FitResult, fit
from hindgrad.learned.lstm import CoordinateLSTM
from hindgrad.learned.partitioned import Partitioned
from hindgrad.learned.problems import Family
from hindgrad.learned.relative import RelativeLSTM
from hindgrad.learned.spectral import SpectralLSTM


@dataclass(frozen=True)
class Recipe:
    """What is learned, on what, and how: `recipe.fit()` gives the weights."""

    optimizer: LearnedOptimizer
    family: Callable[[], Family]
    """Makes the problems; only then are data read."""
    iterations: int
    """Unless another number is asked for."""
    outer: Callable[[int], optax.GradientTransformation] | None = None
    """The optimizer of the weights, for a number of iterations; `fit`'s own unless given."""
    horizons: tuple[tuple[float, int], ...] = ()
    """The curriculum of `fit`, but with the first iterations as fractions of all."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of `fit`, such as `steps` and `batch`."""

    def fit(
        self, *, iterations: int | None = None, key: PRNGKeyArray | int = 0, **others: Any
    ) -> FitResult:
        """Learns the optimizer. `others` are arguments of `fit`, in place of the recipe's."""
        count = self.iterations if iterations is None else iterations
        horizons = {round(start * count): steps for start, steps in self.horizons}
        arguments = {"outer": self.outer and self.outer(count), "horizons": tuple(horizons.items())}
        arguments |= {"iterations": count, "key": key} | dict(self.settings) | others
        return fit(self.optimizer, arguments.pop("family", None) or self.family(), **arguments)


def falling_adam(iterations: int, rate: float = 3e-3) -> optax.GradientTransformation:
    """Adam whose rate falls along a cosine to a hundredth, after clipping the gradient's norm
    to 1."""
    schedule = optax.cosine_decay_schedule(rate, iterations, alpha=0.01)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def also_small(losses: Float[Array, "..."]) -> Float[Array, "..."]:
    """Losses, and a little of their logarithms, by which those of problems that are nearly solved
    count as well: in the mean alone, a few hard problems are all there is."""
    return losses + 0.03 * jnp.log(losses + 1e-6)


PAPERS_QUADRATIC = Recipe(
    optimizer=CoordinateLSTM(preprocess=None),
    family=Quadratics,
    iterations=10_000,
    settings={"steps": 100, "unroll": 20, "batch": 128},
)
"""The LSTM of Andrychowicz et al. 2016, section 3.1, on the gradient as it is."""

QUADRATIC = Recipe(
    optimizer=RelativeLSTM(),
    family=Quadratics,
    iterations=10_000,
    outer=falling_adam,
    settings={"steps": 100, "unroll": 20, "batch": 256, "measure": also_small},
)
"""A learned momentum, on the same problems."""


def _papers_networks() -> Family:
    return MLPs(examples("mnist"), initial=small_normal)


MLP = Recipe(
    optimizer=SpectralLSTM(),
    family=_papers_networks,
    iterations=300,
    outer=falling_adam,
    settings={
        "steps": 200,
        "unroll": 100,
        "batch": 2,
        "measure": jnp.log,
        "evaluations": 8,
        "every": 30,
    },
)
"""On the perceptrons of Andrychowicz et al. 2016, section 3.2: MNIST, 20 sigmoid units. Windows
must be long: with 20 steps, sizes of steps are learned that are too large."""


def _small_images() -> Family:
    return ConvNets(images("cifar10", size=8)[0], (8, 8, 8), kernel=3, batch=64)


CONV = Recipe(
    optimizer=Partitioned(dict.fromkeys(("conv", "dense", "bias"), CoordinateLSTM(scale=0.03))),
    family=_small_images,
    iterations=1_000,
    outer=falling_adam,
    settings={"steps": 100, "unroll": 20, "batch": 1, "evaluations": 8, "every": 100},
)
"""One LSTM for each kind of parameter, as in Andrychowicz et al. 2016, section 3.3, on CIFAR-10 in
8 × 8 pixels."""

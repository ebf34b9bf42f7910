"""A learned optimizer whose steps move all singular directions of a matrix alike."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hindgrad.learned.arrays import TINY, mean, quiet_weights, size, with_clock
from hindgrad.learned.base import LearnedOptimizer
from hindgrad.learned.networks import LSTM

LONG = 0.999
"""The decay of the mean square that arrays without singular values are measured by."""

QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration that brings singular values near 1 (Jordan et al. 2024)."""


class SpectralLSTM(LearnedOptimizer):
    """Steps along averages of the gradient whose singular values are made equal, as in Muon
    (Jordan et al. 2024), and whose sizes an LSTM chooses anew for every array and step.

    The LSTM has one state for each array (as in Wichrowska et al. 2017). It sees how the gradient
    compares with its averages over several spans, by cosines and ratios of sizes, whether the
    array is a matrix, and the step. Arrays of three axes and more are matrices of (all but the
    last) × last; the averages of vectors and scalars are divided by the root of their mean square
    so far. The size of the gradient does not matter, and the size of a matrix little.

    **Arguments:**

    - `hidden`: the layers' sizes.
    - `decays`: of the averages.
    - `rate`: the sizes of steps before learning: singular values of a matrix's step along each of
      the averages, root mean squares of a vector's.
    - `second_derivatives`: see `LearnedOptimizer`. Without them it learns steps that are too large:
      it does not know that later gradients undo noise.
    """

    hidden: tuple[int, ...] = (20,)
    decays: tuple[float, ...] = (0.3, 0.8, 0.95)
    rate: float = 0.1
    second_derivatives: bool = True

    @property
    def network(self) -> LSTM:
        """Goes over arrays, in place of coordinates."""
        return LSTM(self.hidden)

    def weights(self, key):
        averages = len(self.decays)
        return quiet_weights(self.network, key, 2 * averages + 2, averages)

    def begin(self, params):
        leaves = jax.tree.leaves(params)
        zeros = lambda p: jnp.zeros((len(p), len(self.decays), *p.shape[1:]))
        return {
            "averages": list(map(zeros, leaves)),
            "squares": [jnp.zeros(len(p)) for p in leaves],
            "count": jnp.zeros(()),
            "state": self.network.begin(sum(len(p) for p in leaves)),
        }

    def step(self, weights, grads, memory):
        leaves, structure = jax.tree.flatten(grads)
        if not leaves:
            return grads, memory
        count = memory["count"] + 1
        averages, squares = memory["averages"], memory["squares"]
        if not self.second_derivatives:  # averages of constants are constants
            averages, squares = jax.lax.stop_gradient((averages, squares))
        look = jax.vmap(self._look, in_axes=(0, 0, 0, None))
        arrays = zip(leaves, averages, squares, strict=True)
        looks = [look(*array, count) for array in arrays]
        averages, squares, directions, seen = map(list, zip(*looks, strict=True))
        features = with_clock(jnp.concatenate(seen).T, count)
        outputs, state = self.network(weights, features, memory["state"])
        ends = np.cumsum([len(g) for g in leaves])[:-1]
        sizes = jnp.split(self.rate * jnp.exp(outputs), ends, axis=1)
        steps = [
            -jnp.einsum("kp,pk...->p...", size, direction)
            for size, direction in zip(sizes, directions, strict=True)
        ]
        after = {"averages": averages, "squares": squares, "count": count, "state": state}
        return jax.tree.unflatten(structure, steps), after

    def _look(
        self,
        grad: Float[Array, "..."],
        averages: Float[Array, "decays ..."],
        square: Float[Array, ""],
        count: Array,
    ) -> tuple[Array, Array, Array, Array]:
        """One array's averages with the gradient in them, the mean square, the directions, and what
        the network sees."""
        decays = jnp.asarray(self.decays).reshape(-1, *(1,) * grad.ndim)
        grad = grad.astype(averages.dtype)
        averages = decays * averages + (1 - decays) * grad[None]
        square = LONG * square + (1 - LONG) * mean(grad**2)
        so_far = jnp.sqrt(square / (1 - LONG**count) + TINY)
        ahead = decays * averages + (1 - decays) * grad[None]  # Nesterov's look ahead
        matrix = grad.ndim >= 2 and grad.size > 0
        directions = jax.vmap(_equal)(ahead) if matrix else ahead / so_far
        unbiased = averages / (1 - decays**count)
        seen = [
            *(mean(_unit(grad) * _unit(a)) for a in averages),
            *(jnp.log(size(grad) / size(a)) for a in unbiased),
            jnp.log(size(grad) / so_far),
            jnp.asarray(float(matrix)),
        ]
        return averages, square, directions, jnp.stack(seen)


def _equal(array: Float[Array, "..."]) -> Float[Array, "..."]:
    """The array as a matrix (inputs × outputs) with all singular values near 1, times the root of
    outputs ÷ inputs where there are more outputs: unit inputs change outputs by about 1."""
    matrix = array.reshape(-1, array.shape[-1])
    inputs, outputs = matrix.shape
    x = matrix.T if inputs > outputs else matrix
    x = x / jnp.sqrt(jnp.sum(x**2) + TINY)
    a, b, c = QUINTIC
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x * max(1.0, outputs / inputs) ** 0.5
    return (x.T if inputs > outputs else x).reshape(array.shape)


def _unit(array: Float[Array, "..."]) -> Float[Array, "..."]:
    return array / size(array)

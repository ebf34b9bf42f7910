"""Families of small problems."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Quadratics(eqx.Module):
    """‖Wθ − y‖² with W and y standard normal, from `θ_0 ~ N(0, .01²)` (Andrychowicz et al. 2016,
    section 3.1).

    **Arguments:**

    - `size`: the number of parameters, and of rows of W.
    """

    size: int = 10

    def __call__(self, key):
        matrix_key, target_key, start_key = jax.random.split(key, 3)
        matrix = jax.random.normal(matrix_key, (self.size, self.size))
        target = jax.random.normal(target_key, (self.size,))
        start = 0.01 * jax.random.normal(start_key, (self.size,))
        return start, lambda params, _: jnp.sum((matrix @ params - target) ** 2)


class Rosenbrock(eqx.Module):
    """`Σ_i 100 (θ_{i+1} − θ_i²)² + (1 − θ_i)²` (Rosenbrock 1960) from standard normal starts: one
    curved valley with its minimum, 0, at all ones. Only the start differs between problems.

    **Arguments:**

    - `size`: the number of parameters, at least 2.
    """

    size: int = 2

    def __check_init__(self):
        if self.size < 2:
            raise ValueError(f"Rosenbrock(size={self.size}): at least 2 parameters are needed.")

    def __call__(self, key):
        def loss(params, key):
            del key
            here, following = params[:-1], params[1:]
            return jnp.sum(100 * (following - here**2) ** 2 + (1 - here) ** 2)

        return jax.random.normal(key, (self.size,)), loss


class Gaussians(eqx.Module):
    """Random data to classify: for each class a normal distribution with a random mean and a random
    covariance (as in Li and Malik 2017, section 5).

    **Arguments:**

    - `features`: how many numbers an example has.
    """

    features: int = 3

    def __call__(
        self, key: PRNGKeyArray, classes: int, examples: int
    ) -> tuple[Float[Array, "examples features"], Int[Array, " examples"]]:
        """Examples and labels; the classes take turns."""
        mean_key, spread_key, noise_key = jax.random.split(key, 3)
        means = jax.random.normal(mean_key, (classes, self.features))
        spreads = jax.random.normal(spread_key, (classes, self.features, self.features))
        noise = jax.random.normal(noise_key, (examples, self.features)) / self.features**0.5
        labels = jnp.arange(examples, dtype=jnp.int32) % classes
        return means[labels] + jnp.einsum("eij,ej->ei", spreads[labels], noise), labels


class LogisticRegression(eqx.Module):
    """Cross-entropy of a linear model, with a penalty of ½ · `penalty` · ‖weights‖², from standard
    normal weights: a convex problem on a small data set of its own (Li and Malik 2017, section 5).

        LogisticRegression()                              # random data
        LogisticRegression((x, y), classes=10)            # every problem takes 100 of these rows

    **Arguments:**

    - `data`: `Gaussians(…)`, or arrays (x, y) of which every problem draws its rows: x of
      examples × features, y of whole numbers below `classes`.
    - `classes`: how many.
    - `examples`: how many examples a problem has.
    - `penalty`: the strength of the penalty.
    """

    data: Gaussians | tuple[Array, Array] = eqx.field(
        default=Gaussians(), converter=lambda data: _arrays(data)
    )
    classes: int = 2
    examples: int = 100
    penalty: float = 5e-4

    def __check_init__(self):
        if isinstance(self.data, Gaussians):
            return
        (x, y), integers = self.data, jnp.issubdtype(self.data[1].dtype, jnp.integer)
        fits = x.ndim == 2 and y.shape == x.shape[:1] and integers
        if not fits or np.min(y) < 0 or np.max(y) >= self.classes:
            raise ValueError(
                f"LogisticRegression(data=…, classes={self.classes}) was given arrays of shapes "
                f"{x.shape} and {y.shape}, the second of {y.dtype} from {np.min(y)} to "
                f"{np.max(y)}; examples × features are needed, and for each a class below classes."
            )

    def __call__(self, key):
        data_key, start_key = jax.random.split(key)
        x, y = self._draw(data_key)
        start = {
            "matrix": jax.random.normal(start_key, (x.shape[1], self.classes)),
            "bias": jnp.zeros(self.classes),
        }

        def loss(params, key):
            del key
            logits = x @ params["matrix"] + params["bias"][None]
            fit = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
            return fit + self.penalty / 2 * jnp.sum(params["matrix"] ** 2)

        return start, loss

    def _draw(self, key):
        if isinstance(self.data, Gaussians):
            return self.data(key, self.classes, self.examples)
        x, y = self.data
        rows = jax.random.randint(key, (self.examples,), 0, len(x), dtype=jnp.int32)
        return x[rows], y[rows]


def _arrays(data):
    if isinstance(data, Gaussians):
        return data
    x, y = data
    return jnp.asarray(x, float), jnp.asarray(y)

"""Convolutional networks on images, as problems to learn an optimizer on."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

SMALLEST_VARIANCE = 1e-5


class Images(eqx.Module):
    """Images with labels."""

    x: Float[Array, "rows colors height width"]
    y: Int[Array, " rows"]
    classes: int = eqx.field(static=True)

    def draw(self, key: PRNGKeyArray, count: int) -> "Images":
        """So many of them, with replacement."""
        return self.take(jax.random.randint(key, (count,), 0, len(self.y)))

    def take(self, rows: Int[Array, " count"] | np.ndarray) -> "Images":
        """Those of these rows. The classes keep their numbers, also where some are left out."""
        return Images(self.x[rows], self.y[rows], self.classes)


class ConvNets(eqx.Module):
    """Convolutional networks that classify images: convolutions, each with batch normalisation,
    rectified units and 2 × 2 max pooling, a dense layer, batch-normalised too, and a softmax
    (Andrychowicz et al. 2016, section 3.3). A problem is a random start; the loss is the mean
    cross-entropy, in nats, of a minibatch drawn by the step's key.

    Kernels and weights start normal with variance 2 / inputs.

    **Arguments:**

    - `images`: what to learn from.
    - `channels`: of each convolution.
    - `kernel`: the pixels along a side of a kernel, an odd number.
    - `dense`: the units of the dense layer.
    - `batch`: the images of a minibatch.
    """

    images: Images
    channels: tuple[int, ...] = eqx.field(static=True, default=(16, 16, 16))
    kernel: int = eqx.field(static=True, default=5)
    dense: int = eqx.field(static=True, default=32)
    batch: int = eqx.field(static=True, default=128)

    def __check_init__(self):
        size = min(self.images.x.shape[2:])
        if self.kernel % 2 == 0:
            raise ValueError(f"ConvNets(kernel={self.kernel}): an odd number is needed.")
        if size % 2 ** len(self.channels):
            raise ValueError(
                f"ConvNets(channels={self.channels}) halves the images {len(self.channels)} times, "
                f"and they have {size} pixels a side. Give fewer channels, or larger images."
            )

    def __call__(self, key):
        return self.start(key), self.loss

    def start(self, key: PRNGKeyArray) -> PyTree[Float[Array, "..."]]:
        """Random parameters."""
        _, colors, height, width = self.images.x.shape
        keys = iter(jax.random.split(key, len(self.channels) + 2))
        convolutions = []
        for inputs, outputs in zip((colors, *self.channels), self.channels, strict=False):
            shape = (outputs, inputs, self.kernel, self.kernel)
            kernel = _normal(next(keys), shape, inputs * self.kernel**2)
            convolutions.append({"kernel": kernel, **_standard(outputs)})
        pixels = height * width // 4 ** len(self.channels)
        inputs = pixels * (self.channels[-1] if self.channels else colors)
        hidden = _normal(next(keys), (self.dense, inputs), inputs)
        output = _normal(next(keys), (self.images.classes, self.dense), self.dense)
        return {
            "convolutions": convolutions,
            "dense": {"weights": hidden, **_standard(self.dense)},
            "output": {"weights": output, "bias": jnp.zeros(self.images.classes)},
        }

    def loss(self, params: PyTree, key: PRNGKeyArray) -> Float[Array, ""]:
        """The mean cross-entropy on a minibatch."""
        return self.loss_on(params, self.images.draw(key, self.batch))

    def loss_on(self, params: PyTree, images: Images) -> Float[Array, ""]:
        """The mean cross-entropy on these images, which are normalised as one batch."""
        logits = self.logits(params, images.x)
        log_p = jax.nn.log_softmax(logits, axis=0)
        return -jnp.mean(jnp.take_along_axis(log_p, images.y[None], axis=0))

    def logits(
        self, params: PyTree, x: Float[Array, "rows colors height width"]
    ) -> Float[Array, "classes rows"]:
        """The network. Rows come last, so that what is elementwise goes over long vectors."""
        x = x.transpose(1, 2, 3, 0)
        for layer in params["convolutions"]:
            x = pool(jax.nn.relu(normalize(convolve(x, layer["kernel"]), layer)))
        x = params["dense"]["weights"] @ x.reshape(-1, x.shape[-1])
        x = jax.nn.relu(normalize(x, params["dense"]))
        return params["output"]["weights"] @ x + params["output"]["bias"][:, None]


def convolve(
    x: Float[Array, "inputs height width rows"], kernel: Float[Array, "outputs inputs size size"]
) -> Float[Array, "outputs height width rows"]:
    """A convolution (a correlation, strictly) of the zero-padded images, which keeps their size.

    It is one product with the matrix of all patches: under vmap over kernels,
    `lax.conv_general_dilated` becomes a grouped convolution, on CPU 2 to 5 times slower.
    """
    outputs, _, size, _ = kernel.shape
    _, height, width, rows = x.shape
    r = size // 2
    x = jnp.pad(x, ((0, 0), (r, r), (r, r), (0, 0)))
    shifts = [(i, j) for i in range(size) for j in range(size)]
    patches = jnp.concatenate([x[:, i : i + height, j : j + width] for i, j in shifts])
    matrix = kernel.transpose(0, 2, 3, 1).reshape(outputs, -1)
    return (matrix @ patches.reshape(-1, height * width * rows)).reshape(-1, height, width, rows)


def normalize(
    x: Float[Array, "channels *positions"], layer: dict[str, Any]
) -> Float[Array, "channels *positions"]:
    """Batch normalisation: mean 0 and variance 1 over rows (and pixels), then the learned scale
    and offset."""
    axes = tuple(range(1, x.ndim))
    x = x - jnp.mean(x, axes, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.mean(x**2, axes, keepdims=True) + SMALLEST_VARIANCE)
    along = lambda vector: vector.reshape(-1, *(1,) * len(axes))
    return x * along(layer["scale"]) + along(layer["bias"])


def pool(
    x: Float[Array, "channels height width rows"],
) -> Float[Array, "channels height/2 width/2 rows"]:
    """The largest of every 2 × 2 pixels."""
    channels, height, width, rows = x.shape
    x = x.reshape(channels, height // 2, 2, width // 2, 2, rows)
    upper, lower = (jnp.maximum(x[:, :, i, :, 0], x[:, :, i, :, 1]) for i in (0, 1))
    return jnp.maximum(upper, lower)


def _normal(key, shape, inputs):
    return (2 / inputs) ** 0.5 * jax.random.normal(key, shape)


def _standard(channels):
    return {"scale": jnp.ones(channels), "bias": jnp.zeros(channels)}

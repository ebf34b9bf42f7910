"""What a learned optimizer is: an optimizer whose step is a network."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from hindgrad.learned import flat
from hindgrad.optimizers import Optimizer


class LearnedOptimizer(Optimizer):
    """An optimizer whose step is a network: `θ_{t+1} = θ_t + g_t`, where `[g_t, h_{t+1}] =
    m(∇_t, h_t, φ)` (Andrychowicz et al. 2016, eq. 2). Its weights φ are the hyperparameters:

        training = hg.Training(loss, optimizer=hg.learned.CoordinateLSTM(), …)
        run = training(params, weights)

    It takes steps for several problems side by side, which `begin` and `step` get with an axis
    in front of every array: one network goes over the coordinates of all of them.
    """

    second_derivatives: eqx.AbstractVar[bool]
    """Whether the gradient's own dependence on the parameters is differentiated. Without it the
    gradient counts as a constant input, as in the paper, and a hypergradient costs no
    second derivatives of the loss."""

    @abc.abstractmethod
    def weights(self, key: PRNGKeyArray) -> PyTree:
        """Weights to begin learning from."""

    @abc.abstractmethod
    def begin(self, params: PyTree[Float[Array, "problems ..."]]) -> PyTree:
        """The memory before the first step."""

    @abc.abstractmethod
    def step(
        self, weights: PyTree, grads: PyTree[Float[Array, "problems ..."]], memory: PyTree
    ) -> tuple[PyTree[Float[Array, "problems ..."]], PyTree]:
        """What is added to the parameters, and the memory after."""

    def coefficients(self, hyper, t):
        del t
        return hyper

    def init(self, params, coefficients):
        del coefficients
        return self.begin(_one(params))

    def move(self, params, memory, coefficients):
        del memory, coefficients
        return params

    def update(self, grads, memory, params, coefficients):
        if not self.second_derivatives:
            grads = jax.lax.stop_gradient(grads)
        updates, memory = self.step(coefficients, _one(grads), memory)
        return jax.tree.map(lambda p, u: p + u[0].astype(p.dtype), params, updates), memory

    @property
    def gradient_is_constant(self):
        return not self.second_derivatives

    def check_weights(self, weights: PyTree) -> None:
        """Raises `ValueError` if these are not weights of this optimizer."""
        shapes = lambda tree: jax.tree.map(jnp.shape, tree)
        wanted = shapes(eqx.filter_eval_shape(self.weights, jax.random.key(0)))
        if shapes(weights) != wanted:
            raise ValueError(
                f"These weights are of the shapes {shapes(weights)}; {self!r} has weights of the "
                f"shapes {wanted}. Give it its own: those of `weights(key)`, `fit` or `load`."
            )

    def as_optax(self, weights: PyTree) -> optax.GradientTransformation:
        """The optimizer with these weights, as optax knows optimizers: for any loop, in
        `optax.chain`, under jit and vmap, on parameters of any shape.

        Raises `ValueError` if the weights are another optimizer's.
        """
        self.check_weights(weights)

        def init(params):
            return LearnedState(self.begin(_one(params)))

        def update(updates, state, params=None):
            del params
            moved, memory = self.step(weights, _one(updates), state.memory)
            moved = jax.tree.map(lambda m, g: m[0].astype(g.dtype), moved, updates)
            return moved, LearnedState(memory)

        return optax.GradientTransformation(init, update)


class LearnedState(NamedTuple):
    """The state of a learned optimizer as an optax transformation."""

    memory: PyTree


def _one(tree):
    """One problem's arrays as those of several."""
    return jax.tree.map(lambda x: x[None], tree)


class View(eqx.Module):
    """What a network sees of a gradient, and what its outputs mean."""

    @property
    @abc.abstractmethod
    def features(self) -> int:
        """How many numbers the network sees for each coordinate."""

    @property
    def outputs(self) -> int:
        """How many numbers it gives for each."""
        return 1

    def begin(self, params: PyTree) -> PyTree:
        """What the view remembers before the first step: nothing, unless it says otherwise;
        `params` is one problem's."""
        del params

    @abc.abstractmethod
    def see(
        self, grads: PyTree, memory: PyTree
    ) -> tuple[Float[Array, "features coordinates"], PyTree, PyTree]:
        """The features, the unit that the outputs are in, and the memory after."""

    @abc.abstractmethod
    def say(
        self, outputs: Float[Array, "outputs coordinates"], unit: PyTree
    ) -> Float[Array, " coordinates"]:
        """What is added to the coordinates."""


class Scaled(View):
    """A view whose outputs are multiplied by a number."""

    inner: View
    scale: float

    @property
    def features(self):
        return self.inner.features

    @property
    def outputs(self):
        return self.inner.outputs

    def begin(self, params):
        return self.inner.begin(params)

    def see(self, grads, memory):
        return self.inner.see(grads, memory)

    def say(self, outputs, unit):
        return self.scale * self.inner.say(outputs, unit)


class Network(eqx.Module):
    """A network that goes over coordinates, with the same weights and a state for each."""

    @abc.abstractmethod
    def weights(self, key: PRNGKeyArray, features: int, outputs: int) -> PyTree:
        """Weights to begin learning from."""

    @abc.abstractmethod
    def begin(self, coordinates: int) -> PyTree:
        """The coordinates' states before the first step."""

    @abc.abstractmethod
    def __call__(
        self, weights: PyTree, features: Float[Array, "features coordinates"], state: PyTree
    ) -> tuple[Float[Array, "outputs coordinates"], PyTree]:
        """The outputs, and the states after."""


class Coordinatewise(LearnedOptimizer):
    """A learned optimizer that is one network on every coordinate."""

    @property
    @abc.abstractmethod
    def view(self) -> View:
        """What the network sees, and what it says."""

    @property
    @abc.abstractmethod
    def network(self) -> Network:
        """The network."""

    def weights(self, key):
        return self.network.weights(key, self.view.features, self.view.outputs)

    def begin(self, params):
        if not jax.tree.leaves(params):
            return None
        return jax.vmap(self.view.begin)(params), self.network.begin(flat.size(params))

    def step(self, weights, grads, memory):
        if not jax.tree.leaves(grads):
            return grads, memory
        seen, state = memory
        see = jax.vmap(self.view.see, out_axes=(1, 0, 0))
        features, unit, seen = see(grads, seen)
        shape = features.shape[1:]
        outputs, state = self.network(weights, features.reshape(len(features), -1), state)
        say: Any = jax.vmap(self.view.say, in_axes=(1, 0))
        moved = say(outputs.reshape(len(outputs), *shape), unit)
        return jax.vmap(flat.unravel)(moved, grads), (seen, state)

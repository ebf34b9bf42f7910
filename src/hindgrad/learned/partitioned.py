"""A learned optimizer for each kind of parameter."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from hindgrad.learned.base import LearnedOptimizer


class Partitioned(LearnedOptimizer):
    """Several learned optimizers, each for some of the parameters, addressed as in
    `optax.partition`:

        Partitioned({"conv": CoordinateLSTM(), "dense": CoordinateLSTM(), "bias": CoordinateLSTM()})

    One LSTM for convolutions and one for dense weights, as in Andrychowicz et al. 2016, section
    3.3. The weights are a dictionary of the parts'. A part that no parameter belongs to learns
    nothing.

    **Arguments:**

    - `parts`: the optimizers by label. All keep second derivatives, or all drop them.
    - `labels`: a pytree of labels, a prefix of the parameters', or a function from the parameters'
      shapes to one. `by_kind` unless given.

    Raises `ValueError` if there are no parts, or if they differ in `second_derivatives`; when it
    meets parameters, if the labels are not a prefix of them, or a label is none of `parts`.
    """

    parts: Mapping[str, LearnedOptimizer]
    labels: Any

    def __init__(self, parts: Mapping[str, LearnedOptimizer], labels: Any = None):
        self.parts, self.labels = parts, labels

    def __check_init__(self):
        if not isinstance(self.parts, dict) or not self.parts:
            raise ValueError(
                f"Partitioned({self.parts!r}): a dictionary of at least one learned optimizer is "
                'needed, such as {"conv": CoordinateLSTM(), "dense": CoordinateLSTM()}.'
            )
        for name, part in self.parts.items():
            if not isinstance(name, str) or not isinstance(part, LearnedOptimizer):
                raise TypeError(
                    f"Partitioned({{{name!r}: {part!r}}}): labels are strings, and parts learned "
                    "optimizers, such as hg.learned.CoordinateLSTM()."
                )
        if len({part.second_derivatives for part in self.parts.values()}) > 1:
            given = {name: part.second_derivatives for name, part in self.parts.items()}
            raise ValueError(
                f"The parts of Partitioned differ in second_derivatives: {given}. Give all parts "
                "the same."
            )

    @property
    def second_derivatives(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The parts'."""
        return next(iter(self.parts.values())).second_derivatives

    def weights(self, key):
        keys = jax.random.split(key, len(self.parts))
        names = sorted(self.parts)
        return {n: self.parts[n].weights(k) for n, k in zip(names, keys, strict=True)}

    def begin(self, params):
        return {n: self.parts[n].begin(part) for n, part in self._split(params).items()}

    def step(self, weights, grads, memory):
        updates, after = {}, {}
        for name, part in self._split(grads).items():
            updates[name], after[name] = self.parts[name].step(weights[name], part, memory[name])
        # Where there are no parameters at all, there is nothing else to combine.
        return eqx.combine(*updates.values(), grads), after

    def _split(self, params: PyTree) -> dict[str, PyTree]:
        """The parameters of each label, with None elsewhere; labels without any are left out."""
        labels = self._labels(params)
        used = sorted(set(jax.tree.leaves(labels)))
        pick = lambda name: jax.tree.map(lambda x, n: x if n == name else None, params, labels)
        return {name: pick(name) for name in used}

    def _labels(self, params: PyTree) -> PyTree[str]:
        """A label for each parameter."""
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), params)
        given = by_kind if self.labels is None else self.labels
        given = given(one) if isinstance(given, Callable) else given
        try:
            labels = jax.tree.broadcast(given, params)
        except ValueError as error:
            raise ValueError(
                f"Partitioned(labels=…): {given} is no prefix of the parameters, which are "
                f"{jax.tree.structure(params)}. Give a label for each of them, or for each of "
                "their branches."
            ) from error
        for path, label in jax.tree_util.tree_leaves_with_path(labels):
            if label not in self.parts:
                raise ValueError(
                    f"The parameters at {jax.tree_util.keystr(path) or 'the root'} have the label "
                    f"{label!r}; Partitioned has parts for "
                    f"{', '.join(map(repr, sorted(self.parts)))}. Add one, or give other labels=."
                )
        return labels


def by_kind(params: PyTree) -> PyTree[str]:
    """Labels: "conv" for arrays of three axes or more, "dense" for matrices, "bias" for the rest
    (biases, and the scales of normalisations)."""
    kinds = ("bias", "bias", "dense")
    return jax.tree.map(lambda x: kinds[x.ndim] if x.ndim < 3 else "conv", params)

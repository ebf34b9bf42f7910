"""State beside the weights: what a model carries from step to step and does not train."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from hindgrad import trees


def takes_state(function: Callable[..., Any]) -> bool:
    """Whether a loss or a score has a fourth argument that must be given: the model's state."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a function without a signature, as some built-ins are
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is p.empty for p in parameters) > 3


def arguments(name: str, function: Callable[..., Any], state: PyTree) -> tuple[PyTree, ...]:
    """The state as the arguments that a score has for it: one or none.

    Raises `ValueError` if it has one, and there is no state.
    """
    if not takes_state(function):
        return ()
    if state is None:
        raise ValueError(
            f"The {name} takes a fourth argument, the model's state, and there is none: the "
            "training's loss takes three. Give the argument a default, or write the loss as "
            "(params, hyper, batch, state) -> (value, state)."
        )
    return (state,)


def check_given(loss: Callable[..., Any], state: PyTree) -> None:
    """Raises `ValueError` if a loss takes a state and there is none, or the reverse."""
    takes, is_given = takes_state(loss), state is not None
    if takes and not is_given:
        raise ValueError(
            "The loss takes four arguments, (params, hyper, batch, state), and there is no state. "
            "Give Objective(init=(params, state)) or training(params, hyper, model_state=state)."
        )
    if is_given and not takes:
        raise ValueError(
            "A model's state is given, and the loss does not take it. Write the loss as "
            "(params, hyper, batch, state) -> (value, state)."
        )


def value_and_state(result: Any, before: PyTree) -> tuple[Any, PyTree]:
    """What a loss that takes a state returned: the value, and the arrays of the state after it.

    Raises `ValueError` if there is no state, if it has another structure, shape or dtype than the
    one `before`, or if what is no array has changed: every step would get the first one.
    """
    if not isinstance(result, tuple) or len(result) != 2:
        raise ValueError(
            "The loss takes a state, so it must return (value, state): what the next step gets. "
            f"It returned a {type(result).__name__}."
        )
    value, after = result
    after = trees.as_hyper(after)
    structures = jax.tree.structure(before), jax.tree.structure(after)
    if structures[0] != structures[1]:
        raise ValueError(
            f"The loss was given a state like {structures[0]} and returned one like "
            f"{structures[1]}; a state keeps its structure."
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    for (path, a), b in pairs:
        if not eqx.is_array(a) and (eqx.is_array(b) or (a is not b and a != b)):
            raise ValueError(
                f"The loss changed the state{jax.tree_util.keystr(path)}, which is {a!r}: only "
                "arrays change from step to step. Begin with an array, such as jnp.int32(0)."
            )
        if eqx.is_array(a) and (not eqx.is_array(b) or (a.shape, a.dtype) != (b.shape, b.dtype)):
            found = f"{b.dtype}{list(b.shape)}" if eqx.is_array(b) else repr(b)
            raise ValueError(
                f"The loss turned the state{jax.tree_util.keystr(path)} from "
                f"{a.dtype}{list(a.shape)} into {found}; a state keeps its shapes and dtypes."
            )
    return value, eqx.filter(after, eqx.is_array)

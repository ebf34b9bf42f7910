"""The parts that an optax transformation is chained from, found in what its update closes over."""

import contextlib
import inspect
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import optax


class Link(NamedTuple):
    """A part of a chain."""

    name: str
    """The function that made it."""
    settings: dict[str, Any]
    """What its update closes over."""
    needs: tuple[str, ...]
    """The arguments without which its update cannot be called."""


def links(made: Any) -> list[Link]:
    """The parts of what has an init and an update, in the order in which they are found, the outer
    ones first."""
    return list(_within(made.update, set()))


def _within(value: Any, seen: set[FunctionType]) -> Iterator[Link]:
    if isinstance(value, optax.GradientTransformation):
        yield from _within(value.update, seen)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _within(part, seen)
    elif isinstance(value, dict):
        yield from _within(list(value.values()), seen)
    elif isinstance(value, MethodType):
        yield from _within(dict(getattr(value.__self__, "__dict__", {})), seen)
    elif isinstance(value, FunctionType) and value not in seen:
        seen.add(value)
        settings = _closed_over(value)
        *makers, name = value.__qualname__.split(".<locals>.")
        if makers and name in ("update", "update_fn"):
            maker = makers[0] if value.__module__.startswith("optax.") else makers[-1]
            yield Link(maker, settings, _needs(value))
        yield from _within(list(settings.values()), seen)


def _closed_over(function: FunctionType) -> dict[str, Any]:
    """What a function closes over, by name, as far as it is set."""
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty cell
            found[name] = cell.cell_contents
    return found


def _needs(function: FunctionType) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    if "ret0" in (p.name for p in parameters):
        return ()  # what jaxtyping's decorator makes to check the types
    return tuple(
        p.name
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.default is inspect.Parameter.empty
    )

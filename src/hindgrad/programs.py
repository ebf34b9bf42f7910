"""Compiled programs, which live no longer than the functions that they were made from."""

import contextlib
import functools
import types
import weakref
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

import equinox as eqx
import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from hindgrad import errors, placement

P = ParamSpec("P")
T = TypeVar("T")


def compiled(function: Callable[P, T]) -> "_Programs[P, T]":
    """`function` under `jax.jit`: arrays anywhere in its arguments are traced, everything else is
    constant; a second call with the same constants and shapes does not compile again.

    Functions among the constants are held weakly, and a program is dropped with the first of
    them that is. (`jax.jit` with static arguments, and `equinox.filter_jit`, keep every closure
    that was ever passed, the data that it holds, and its program.) Errors of `hindgrad.errors`
    are raised as they are.
    """
    return _Programs(function)


class Compiled(eqx.Module):
    """A function, compiled: a pytree of what it holds, for functions that are made anew in every
    call. Their programs are found again as long as they live."""

    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return _called(self.function, *args)


class Traced(NamedTuple):
    """A call that was not made."""

    result: Any
    """What it would return, with structs in place of arrays."""
    program: Any
    """Its jaxpr, with constants."""


class _Programs(Generic[P, T]):
    """The programs of one function, by what is constant in its arguments."""

    def __init__(self, function):
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.programs: dict[Any, _Program] = {}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        program, arrays = self._program(args, kwargs)
        with _own_errors():
            return program(arrays)

    def ahead(self, *args: Any) -> Callable[..., Any]:
        """The program for such arguments, compiled: it takes others that differ from them in the
        values of arrays alone, in any thread, whatever JAX's settings are there."""
        program, arrays = self._program(args, {})
        return program.ahead(arrays)

    def traced(self, *args: Any) -> "Traced":
        """What a call would do; it is not compiled for that, and a call does not trace again."""
        program, arrays = self._program(args, {})
        return program.traced(arrays)

    def _program(self, args, kwargs):
        """The program for these arguments, and the arrays among them."""
        leaves, structure = jax.tree.flatten((args, kwargs))
        key = structure, tuple(None if _is_array(x) else _reference(x) for x in leaves)
        program = self.programs.get(key) or self._made(key, leaves)
        return program, [x if _is_array(x) else None for x in leaves]

    def _made(self, key, leaves):
        """A new program, which is forgotten when one of its functions is."""
        programs, structure = weakref.ref(self), key[0]

        def forget(_):
            owner = programs()
            if owner is not None:
                owner.programs.pop(key, None)

        constants = tuple(None if _is_array(x) else _reference(x, forget) for x in leaves)
        key = structure, constants
        program = self.programs[key] = _Program(self.function, structure, constants)
        return program


class _Program:
    """One compiled program."""

    def __init__(self, function, structure, constants):
        given = {c.identity for c in constants if isinstance(c, _Weak)}

        def constant(x):
            return _reference(x) if id(_anchor(x)) in given else _Strong(x)

        def call(arrays):
            leaves = [a if c is None else c.value() for a, c in zip(arrays, constants, strict=True)]
            args, kwargs = jax.tree.unflatten(structure, leaves)
            results, results_structure = jax.tree.flatten(function(*args, **kwargs))
            others = tuple(None if _is_array(x) else constant(x) for x in results)
            arrays = [jnp.asarray(x) if _is_array(x) else None for x in results]
            return arrays, _Static((results_structure, others))

        self.call = jax.jit(call)
        self.opened: dict[int, _Opened] = {}

    def __call__(self, arrays):
        arrays, static = self._callable(arrays)(arrays)
        if not any(isinstance(x, Tracer) for x in arrays):
            jax.block_until_ready(arrays)  # an error is raised here, where it is restored
        return self._whole(arrays, static)

    def ahead(self, arrays):
        executable = self.call.lower(arrays).compile()

        def call(*args, **kwargs):
            leaves = jax.tree.leaves((args, kwargs))
            with _own_errors():
                arrays, static = executable([x if _is_array(x) else None for x in leaves])
                return self._whole(jax.block_until_ready(arrays), static)

        return call

    def traced(self, arrays):
        traced = self.call.trace(arrays)
        as_struct = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype)
        structs = jax.tree.map(as_struct, traced.out_info)
        return Traced(self._whole(*structs), traced.jaxpr)

    def _callable(self, arrays):
        """The compiled function; if it is given, or closes over, arrays on several devices, in the
        form that keeps them there."""
        if jax.device_count() == 1:
            return self.call
        traced = self.call.trace(arrays)
        opened = self.opened.get(id(traced.jaxpr))
        if opened is None:
            opened = self.opened[id(traced.jaxpr)] = _Opened(traced)
        is_needed = opened.is_spread or any(map(placement.is_spread, arrays))
        return opened if is_needed else self.call

    def _whole(self, arrays, static):
        structure, others = static.value
        leaves = [a if c is None else c.value() for a, c in zip(arrays, others, strict=True)]
        return jax.tree.unflatten(structure, leaves)


class _Opened:
    """A traced function whose constants are arguments, so that they stay on the devices where they
    are. Where it is called within another program, they and its arguments are constants of that,
    and are told to."""

    def __init__(self, traced):
        self.jaxpr = traced.jaxpr
        self.structure = jax.tree.structure(traced.out_info)
        self.is_spread = any(map(placement.is_spread, self.jaxpr.consts))
        program = self.jaxpr.jaxpr

        def run(constants, arrays):
            return jex.jaxpr_as_fun(jex.ClosedJaxpr(program, constants))(*arrays)

        self.run = jax.jit(run)

    def __call__(self, arrays):
        given = self.jaxpr.consts, jax.tree.leaves(arrays)
        placed = lambda x: placement.kept(x) if placement.is_spread(x) else x
        return jax.tree.unflatten(self.structure, self.run(*jax.tree.map(placed, given)))


@contextlib.contextmanager
def _own_errors():
    """What is raised as an error of `hindgrad.errors`, as JAX wraps it, is that error."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError, TypeError) as error:
        ours = errors.ours(error)
        if ours is None:
            raise
        raise ours from None


@jax.tree_util.register_static
class _Static:
    """What a traced function returns beside arrays."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, _Static) and self.value == other.value

    def __hash__(self):
        return hash(self.value)


class _Strong:
    """A constant, compared by type and value."""

    def __init__(self, value):
        self.held = value
        # Floats bit by bit: −0 is not 0, and NaN is NaN.
        self.key = type(value), value.hex() if isinstance(value, float) else value

    def value(self):
        return self.held

    def __eq__(self, other):
        return isinstance(other, _Strong) and bool(self.key == other.key)

    def __hash__(self):
        return hash(self.key)


class _Weak:
    """A function, compared by identity; `forget` is called when it is dropped."""

    def __init__(self, function, forget=None):
        # A bound method is made anew whenever it is looked up; its object is not.
        self.method = function.__func__ if isinstance(function, types.MethodType) else None
        self.anchor = weakref.ref(_anchor(function), forget)
        self.identity = id(_anchor(function))

    def value(self):
        held = self.anchor()
        return held if self.method is None else types.MethodType(self.method, held)

    def __eq__(self, other):
        same = isinstance(other, _Weak) and self.identity == other.identity
        return same and self.method is other.method and self.anchor() is other.anchor()

    def __hash__(self):
        return hash((self.identity, id(self.method)))


@compiled
def _called(function, *args):
    return function(*args)


def _anchor(function):
    return function.__self__ if isinstance(function, types.MethodType) else function


def _reference(x, forget=None):
    if callable(x):
        try:
            return _Weak(x, forget)
        except TypeError:  # it cannot be held weakly: a function of C, say
            pass
    return _Strong(x)


def _is_array(x):
    return isinstance(x, (jax.Array, np.ndarray, np.generic))

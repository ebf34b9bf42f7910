"""How a small change grows along a training run."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from hindgrad import programs, trees
from hindgrad.objective import Objective

ROUNDING = 8.0
"""In units in the last place for each step."""


class Course(NamedTuple):
    """A run and what it does to a small change."""

    value: Float[Array, ""]
    """The objective."""
    params: PyTree
    """The trained parameters' floats."""
    growth: Float[Array, " steps"]
    """The logarithm of how far the change has grown after each step, in nats: see `course`. NaN
    from the step on at which the run diverges."""


class NoTangents(RuntimeError):
    """A step has no derivatives in forward mode."""


def course(objective: Objective, hyper: PyTree, key: PRNGKeyArray) -> Course:
    """Trains, and carries one tangent of the state along: that of making every step a little
    longer, `Z_{k+1} = A_k Z_k + (θ_{k+1} − θ_k)`.

    If no step magnifies a change, |Z_T| is at most the length of the path, Σ |θ_{k+1} − θ_k|. The
    growth is the logarithm of |Z_k| ÷ the path's length so far: above 0, changes were magnified,
    and the more so the later steps are, the more the earlier ones' effect is exaggerated. (A
    random change would hide it: most parameters' directions do nothing.) The tangent is
    scaled to length 1 at every step, so that nothing overflows; the memory is that of two states.
    """
    try:
        return _course(objective, hyper, key)
    except (TypeError, ValueError, NotImplementedError) as error:
        if not any(word in str(error) for word in ("custom_vjp", "JVP", "forward-mode")):
            raise
        raise NoTangents(
            "How a small change grows along the run needs derivatives of a step in forward mode, "
            "which it has not (a jax.custom_vjp, or a callback). Use jax.custom_jvp there."
        ) from error


@programs.compiled
def _course(objective, hyper, key):
    run = objective.scored(key)
    state = run.begin(hyper, key)

    def body(carry, t):
        state, tangent, log_size, path = carry
        after, moved = eqx.filter_jvp(lambda s: run.step(hyper, key, s, t), (state,), (tangent,))
        stride = jax.tree.map(jnp.subtract, *map(_floats, (after[0], state[0])))
        shrunk = jnp.exp(-log_size)
        longer = jax.tree.map(lambda z, d: z + d * shrunk.astype(d.dtype), moved[0], stride)
        length = trees.norm(longer)
        unit = jnp.where(length > 0, length, 1)
        tangent = jax.tree.map(lambda z: z / unit.astype(z.dtype), (longer, *moved[1:]))
        log_size, path = log_size + jnp.log(unit), path + trees.norm(stride)
        growth = jnp.where(path == 0, 0, log_size - jnp.log(path))
        return (after, tangent, log_size, path), growth

    zeros = jax.tree.map(jnp.zeros_like, _floats(state))
    ts = jnp.arange(run.steps, dtype=jnp.int32)
    (state, *_), growth = jax.lax.scan(body, (state, zeros, jnp.zeros(()), jnp.zeros(())), ts)
    return Course(run.score(hyper, key, state), _floats(state[0]), growth)


class Growth(NamedTuple):
    """How far small changes grew along a run."""

    curve: np.ndarray
    """Their logarithm after each step, in nats, float [steps]."""

    @property
    def total(self) -> float:
        """The logarithm over the whole run; above 0, changes were magnified."""
        return float(self.curve[-1])

    @property
    def rounding(self) -> float:
        """How far above 0 the logarithm of no growth may be rounded."""
        return ROUNDING * len(self.curve) * float(np.finfo(self.curve.dtype).eps)

    @property
    def magnifies(self) -> bool:
        """Whether changes were magnified over the whole run, by more than rounding (or to NaN)."""
        return not self.total <= self.rounding

    @property
    def onset(self) -> int | None:
        """The step from which on changes are magnified for good; None if they are not."""
        if not self.magnifies:
            return None
        below = np.flatnonzero(self.curve <= self.rounding)
        return int(below[-1]) + 1 if len(below) else 0

    @property
    def exponent(self) -> float:
        """The finite-time Lyapunov exponent, nats per step, from the onset on (from the first
        step, if there is none)."""
        onset = self.onset or 0
        begin = float(self.curve[onset - 1]) if onset else 0.0
        return (self.total - begin) / (len(self.curve) - onset)


def _floats(tree):
    return eqx.filter(tree, eqx.is_inexact_array)

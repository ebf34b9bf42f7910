"""The same run with other examples: weights at zero, the same steps in the same order."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from hindgrad import programs, trees
from hindgrad.attribution.leaf import Leaf
from hindgrad.diagnostics.metasmoothness import metasmoothness
from hindgrad.objective import Objective
from hindgrad.progress import Bar

CACHED = 2**19
"""So many parameters in all may runs have that are trained side by side on a CPU: what its cache
holds. On an accelerator"""
HELD = 2**27
"""so many."""
MOST = 64
"""So many runs at the most."""


def together(objective: Objective, hyper: PyTree, key: PRNGKeyArray) -> int:
    """How many runs are trained side by side, by the size of their parameters."""
    _, params, _ = objective.start(hyper, key)
    trained, _ = trees.split_trained(params)
    room = CACHED if jax.default_backend() == "cpu" else HELD
    return int(np.clip(room // trees.size(trained), 1, MOST))


def without(weights: Array, gone: Bool[Array, "*runs rows"]) -> Array:
    """The weights [*runs, rows, …], with zeros where a row is gone."""
    whole = jnp.broadcast_to(weights, gone.shape[:-1] + weights.shape)
    return jnp.where(gone.reshape(gone.shape + (1,) * (weights.ndim - 1)), 0, whole)


def retrained(
    objective: Objective,
    hyper: PyTree,
    leaf: Leaf,
    gone: Bool[np.ndarray, "runs rows"],
    key: PRNGKeyArray,
    *,
    block: int,
    bar: Bar,
) -> Float[np.ndarray, "runs queries"]:
    """What the queries are after runs without some rows, `block` of them side by side."""
    found = []
    for begin in range(0, len(gone), block):
        part = gone[begin : begin + block]
        filled = np.concatenate([part, np.repeat(part[-1:], block - len(part), axis=0)])
        values = _retrained(objective, hyper, leaf.place, jnp.asarray(filled), key)
        found.append(np.asarray(values)[: len(part)])
        bar.done(len(part))
    return np.concatenate(found)


def values(objective: Objective, hyper: PyTree, key: PRNGKeyArray) -> Float[Array, " queries"]:
    """What the queries are after one run."""
    return _values(objective, hyper, key)


def smoothness(
    objective: Objective,
    hyper: PyTree,
    leaf: Leaf,
    gone: Bool[np.ndarray, " rows"],
    key: PRNGKeyArray,
) -> float:
    """Metasmoothness on the way from all rows to those without some, half of their weight first."""
    return float(_smoothness(objective, hyper, leaf.place, jnp.asarray(gone), key))


def _queried(objective, run, hyper, key):
    return jnp.ravel(objective.returned(objective.seen(run), hyper, key))


@programs.compiled
def _values(objective, hyper, key):
    return _queried(objective, objective.run(hyper, key), hyper, key)


@programs.compiled
def _retrained(objective, hyper, place, gone, key):
    leaf = Leaf(place, "")

    def one(weights):
        changed = leaf.put(hyper, weights)
        return _queried(objective, objective.run(changed, key), changed, key)

    return jax.vmap(one)(without(leaf.of(hyper), gone))


@programs.compiled
def _smoothness(objective, hyper, place, gone, key):
    leaf = Leaf(place, "")
    whole = leaf.of(hyper)
    none = without(whole, gone)
    points = jnp.stack([whole, (whole + none) / 2, none])
    trained = lambda weights: trees.split_trained(
        objective.run(leaf.put(hyper, weights), key).params
    )[0]
    params = jax.vmap(trained)(points)
    return metasmoothness(*(jax.tree.map(lambda x, i=i: x[i], params) for i in range(3)))

"""The same run with other examples: weights at zero, the same steps in the same order."""

import contextlib
import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from hindgrad import placement, programs, trees
from hindgrad.attribution.leaf import Leaf
from hindgrad.cores import cores
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


def together(objective: Objective, hyper: PyTree, key: PRNGKeyArray, runs: int) -> int:
    """How many of the runs are trained side by side in one program, by the size of their
    parameters; on a CPU no more than the share of one core."""
    _, params, _ = objective.start(hyper, key)
    trained, _ = trees.split_trained(params)
    on_cpu = jax.default_backend() == "cpu"
    share = math.ceil(runs / cores()) if on_cpu else runs
    room = CACHED if on_cpu else HELD
    return int(np.clip(room // trees.size(trained), 1, min(MOST, share)))


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
    lanes: NamedSharding | None = None,
) -> Float[np.ndarray, "runs queries"]:
    """What the queries are after runs without some rows: `block` of them side by side in one
    program, split over devices as `lanes` are; on a CPU a program in a thread for each core."""
    axis = None
    if lanes is not None:
        axis, ways = lanes.spec[0], placement.ways(lanes)
        block = math.ceil(block / ways) * ways
    filled = np.concatenate([gone, np.repeat(gone[-1:], -len(gone) % block, axis=0)])
    place = jnp.asarray if lanes is None else partial(jax.device_put, device=lanes)
    blocks = [place(part) for part in np.split(filled, len(filled) // block)]
    given = lambda block: (objective, hyper, leaf.place, block, key, axis)
    is_threaded = jax.default_backend() == "cpu" and jax.device_count() == 1
    with contextlib.ExitStack() as stack:
        if is_threaded and len(blocks) > 1 and cores() > 1:
            program = _retrained.ahead(*given(blocks[0]))
            threads = ThreadPoolExecutor(cores())  # an interruption does not wait for all of them
            stack.callback(threads.shutdown, wait=False, cancel_futures=True)
            results = threads.map(lambda block: np.asarray(program(*given(block))), blocks)
        else:
            results = (np.asarray(_retrained(*given(block))) for block in blocks)
        found = []
        for values in results:
            found.append(values)
            bar.done(min(block, len(gone) - block * (len(found) - 1)))
    return np.concatenate(found)[: len(gone)]


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
def _retrained(objective, hyper, place, gone, key, axis):
    leaf = Leaf(place, "")

    def one(weights):
        changed = leaf.put(hyper, weights)
        return _queried(objective, objective.run(changed, key), changed, key)

    return jax.vmap(one, spmd_axis_name=axis)(without(leaf.of(hyper), gone))


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

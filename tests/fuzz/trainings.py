"""Random small trainings, each determined by a number: `python -m tests.fuzz.trainings 17` shows
and runs that of number 17, and the smallest part of it that is wrong, if it is."""

import sys

import jax
import jax.numpy as jnp
import numpy as np

from tests.fuzz import optimizers
from tests.fuzz.case import ROWS, Block, Case, Hypers, Leaf, Pair
from tests.fuzz.operations import JUMPING, OPERATIONS, D
from tests.fuzz.rules import COARSE, TRUE, UNTRUE

PRECISIONS = {"double": 0.78, "single": 0.08, "mixed": 0.08, "half": 0.06}
"""The dtypes of a training, and how often each comes."""
COUNTS = [1, 1, 1, 2, 2, 3]
"""Of operations: few, since most of the time goes into tracing and compiling."""


def draw(seed: int) -> Case:
    """The training of this number."""
    rng = np.random.default_rng(seed)
    precision = str(rng.choice(list(PRECISIONS), p=list(PRECISIONS.values())))
    steps = int(rng.integers(1, 13))
    spec, trained, structure = _params(rng, precision)
    hypers = Hypers(steps, structure, trained)
    optimizer = optimizers.draw(rng, hypers)
    start_kind = str(rng.choice(["constant", "scaled", "drawn"], p=[0.4, 0.35, 0.25]))
    if start_kind != "constant":
        hypers.add("scale", rng.uniform(0.7, 1.3))
    kinds = {
        "shift": lambda: rng.normal(size=D) / 2,
        "weights": lambda: rng.uniform(0.2, 1, ROWS),
        "penalty": lambda: float(rng.uniform(-3, -2)),
        "direct": lambda: (float(rng.normal()), {"square": rng.normal(size=2)}),
        "empty": lambda: np.zeros((0, 2)),
    }
    for name, value in kinds.items():
        if rng.random() < (0.1 if name == "empty" else 0.4):
            hypers.values[name] = value()
    if not hypers.values:
        hypers.values["shift"] = kinds["shift"]()
    entries = {"objective": 0.5, "training": 0.2, "unrolled": 0.15, "resumed": 0.15}
    entry = str(rng.choice(list(entries), p=list(entries.values())))
    entry = "training" if entry == "resumed" and steps == 1 else entry
    shut = rng.random() < 0.2
    closed = [name for name in hypers.values if shut and rng.random() < 0.4]
    return Case(
        seed=seed,
        precision=precision,
        steps=steps,
        spec=spec,
        hypers=hypers,
        optimizer=optimizer,
        operations=_operations(rng, precision, len(trained)),
        batching=str(rng.choice(["minibatches", "full", "own", "drawn"], p=[0.4, 0.2, 0.25, 0.15])),
        data={"x": rng.normal(size=(ROWS, D)), "label": rng.integers(0, D, ROWS).astype(np.int32)},
        start_kind=start_kind,
        entry=entry,
        closed=closed,
        narrow=[name for name in hypers.values if precision == "mixed" and rng.random() < 0.4],
        score_weights=rng.normal(size=3),
        cut=int(rng.integers(1, max(2, steps))),
    )


def _operations(rng, precision, leaves):
    names = [*OPERATIONS, *TRUE]
    if precision == "double":
        chosen = [str(rng.choice(names)) for _ in range(rng.choice(COUNTS))]
        if rng.random() < 0.12:
            chosen.insert(rng.integers(len(chosen) + 1), str(rng.choice(list(UNTRUE))))
    else:
        chosen = [str(rng.choice(names)) for _ in range(rng.choice(COUNTS))]
        if rng.random() < 0.5:
            chosen.insert(rng.integers(len(chosen) + 1), str(rng.choice(list(COARSE))))
        chosen = [name for name in chosen if name not in JUMPING] or ["tanh"]
    return [(name, int(rng.integers(leaves))) for name in chosen]


def _params(rng, precision):
    """(the parameters' pytree, the places of its trained leaves, its structure)."""
    dtypes = {
        "double": ["float64"],
        "single": ["float32"],
        "mixed": ["float64", "float32", "bfloat16"],
        "half": ["float32", "bfloat16"],
    }[precision]
    shapes = [(), (1,), (3,), (D,), (D, D), (2, 3), (0,), (2, 0)]
    chance = np.array([2, 1, 2, 3, 3, 2, 0.5, 0.5])

    def leaf(shape=None):
        shape = shapes[rng.choice(len(shapes), p=chance / chance.sum())] if shape is None else shape
        return Leaf(rng.normal(size=shape) * 0.6, str(rng.choice(dtypes)))

    def block():
        return Block(
            weight=leaf(),
            slope=float(rng.choice([0.0, 0.3])),
            table=rng.normal(size=3),
            missing=None,
            count=2,
            flag=bool(rng.random() < 0.7),
            name=str(rng.choice(["leaky", "sine"])),
        )

    def others():
        return [np.int32(3), jnp.arange(3), None, "name", True, 5][rng.integers(6)]

    made = [leaf((D,)) if rng.random() < 0.8 else leaf((2, 3))]
    made += [leaf() for _ in range(rng.choice([0, 0, 0, 1, 1, 2]))]
    made += [block() for _ in range(rng.random() < 0.35)]
    made += [others() for _ in range(rng.random() < 0.25)]
    order = [made[i] for i in rng.permutation(len(made))]
    tree = _contained(rng, order)
    leaves, structure = jax.tree.flatten(tree)
    return tree, [i for i, x in enumerate(leaves) if isinstance(x, Leaf)], structure


def _contained(rng, parts):
    if len(parts) == 1 and rng.random() < 0.3:
        return parts[0]
    kind = rng.choice(["dict", "tuple", "list", "pair"])
    if kind == "pair" and len(parts) > 1:
        return Pair(parts[0], _contained(rng, parts[1:]))
    if kind == "tuple":
        return tuple(parts)
    if kind == "list":
        return [parts[0], {"rest": parts[1:]}]
    return {f"p{i}": part for i, part in enumerate(parts)}


if __name__ == "__main__":
    from tests.fuzz import properties

    for number in sys.argv[1:]:
        print(properties.report(int(number)))

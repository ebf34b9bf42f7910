"""One call with a checkpoint, which a test kills; its arguments are those of `main`."""

import sys

import numpy as np

import hindgrad as hg
from tests.segments import problem

ADJOINTS = {"reversible": hg.Reversible(), "stored": hg.Stored()}


def main(directory, adjoint, slots, steps, segments):
    found = hg.hypergradient(
        problem.objective(int(steps)),
        problem.HYPER,
        adjoint=ADJOINTS[adjoint],
        segments=int(segments),
        slots=int(slots) or None,
        checkpoint=directory,
    )
    floats = {name: x for name, x in found.gradient.items() if x is not None}
    np.savez(f"{directory}/found.npz", value=found.value, **floats)


if __name__ == "__main__":
    main(*sys.argv[1:])

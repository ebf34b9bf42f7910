"""A run on a file that is larger than the memory left to it; the arguments are those of `main`."""

import json
import resource
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import hindgrad as hg

WIDTH, SIZE, STEPS, SEGMENTS = 1024, 64, 300, 30
HYPER = {"rate": 0.05, "weight": np.ones(8, np.float32)}
ADJOINTS = {"reversible": hg.Reversible(), "stored": hg.Stored()}
BATCH = WIDTH * SIZE * 4


class File:
    """Rows of a file, read when they are asked for."""

    def __init__(self, path):
        self.path = Path(path)

    def __len__(self):
        return self.path.stat().st_size // (4 * WIDTH)

    def __getitem__(self, i):
        return np.fromfile(self.path, np.float32, WIDTH, offset=4 * WIDTH * i)


def loss(params, hyper, batch):
    weight = hyper["weight"][batch.index % 8]
    return jnp.mean(weight * (batch.data @ params / 32 - jnp.sin(batch.data[:, 0])) ** 2)


def objective(batches):
    optimizer = hg.Momentum(lambda hyper, t: hyper["rate"], 0.9)
    training = hg.Training(loss, optimizer=optimizer, batches=batches, steps=STEPS)
    score = lambda params, hyper, key: jnp.mean((params - 0.01) ** 2)
    return hg.Objective(training, init=jnp.zeros(WIDTH), score=score)


def main(path, adjoint, allowed):
    """Prints the score and the hypergradient of the run on a file, for which the process may use
    so many bytes more than for a run on a small file."""

    def found(path):
        batches = hg.stream(File(path), size=SIZE, key=0)
        adjoints = {"adjoint": ADJOINTS[adjoint], "segments": SEGMENTS}
        return hg.hypergradient(objective(batches), HYPER, **adjoints)

    small = Path(path).with_name("small")
    small.write_bytes(bytes(4 * WIDTH * SIZE))
    found(small)
    (used,) = (
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmSize")
    )
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + int(allowed), most))
    try:
        np.fromfile(path, np.float32)
    except MemoryError:
        value, gradient = found(path)[:2]
        print(json.dumps([float(value), float(gradient["rate"]), gradient["weight"].tolist()]))
    else:
        raise AssertionError("the whole file fits into the memory allowed")


if __name__ == "__main__":
    main(*sys.argv[1:])

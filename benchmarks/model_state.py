"""What a state beside the weights costs: `python -m benchmarks.model_state`.

Value and hypergradient of a small batch-normalised convolutional network, whose running statistics
the score sees, as multiples of plain training of the same run; by `Training` with its state, and by
`hg.unroll` with all of it in one state.
"""

import argparse
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from rich.console import Console
from rich.table import Table

import hindgrad as hg
from benchmarks.timing import medians

DECAY = 0.9


class Network(nn.Module):
    """Two convolutions, each normalised, on pictures of 16 × 16."""

    @nn.compact
    def __call__(self, x: Float[Array, "rows 16 16 1"], train: bool) -> Float[Array, "rows 10"]:
        for channels in (8, 16):
            x = nn.Conv(channels, (3, 3), strides=2)(x)
            x = jax.nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return nn.Dense(10)(x.reshape(len(x), -1))


class Problem:
    """Random pictures, of which only the shapes matter here."""

    def __init__(self, rows: int, size: int, steps: int):
        keys = jax.random.split(jax.random.key(0), 3)
        x = jax.random.normal(keys[0], (rows, 16, 16, 1))
        y = jax.random.randint(keys[1], (rows,), 0, 10)
        self.valid, self.steps, self.model = (x[:size], y[:size]), steps, Network()
        variables: Any = self.model.init(keys[2], x[:2], train=False)
        self.start = variables["params"], variables["batch_stats"]
        self.batches = hg.minibatches((x, y), size=size, key=1)

    def loss(self, params: Any, hyper: Any, batch: Any, state: Any):
        """The cross-entropy of a batch, and the statistics after it."""
        x, y = batch.data
        given = {"params": params, "batch_stats": state}
        out, after = self.model.apply(given, x, train=True, mutable=["batch_stats"])
        penalty = sum(jnp.sum(w**2) for w in jax.tree.leaves(params))
        return _cross_entropy(out, y) + hyper["decay"] * penalty, after["batch_stats"]

    def score(self, params: Any, hyper: Any, key: Any, state: Any):
        """By the running statistics."""
        del hyper, key
        x, y = self.valid
        out = self.model.apply({"params": params, "batch_stats": state}, x, train=False)
        return _cross_entropy(out, y)

    def step(self, state: Any, hyper: Any, t: Any):
        """A step of momentum, written by hand."""
        params, velocity, model = state
        of = lambda params: self.loss(params, hyper, self.batches(t), model)
        (loss, model), grads = jax.value_and_grad(of, has_aux=True)(params)
        velocity = jax.tree.map(lambda v, g: DECAY * v - (1 - DECAY) * g, velocity, grads)
        params = jax.tree.map(lambda p, v: p + hyper["rate"] * v, params, velocity)
        return (params, velocity, model), loss

    def unrolled(self, hyper: Any, adjoint: hg.Adjoint):
        """The run by `hg.unroll`."""
        params, model = self.start
        state = params, jax.tree.map(jnp.zeros_like, params), model
        (params, _, model), _ = hg.unroll(self.step, state, hyper, self.steps, adjoint=adjoint)
        return self.score(params, hyper, None, model)

    def objective(self) -> hg.Objective:
        """The run by `Training`."""
        optimizer = hg.Momentum(lambda hyper, _: hyper["rate"], DECAY)
        training = hg.Training(
            self.loss, optimizer=optimizer, batches=self.batches, steps=self.steps
        )
        return hg.Objective(training, init=self.start, score=self.score)


def _cross_entropy(out, y):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(out), y[:, None], 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    p = Problem(args.rows, args.size, args.steps)
    hyper = {"rate": jnp.float32(0.1), "decay": jnp.float32(1e-4)}
    objective = p.objective()
    by = lambda run: jax.jit(jax.value_and_grad(run))
    programs = {
        "plain training": jax.jit(lambda h: objective(h)),
        "hg.unroll, Stored": by(lambda h: p.unrolled(h, hg.Stored())),
        "Training, Stored": by(lambda h: objective(h, adjoint=hg.Stored())),
        "Training, Reversible": by(lambda h: objective(h, adjoint=hg.Reversible())),
    }
    candidates = {name: lambda f=f: f(hyper) for name, f in programs.items()}
    seconds = medians(candidates, args.repeats)
    table = Table("", "seconds", "÷ training", "÷ unroll")
    for name, s in seconds.items():
        of = s / seconds["plain training"], s / seconds["hg.unroll, Stored"]
        table.add_row(name, f"{s:.3f}", *(f"{x:.2f}" for x in of))
    Console().print(table)
    values = {name: f(hyper) for name, f in programs.items() if name != "plain training"}
    for name, (value, gradient) in values.items():
        print(name, float(value), {k: float(g) for k, g in gradient.items()})


if __name__ == "__main__":
    main()

"""What attribution costs: `python -m benchmarks.attribution`.

The derivatives of one query and of many, in plain trainings; memory over the steps; retrainings
without examples, side by side against one after another.
"""

import argparse
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import hindgrad as hg
from benchmarks import problem
from benchmarks.jacobian import scores
from benchmarks.timing import medians
from hindgrad.attribution import retraining
from hindgrad.attribution.leaf import Leaf
from hindgrad.progress import Bar

NETWORKS = {
    "dense-24": problem.dense(24),  # 2,410 parameters
    "dense-128": problem.dense(128),
    "dense-512": problem.dense(512),
}
RATE, DECAY = 0.1, 0.9
ADJOINTS = {"Reversible": hg.Reversible(), "Stored": hg.Stored()}


class Weighed:
    """The training of a network with a weight for each of 1,280 rows, minibatches of 128; and the
    same by hand, without weights, as a `lax.scan`."""

    def __init__(self, name: str, steps: int):
        network = NETWORKS[name]
        self.network = network
        self.params = network.init(jax.random.key(0))
        x, y = problem.digits()
        batches = hg.minibatches((x[:1280], y[:1280]), size=problem.BATCH, key=0)

        def losses(params, x, y):
            logits = network.logits(params, x)
            return jax.nn.logsumexp(logits, -1) - logits[jnp.arange(len(y)), y]

        self.training = hg.Training(
            lambda params, hyper, batch: jnp.mean(
                hyper["weight"][batch.index] * losses(params, *batch.data)
            ),
            optimizer=hg.Momentum(RATE, DECAY),
            batches=batches,
            steps=steps,
        )
        self.hyper = {"weight": jnp.ones(1280)}

        @jax.jit
        def by_hand(params):
            def step(state, t):
                params, velocity = state
                loss = lambda params: jnp.mean(losses(params, *batches(t).data))
                value, grads = jax.value_and_grad(loss)(params)
                velocity = jax.tree.map(lambda v, g: DECAY * v - (1 - DECAY) * g, velocity, grads)
                params = jax.tree.map(lambda p, v: p + RATE * v, params, velocity)
                return (params, velocity), value

            zeros = jax.tree.map(jnp.zeros_like, params)
            return jax.lax.scan(step, (params, zeros), jnp.arange(steps))

        self.by_hand = by_hand

    def objective(self, count: int) -> hg.Objective:
        """With the losses of that many groups of rows as its score."""
        return hg.Objective(self.training, init=self.params, score=scores(self.network, count))


def queries(name: str, steps: int, counts: list[int], repeats: int) -> Table:
    """Time of an attribution in plain trainings."""
    run = Weighed(name, steps)
    candidates: dict[str, Callable[[], object]] = {"plain": lambda: run.by_hand(run.params)}
    for adjoint, way in ADJOINTS.items():
        for count in counts:
            objective = run.objective(count)
            call = lambda o=objective, way=way: hg.attribute(o, run.hyper, o.score, adjoint=way)
            candidates[f"{adjoint}, {count}"] = call
    seconds = medians(candidates, repeats)
    table = Table("adjoint, queries", "seconds", "÷ training", "÷ training and query")
    table.title = f"{name}, {steps} steps, medians of {repeats} interleaved"
    plain = seconds["plain"]
    for label, value in seconds.items():
        count = 1 if label == "plain" else int(label.split()[-1])
        cells = f"{value:.3f}", f"{value / plain:.2f}", f"{value / plain / count:.2f}"
        table.add_row(label, *cells)
    return table


def memory(name: str, lengths: list[int], count: int) -> Table:
    """What a compiled attribution takes beside its arguments and results."""
    table = Table("steps", *(f"{adjoint}, MB" for adjoint in ADJOINTS))
    table.title = f"{name}, {count} queries"
    for steps in lengths:
        run = Weighed(name, steps)
        objective, cells = run.objective(count), []
        for way in ADJOINTS.values():
            found = jax.jit(lambda h, o=objective, way=way: hg.jacobian(o, h, adjoint=way))
            taken = found.lower(run.hyper).compile().memory_analysis()
            cells.append("" if taken is None else f"{taken.temp_size_in_bytes / 1e6:.1f}")
        table.add_row(f"{steps:,}", *cells)
    return table


def retrainings(name: str, steps: int, runs: int, blocks: list[int], repeats: int) -> Table:
    """Time of retrainings without a hundredth of the rows."""
    run = Weighed(name, steps)
    objective, leaf = run.objective(8), Leaf(0, "weight")
    gone = np.random.default_rng(0).random((runs, 1280)) < 0.01
    quiet, key = Bar(runs, shown=False), jax.random.key(0)
    given = objective, run.hyper, leaf, gone, key

    def by_hand():
        for _ in range(runs):
            jax.block_until_ready(run.by_hand(run.params))

    candidates: dict[str, Callable[[], object]] = {"by hand, one after another": by_hand}
    for block in blocks:
        call = lambda block=block: retraining.retrained(*given, block=block, bar=quiet)
        candidates[f"{block} side by side"] = call
    seconds = medians(candidates, repeats)
    first = seconds[f"{blocks[0]} side by side"]
    table = Table("", "ms each", f"÷ {blocks[0]}")
    table.title = f"{name}, {steps} steps, {runs} runs, medians of {repeats} interleaved"
    for label, value in seconds.items():
        table.add_row(label, f"{1e3 * value / runs:.1f}", f"{value / first:.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["dense-24", "dense-128"])
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--lengths", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 8, 16])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    console = Console(width=100)
    for name in args.networks:
        console.print(queries(name, args.steps, args.queries, args.repeats))
        console.print(memory(name, args.lengths, max(args.queries)))
        console.print(retrainings(name, args.steps, 16, args.blocks, args.repeats))


if __name__ == "__main__":
    main()

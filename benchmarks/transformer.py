"""A GPT's hypergradient: compiling and running it: `python -m benchmarks.transformer`."""

import argparse
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import hindgrad as hg
from benchmarks.timing import medians
from experiments.text import gpt

CONTEXT, ROWS, DOCUMENTS = 64, 16, 50
EPS = 1e-4
ADJOINTS = {"Stored": hg.Stored(), "Reversible": hg.Reversible(min_decay=0.85)}


def make(
    steps: int,
    *,
    width: int,
    layers: int,
    text: np.ndarray,
    dtype: str = "bfloat16",
    place: Callable[[Any, str], Any] | None = None,
    shards: int | None = None,
) -> tuple[Any, Any, Any]:
    """(Objective, hyperparameters, the same as a `lax.scan` by hand): a schedule in three numbers,
    the decay of the weights, and a weight for each document. `place(tree, kind)` puts "params" and
    "rows" on devices."""
    schedule = hg.schedules.WarmupCosine(steps=steps)
    hyper = {
        "rate": schedule.init(peak=1e-3, warmup=steps / 10, end=1e-4),
        "log_decay": jnp.float32(-3.0),
        "weights": jnp.ones(DOCUMENTS),
    }
    rows = jnp.asarray(text[: len(text) // (CONTEXT + 1) * (CONTEXT + 1)].reshape(-1, CONTEXT + 1))
    whole = (len(rows) - ROWS) // ROWS * ROWS
    train, held_out = rows[:whole], rows[-ROWS:]
    sizes = {"context": CONTEXT, "width": width, "layers": layers}
    vocabulary = int(text.max()) + 1
    model = gpt.GPT(vocabulary, **sizes, key=jax.random.key(0), dtype=dtype)
    if place is not None:
        train, model = place(train, "rows"), place(model, "params")

    def loss(model, hyper, batch):
        logits = model(batch.data[:, :-1], 0.1, batch.key)
        weights = hyper["weights"][batch.index * DOCUMENTS // len(train)]
        return jnp.mean(weights * gpt.cross_entropy(logits, batch.data[:, 1:]))

    batches = hg.minibatches(train, size=ROWS, key=0)
    training = hg.Training(
        loss,
        optimizer=hg.Adam(
            lambda hyper, t: schedule(hyper["rate"], t),
            b2=0.99,
            eps=EPS,
            weight_decay=hg.Decoupled(lambda hyper, _: jnp.exp(hyper["log_decay"])),
        ),
        batches=batches,
        steps=steps,
        shards=shards,
    )

    def score(model, hyper, key):
        del hyper, key
        return jnp.mean(gpt.cross_entropy(model(held_out[:, :-1]), held_out[:, 1:]))

    def by_hand(hyper):
        params, static = eqx.partition(model, eqx.is_inexact_array)

        @jax.checkpoint
        def step(carry, t):
            params, mean, square = carry
            batch = batches(t)
            gradient = jax.grad(lambda p: loss(eqx.combine(p, static), hyper, batch))(params)
            mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradient)
            square = jax.tree.map(lambda s, g: 0.99 * s + 0.01 * g * g, square, gradient)
            rate, decay = schedule(hyper["rate"], t), jnp.exp(hyper["log_decay"])
            first, second = 1 - 0.9 ** (t + 1.0), 1 - 0.99 ** (t + 1.0)

            def moved(p, m, s):
                root = jnp.sqrt(s / second + 1e-30)
                return p - rate * (m / first / (root + EPS) + decay * p)

            return (jax.tree.map(moved, params, mean, square), mean, square), None

        zeros = jax.tree.map(jnp.zeros_like, params)
        (params, *_), _ = jax.lax.scan(step, (params, zeros, zeros), jnp.arange(steps))
        return score(eqx.combine(params, static), hyper, None)

    return hg.Objective(training, init=model, score=score), hyper, by_hand


def compiled(function: Any, hyper: Any) -> tuple[Any, float, float, int]:
    """The program, processor seconds of tracing and of compiling, and its lines before."""
    begin = time.process_time()
    lowered = jax.jit(function).lower(hyper)
    traced = time.process_time()
    program = lowered.compile()
    lines = lowered.as_text().count("\n")
    return program, traced - begin, time.process_time() - traced, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", help="a text file, such as tinyshakespeare.txt")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5, help="0 compiles only")
    args = parser.parse_args()
    with open(args.text, encoding="utf-8") as file:
        _, text = np.unique(list(file.read()), return_inverse=True)
    objective, hyper, by_hand = make(args.steps, width=args.width, layers=args.layers, text=text)
    candidates = {
        "training, lax.scan by hand": by_hand,
        "jax.grad of that, steps in jax.checkpoint": jax.value_and_grad(by_hand),
    }
    for name, adjoint in ADJOINTS.items():
        score = lambda hyper, adjoint=adjoint: objective(hyper, adjoint=adjoint)
        candidates[name] = jax.value_and_grad(score)
    programs = {name: compiled(function, hyper) for name, function in candidates.items()}
    calls = {name: lambda p=p: p(hyper) for name, (p, *_) in programs.items()}
    seconds = medians(calls, args.repeats) if args.repeats else dict.fromkeys(calls, float("nan"))
    size = sum(x.size for x in jax.tree.leaves(objective.init.trained))
    table = Table("", "trace", "compile", "÷ jax.grad", "lines", "run", "÷ training")
    table.title = f"GPT of {size} parameters, {args.steps} steps; processor seconds, medians"
    names = list(programs)
    whole = sum(programs[names[1]][1:3])
    for name, (_, trace, compile_, lines) in programs.items():
        ratios = (trace + compile_) / whole, seconds[name] / seconds[names[0]]
        numbers = [f"{trace:.1f}", f"{compile_:.1f}", f"{ratios[0]:.2f}", str(lines)]
        table.add_row(name, *numbers, f"{seconds[name]:.2f}", f"{ratios[1]:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()

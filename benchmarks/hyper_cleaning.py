"""The hypergradient of 5,000 example weights against plain training, and what it tells:
`python -m benchmarks.hyper_cleaning`.

The problem of Franceschi et al. 2017, section 5.1: softmax regression on 5,000 × 784 images, half
of whose labels are wrong, by full-batch gradient descent. Each number of threads has a process of
its own, pinned to as many cores.
"""

import argparse
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.metrics import roc_auc_score

import hindgrad as hg
from benchmarks.timing import medians
from experiments.franceschi2017 import hyper_cleaning


def measure(steps: int, repeats: int, seed: int) -> None:
    """Prints the figures of this process."""
    drawn = hyper_cleaning.draw(hyper_cleaning.DEFAULT, seed)
    n, pixels = drawn.train.x.shape

    def fit(params, images):
        scores = images.x @ params["w"] + params["b"][None]
        return optax.softmax_cross_entropy_with_integer_labels(scores, images.y)

    def loss(params, weights, images):
        return jnp.vdot(weights, fit(params, images)) / n

    rate = hyper_cleaning.DEFAULT.rate
    training = hg.Training(
        lambda params, weights, batch: loss(params, weights, batch.data),
        optimizer=hg.Momentum(rate, decay=0.0, convention=hg.HeavyBall()),
        batches=hg.full_batch(drawn.train),
        steps=steps,
    )
    start = {"w": jnp.zeros((pixels, drawn.classes)), "b": jnp.zeros(drawn.classes)}

    def score(weights):
        run = training(start, weights, adjoint=hg.Stored())
        return fit(run.params, drawn.valid).mean()

    def score_by_hand(weights):
        def step(params, _):
            grads = jax.grad(loss)(params, weights, drawn.train)
            return jax.tree.map(lambda p, g: p - rate * g, params, grads), None

        return fit(jax.lax.scan(step, start, length=steps)[0], drawn.valid).mean()

    weights = jnp.ones(n)
    by_hand = jax.jit(score_by_hand)
    train, differentiate = jax.jit(score), jax.jit(jax.value_and_grad(score))
    candidates = {
        "by hand": lambda: by_hand(weights),
        "training": lambda: train(weights),
        "value and hypergradient": lambda: differentiate(weights),
    }
    seconds = medians(candidates, repeats)
    hand, plain, both = seconds.values()
    auc = roc_auc_score(drawn.flipped, np.asarray(differentiate(weights)[1]))
    print(
        f"{len(os.sched_getaffinity(0))} thread(s), {steps} steps, medians of {repeats}: "
        f"training {plain:.3f} s, gradient descent by hand {hand:.3f} s, value and hypergradient "
        f"of {n:,} weights {both:.3f} s, {both / plain:.2f} × training; "
        f"AUC for wrong labels {auc:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if len(args.threads) == 1:
        # The backend makes its threads when it first starts, one for each core it may use.
        os.sched_setaffinity(0, cores[-args.threads[0] :])
        measure(args.steps, args.repeats, args.seed)
        return
    for threads in args.threads:
        options = ["--threads", threads, "--steps", args.steps, "--repeats", args.repeats]
        options += ["--seed", args.seed]
        command = [sys.executable, "-m", "benchmarks.hyper_cleaning", *map(str, options)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()

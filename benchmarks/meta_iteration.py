"""One iteration of learning an optimizer, against JAX by hand and eager PyTorch:
`python -m benchmarks.meta_iteration` (PyTorch is in the group "comparison"; without it, its rows
are left out).

The paper's LSTM (2 layers of 20 units) takes 20 steps on quadratics of 10 parameters; the
derivative of the sum of their losses goes back through these steps, the gradients counting as
constants, and Adam changes the weights. Random problems are drawn once for the rows by hand;
Hindgrad's draws them in every iteration, evaluates whether it diverged, and begins anew after 100
steps.
"""

import argparse
import importlib.util
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from rich.console import Console
from rich.table import Table

import hindgrad as hg
from benchmarks.timing import medians
from hindgrad.learned.gradients import Backpropagated, Episode
from hindgrad.learned.loop import advance

WINDOW, STEPS, SIZE, HIDDEN = 20, 100, 10, 20
LSTM = hg.learned.CoordinateLSTM(hidden=(HIDDEN, HIDDEN), preprocess=None)
CLIP, RATE = 1.0, 1e-3
OUTER = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(RATE))


def by_hindgrad(problems: int, iterations: int) -> Callable[[], object]:
    """What `hg.learned.fit` does."""
    family = hg.learned.Quadratics(SIZE)
    episode = Episode(LSTM, family, jnp.ones(STEPS), lambda losses: losses, problems)
    estimate = Backpropagated(episode, WINDOW, hg.Stored())
    key = jax.random.key(0)
    weights = LSTM.weights(key)
    carried = estimate.begin(weights, key)
    moving = (weights, OUTER.init(weights), carried, jnp.zeros(()), jnp.int32(0))
    stop = jnp.int32(iterations)
    return lambda: advance(estimate, OUTER, moving, key, jnp.int32(0), stop)


def by_scan(problems: int, iterations: int, remat: Callable) -> Callable[[], object]:
    """A `lax.scan` written by hand, `remat` on its body."""
    keys = jax.random.split(jax.random.key(0), 3)
    matrix = jax.random.normal(keys[0], (problems, SIZE, SIZE))
    target = jax.random.normal(keys[1], (problems, SIZE))
    weights = LSTM.weights(keys[2])

    def lstm(layer, x, state):
        h, c = state
        gates = jnp.concatenate([x, h], -1) @ layer["matrix"].T + layer["bias"]
        i, f, o, g = jnp.split(gates, 4, -1)
        c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    def loss(weights):
        def body(carry, _):
            theta, first, second = carry
            f = lambda theta: jnp.sum((jnp.einsum("pij,pj->pi", matrix, theta) - target) ** 2)
            value, grads = jax.value_and_grad(f)(theta)
            first = lstm(weights["layers"][0], jax.lax.stop_gradient(grads)[..., None], first)
            second = lstm(weights["layers"][1], first[0], second)
            output = weights["output"]
            update = second[0] @ output["matrix"].T + output["bias"]
            return (theta + 0.1 * update[..., 0], first, second), value

        zeros = jnp.zeros((problems, SIZE, HIDDEN))
        start = (jnp.zeros((problems, SIZE)), (zeros, zeros), (zeros, zeros))
        _, losses = jax.lax.scan(remat(body), start, None, length=WINDOW)
        return jnp.sum(losses) / problems

    def one(_, carry):
        weights, memory = carry
        updates, memory = OUTER.update(jax.grad(loss)(weights), memory)
        return optax.apply_updates(weights, updates), memory

    run = jax.jit(lambda weights, memory: jax.lax.fori_loop(0, iterations, one, (weights, memory)))
    return lambda: run(weights, OUTER.init(weights))


def by_torch(problems: int, iterations: int) -> Callable[[], object]:
    """Eager PyTorch, with its own LSTM cells and Adam."""
    import torch  # pyright: ignore[reportMissingImports]

    torch.manual_seed(0)
    matrix, target = torch.randn(problems, SIZE, SIZE), torch.randn(problems, SIZE)
    cells = torch.nn.ModuleList([torch.nn.LSTMCell(1, HIDDEN), torch.nn.LSTMCell(HIDDEN, HIDDEN)])
    head = torch.nn.Linear(HIDDEN, 1)
    weights = [*cells.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(weights, lr=RATE)

    def one():
        theta = torch.zeros(problems, SIZE, requires_grad=True)
        zeros = torch.zeros(problems * SIZE, HIDDEN)
        states, total = [(zeros, zeros), (zeros, zeros)], torch.zeros(())
        for _ in range(WINDOW):
            residual = torch.einsum("pij,pj->pi", matrix, theta) - target
            value = (residual**2).sum()
            (grads,) = torch.autograd.grad(value, theta, retain_graph=True)
            x = grads.detach().reshape(-1, 1)
            for k, cell in enumerate(cells):
                states[k] = cell(x, states[k])
                x = states[k][0]
            theta = theta + 0.1 * head(x).reshape(problems, SIZE)
            total = total + value
        optimizer.zero_grad()
        (total / problems).backward()
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        optimizer.step()

    def run():
        for _ in range(iterations):
            one()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, nargs="+", default=[1, 128])
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    for problems in args.problems:
        iterations = max(5, 200 // problems)
        candidates = {
            "hg.learned.fit": by_hindgrad(problems, iterations),
            "lax.scan, jax.checkpoint": by_scan(problems, iterations, jax.checkpoint),
            "lax.scan": by_scan(problems, iterations, lambda body: body),
        }
        if importlib.util.find_spec("torch"):
            candidates["eager PyTorch"] = by_torch(problems, iterations)
        seconds = medians(candidates, args.repeats)
        table = Table("", "ms an iteration", "÷ hg.learned.fit")
        table.title = f"{problems} quadratics, medians of {args.repeats}"
        for name, value in seconds.items():
            ratio = value / seconds["hg.learned.fit"]
            table.add_row(name, f"{1e3 * value / iterations:.2f}", f"{ratio:.2f}")
        Console(width=100).print(table)


if __name__ == "__main__":
    main()

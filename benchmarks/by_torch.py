"""The run by momentum of `benchmarks.problem` in PyTorch, through its own graph."""

import importlib.util
from collections.abc import Callable

import numpy as np
from jaxtyping import PyTree

from benchmarks.problem import BATCH

IS_INSTALLED = importlib.util.find_spec("torch") is not None


def candidates(params: PyTree, steps: int) -> dict[str, Callable[[], object]]:
    """Training of a `problem.dense` network from these parameters, and the hypergradient of its
    rates and its penalty; nothing where PyTorch is missing."""
    if not IS_INSTALLED:
        return {}
    import torch  # pyright: ignore[reportMissingImports]
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16, dtype=torch.float32), torch.tensor(y)
    begin = {name: torch.tensor(np.array(p)) for name, p in params.items()}

    def logits(params, x):
        for i in (1, 2):
            x = torch.tanh(x @ params[f"w{i}"] + params[f"b{i}"])
        return x @ params["w3"] + params["b3"]

    def run(rates, log_l2, *, create_graph):
        now = {name: p.clone().requires_grad_() for name, p in begin.items()}
        velocity = {name: torch.zeros_like(p) for name, p in now.items()}
        for t in range(steps):
            rows = slice(t % 10 * BATCH, (t % 10 + 1) * BATCH)
            penalty = sum((p * p).sum() for p in now.values())
            loss = torch.nn.functional.cross_entropy(logits(now, x[rows]), y[rows])
            loss = loss + 0.5 * torch.exp(log_l2) * penalty
            grads = torch.autograd.grad(loss, list(now.values()), create_graph=create_graph)
            for name, g in zip(list(now), grads, strict=True):
                velocity[name] = 0.9 * velocity[name] - 0.1 * g
                now[name] = now[name] + rates[t] * velocity[name]
                if not create_graph:
                    now[name] = now[name].detach().requires_grad_()
        return torch.nn.functional.cross_entropy(logits(now, x[1280:]), y[1280:])

    def plain():
        return run(torch.full((steps,), 0.1), torch.tensor(-7.0), create_graph=False)

    def hypergradient():
        rates = torch.full((steps,), 0.1, requires_grad=True)
        log_l2 = torch.tensor(-7.0, requires_grad=True)
        run(rates, log_l2, create_graph=True).backward()
        return rates.grad, log_l2.grad

    return {"PyTorch, training": plain, "PyTorch, create_graph": hypergradient}

"""What a hypergradient asks of each of several devices: `python -m benchmarks.devices TEXT`.

Counted, not timed, by the compiler for simulated devices, of `Stored` / `Reversible`: operations,
memory, and the bytes that a device sends in a step, forward and back (with ring algorithms: an
all-reduce of n bytes over d devices sends 2 n (d − 1) / d, an all-gather or a reduce-scatter half).
"""

import argparse
import functools
import itertools
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import hindgrad as hg
from benchmarks import transformer

STEPS = 64
COLLECTIVES = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1, "all-to-all": 1}
"""How many times the bytes of the whole array go over the network, times (d − 1) / d."""
BYTES = {"f64": 8, "s64": 8, "u64": 8, "f32": 4, "s32": 4, "u32": 4, "bf16": 2, "f16": 2, "pred": 1}


class Counted(NamedTuple):
    """Of one device."""

    memory: int
    operations: float
    sent: float
    """Bytes a step."""


def sent(text: str, devices: int, steps: int) -> float:
    """The bytes that a device sends in a step of a compiled program's loops over the steps."""
    bodies, name = {}, ""
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            name = line.removeprefix("ENTRY ").split(" ")[0].lstrip("%")
            bodies[name] = []
        elif name:
            bodies[name].append(line)

    def of(name):
        total = 0.0
        for line in bodies[name]:
            found = re.search(r" = (.*?) ([a-z-]+)\(", line)
            if found and found[2].removesuffix("-start") in COLLECTIVES:
                kind = found[2].removesuffix("-start")
                size = sum(map(_bytes, re.findall(r"([a-z0-9]+)\[([\d,]*)\]", found[1])))
                size //= 2 if found[2].endswith("-start") else 1  # what goes in is named, too
                groups = devices if kind == "reduce-scatter" else 1  # it says what is left of it
                total += COLLECTIVES[kind] * size * groups * (devices - 1) / devices
            for inner in re.findall(r"(?:body|to_apply|calls)=%?([\w.-]+)", line):
                count = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
                total += of(inner) * (int(count[1]) if count else 1)
        return total

    entry = next(reversed(bodies))
    return of(entry) / steps


def _bytes(shape):
    kind, sizes = shape
    return BYTES.get(kind, 0) * math.prod(int(n) for n in sizes.split(",") if n)


def counted(make: Callable[..., Any], adjoint: Any, devices: int, split: str, **options) -> Counted:
    """A hypergradient's program; `split` says what is: "rows", "params", or "rows and params"."""
    mesh = jax.make_mesh(
        (devices,), ("d",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices]
    )

    def spec(x, kind):
        """Rows are split by the first axis, parameters by the longest that can be."""
        sizes = x.shape[: 1 if kind == "rows" else None] if kind in split else ()
        whole = [axis for axis, n in enumerate(sizes) if n % devices == 0]
        if devices == 1 or not whole:
            return PartitionSpec()
        return PartitionSpec(*[None] * max(whole, key=lambda axis: sizes[axis]), "d")

    def place(tree, kind):
        put = lambda x: jax.device_put(x, NamedSharding(mesh, spec(x, kind)))
        return jax.tree.map(lambda x: put(x) if isinstance(x, jax.Array) else x, tree)

    with jax.set_mesh(mesh):
        objective, hyper = make(place=place, **options)
        value = jax.value_and_grad(lambda hyper: objective(hyper, adjoint=adjoint))
        program = jax.jit(value).lower(hyper).compile()
    used: Any = program.memory_analysis()
    memory = used.temp_size_in_bytes + used.argument_size_in_bytes + used.output_size_in_bytes
    operations: Any = program.cost_analysis()
    return Counted(memory, operations["flops"], sent(program.as_text() or "", devices, STEPS))


def mlp(
    place: Callable[[Any, str], Any],
    shards: int | None = None,
    width: int = 512,
    layers: int = 4,
    scanned: bool = False,
) -> tuple[Any, Any]:
    """Batches of 64 rows, momentum. Layers in a `scan` are gathered one by one, on the way back
    once more."""
    keys = jax.random.split(jax.random.key(0), layers + 1)
    draw = lambda key, n: jax.random.normal(key, (n, width)) / width**0.5
    params = [draw(key, width) for key in keys[1:]]
    params = place(jnp.stack(params) if scanned else params, "params")
    rows = place(draw(keys[0], 256), "rows")
    layer = lambda x, w: jnp.tanh(x @ w)

    def loss(params, hyper, batch):
        x = batch.data
        if scanned:
            each = jax.checkpoint(lambda x, w: (layer(x, w), None))
            x, _ = jax.lax.scan(each, x, params)
        else:
            x = functools.reduce(layer, params, x)
        return jnp.mean(x**2) * hyper["scale"]

    training = hg.Training(
        loss,
        optimizer=hg.Momentum(lambda hyper, _: hyper["rate"], 0.9),
        batches=hg.minibatches(rows, size=64, key=0),
        steps=STEPS,
        shards=shards,
    )

    def score(params, hyper, key):
        del hyper, key
        return jnp.sum(jnp.stack([jnp.sum(w**2) for w in jax.tree.leaves(params)]))

    hyper = {"scale": jnp.float32(1), "rate": jnp.float32(0.1)}
    return hg.Objective(training, init=params, score=score), hyper


def gpt(text: str) -> Callable[..., Any]:
    """The GPT of `benchmarks.transformer`."""
    with open(text, encoding="utf-8") as file:
        _, tokens = np.unique(list(file.read()), return_inverse=True)

    def make(**options):
        sizes = {"width": 128, "layers": 4, "dtype": "float32"}
        return transformer.make(STEPS, **sizes, text=tokens, **options)[:2]

    return make


PARAMETERS, TOKENS = 1e9, 2**20
"""Of a language model, and of a batch of it."""
SPEED, LINK = 4e14, 5e10
"""Operations and bytes a second: of a device, and of what connects it to the others."""
SUMS = {"`Stored`": 3, "`Reversible`": 4, "`Reversible`, `shards`": 6}
"""Gradients summed over the devices in a step, forward and back, in sets of float32 (measured on
the MLP above: 2.8, 3.8 and 5.1)."""


def planned() -> None:
    """A table of the time of a step by counting, with nothing sent while something is computed."""
    devices = [8, 16, 32, 64, 128, 256]
    print("| | " + " | ".join(map(str, devices)) + " |\n|" + "---|" * (len(devices) + 1))
    compute = [4 * 6 * PARAMETERS * TOKENS / SPEED / d for d in devices]
    print("| computed, s | " + " | ".join(f"{x:.2f}" for x in compute) + " |")
    for name, sums in SUMS.items():
        send = [2 * sums * 4 * PARAMETERS * (d - 1) / d / LINK for d in devices]
        share = [x / (x + y) for x, y in zip(compute, send, strict=True)]
        print(f"| share of it in a step, {name} | " + " | ".join(f"{x:.0%}" for x in share) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", help="a text file, such as tinyshakespeare.txt")
    args = parser.parse_args()
    adjoints = hg.Stored(), hg.Reversible(min_decay=0.85)
    names = "devices", "memory ÷ its share", "operations, the same", "sent a step, MB"
    print("| network | split | " + " | ".join(names) + " |\n" + "|---" * 6 + "|")
    splits = "rows", "rows and params"
    cases = list(itertools.product(splits, (None, 8)))
    scanned = functools.partial(mlp, width=256, layers=16, scanned=True)
    networks = {
        "MLP, 4 layers, 1.0 M": mlp,
        "MLP, 16 layers in a scan, 1.0 M": scanned,
        "GPT, 4 layers, .8 M": gpt(args.text),
    }
    for network, make in networks.items():
        ones = [counted(make, adjoint, 1, "rows") for adjoint in adjoints]
        for (split, shards), devices in itertools.product(cases, (4, 8)):
            if shards and devices < shards:
                continue
            found = [counted(make, a, devices, split, shards=shards) for a in adjoints]
            shares = [
                (devices * x.memory / one.memory, devices * x.operations / one.operations)
                for x, one in zip(found, ones, strict=True)
            ]
            columns = *zip(*shares, strict=True), [x.sent / 1e6 for x in found]
            cells = [" / ".join(f"{x:.3g}" for x in column) for column in columns]
            how = split + (f", `shards={shards}`" if shards else "")
            print("| " + " | ".join([network, how, str(devices), *cells]) + " |", flush=True)
    print()
    planned()


if __name__ == "__main__":
    flag = "--xla_force_host_platform_device_count=8"
    if flag not in os.environ.get("XLA_FLAGS", ""):
        environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}"}
        again = [sys.executable, "-m", "benchmarks.devices", *sys.argv[1:]]
        sys.exit(subprocess.run(again, env=environment, check=False).returncode)
    main()

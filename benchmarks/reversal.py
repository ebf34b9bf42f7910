"""The toy path run backwards, in floats and exactly: `python -m benchmarks.reversal PICTURE`."""

import argparse

import jax
import jax.numpy as jnp
import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from hindgrad.exact import buffer, decay, fixed_point

STEPS, RATE, DECAY = 150, float(np.exp(-5.5)), 0.75
START = (1.4, 3.9)


def valley(w):
    y, x = w
    r = 100 * (x - y**2) ** 2 + (1 - y) ** 2 + 200 * y
    return 800 * jax.nn.sigmoid(r / 500)


gradient = jax.jit(jax.grad(valley))


def in_floats(dtype):
    """Positions forward, and backward by solving each step for the state before it."""
    w, v = jnp.array(START, dtype), jnp.zeros(2, dtype)
    rate, kept = jnp.asarray(RATE, dtype), jnp.asarray(DECAY, dtype)
    forward = [w]
    for _ in range(STEPS):
        v = kept * v - (1 - kept) * gradient(w)
        w = w + rate * v
        forward.append(w)
    backward = [w]
    for _ in range(STEPS):
        w = w - rate * v
        v = (v + (1 - kept) * gradient(w)) / kept
        backward.append(w)
    return np.array(forward, float), np.array(backward, float)[::-1]


def exactly():
    """The same in fixed point, with what the decays lose in a buffer."""
    bits = decay.bits_lost(jnp.float64(DECAY), jnp.float64(1 - DECAY))
    w = fixed_point.encode(jnp.array(START), fixed_point.BITS, 0)
    v = fixed_point.encode(jnp.zeros(2), fixed_point.BITS, 0, jnp.float64(0))
    lanes = buffer.empty(jnp.zeros(2), buffer.rows_for(STEPS * float(bits) * decay.QUANTUM))
    real = lambda x: fixed_point.decode(x, jnp.float64)
    forward, pushed = [real(w)], []
    for t in range(STEPS):
        v, lanes, push = buffer.multiply(v, lanes, bits)
        v = fixed_point.add(v, -(1 - DECAY) * gradient(real(w)), t)
        w = fixed_point.add(w, RATE * real(v), t)
        forward.append(real(w))
        pushed.append(push)
    backward = [real(w)]
    for push in reversed(pushed):
        w = fixed_point.subtract(w, RATE * real(v))
        v = fixed_point.subtract(v, -(1 - DECAY) * gradient(real(w)))
        v, lanes = buffer.divide_back(v, lanes, bits, push)
        backward.append(real(w))
    return np.array(forward), np.array(backward)[::-1]


def draw(path: str) -> None:
    ways = {
        "float16": (in_floats(jnp.float16), "#c44e52"),
        "float32": (in_floats(jnp.float32), "#dd8452"),
        "float64": (in_floats(jnp.float64), "#937860"),
        "Reversible": (exactly(), "#2a6fb0"),
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    there, naive = ways["float32"][0]
    _draw_path(left, there, naive, ways["Reversible"][0][1])
    for name, ((forward, backward), colour) in ways.items():
        apart = np.linalg.norm(forward - backward, axis=1)
        apart = np.where(np.isfinite(apart), np.clip(apart, 1e-17, 1e3), 1e3)
        right.semilogy(apart, color=colour, label=name, lw=3 if name == "Reversible" else 1.6)
        print(f"{name}: {apart[0]:.3g} from the start")
    right.set(xlabel="step", ylabel="distance from the way there", xlim=(STEPS, 0))
    right.annotate("0, to the bit", (STEPS * 0.6, 3e-17), color=ways["Reversible"][1])
    right.set_title("How far off, on the way back (read from left to right)", fontsize=10)
    right.legend(frameon=False)
    figure.savefig(path, dpi=130)


def _draw_path(axes, forward, naive, exact):
    low, high = (-2.6, -1.5), (2.6, 5.5)
    y, x = np.meshgrid(np.linspace(low[0], high[0], 120), np.linspace(low[1], high[1], 120))
    axes.contour(y, x, np.asarray(valley((y, x))), 22, colors="#cccccc", linewidths=0.7)
    axes.plot(*forward.T, color="black", lw=4, alpha=0.25, label="there")
    axes.plot(*exact.T, color="#2a6fb0", lw=1.6, label="back, Reversible")
    axes.plot(*naive.T, color="#dd8452", lw=1.6, ls="--", label="back, in float32")
    axes.plot(*START, "ko", ms=5)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="y", ylabel="x")
    axes.set_title(f"Momentum {DECAY} for {STEPS} steps, and back", fontsize=10)
    axes.legend(frameon=False, loc="lower left")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", nargs="?", default="docs/images/reversal.png")
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    draw(args.picture)


if __name__ == "__main__":
    main()

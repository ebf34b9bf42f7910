"""Timings for the scripts beside this file."""

import statistics
import time

import jax


def microseconds(candidates, x, rounds=15, times=100):
    """For each function `x -> number`, by its name: microseconds of a call and of the addition that
    makes the next call depend on it; medians of interleaved rounds. They are printed too."""

    def repeated(function):
        again = lambda _, x: x + 0 * function(x)
        return jax.jit(lambda x: jax.lax.fori_loop(0, times, again, x)[0, 0])

    programs = {name: repeated(function) for name, function in candidates.items()}
    seconds = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            begin = time.perf_counter()
            jax.block_until_ready(program(x))
            seconds[name].append(time.perf_counter() - begin)
    found = {name: 1e6 * statistics.median(each) / times for name, each in seconds.items()}
    print(", ".join(f"{name} {value:.0f} us" for name, value in found.items()))
    return found

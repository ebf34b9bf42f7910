"""One of two processes, each with two devices: `python two_processes.py RANK PORT WHAT`."""

import faulthandler
import os
import sys
import time

import numpy as np

rank, port, what = int(sys.argv[1]), sys.argv[2], sys.argv[3]
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
)
faulthandler.dump_traceback_later(90, exit=True)

import jax  # noqa: E402

jax.config.update("jax_enable_preemption_service", False)  # SIGTERM ends the process
jax.distributed.initialize(f"localhost:{port}", 2, rank, heartbeat_timeout_seconds=10)

import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from jax.sharding import NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402

import hindgrad as hg  # noqa: E402

ROWS = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))


def on_all(array, spec):
    """Of rows that each process has its own half of, or of what each has whole."""
    sharding = NamedSharding(mesh, spec)
    local = np.array_split(array, 2)[rank] if spec else array
    return jax.make_array_from_process_local_data(sharding, local, array.shape)


def objective_of(rows, params, batches=None):
    """It closes over the rows, in the score."""
    training = hg.Training(
        lambda p, h, batch: jnp.mean((batch.data @ p - 1) ** 2) + h["l2"] * jnp.sum(p**2),
        optimizer=hg.Momentum(lambda h, t: h["rate"], 0.9),
        batches=hg.minibatches(rows, size=8, key=0) if batches is None else batches,
        steps=5,
    )
    score = lambda p, h, key: jnp.mean((rows @ p - 1) ** 2)
    return hg.Objective(training, init=params, score=score)


def report(name, function):
    began = time.monotonic()
    try:
        result = " ".join(
            f"{float(x):.6g}" for leaf in jax.tree.leaves(function()) for x in np.ravel(leaf)
        )
    except Exception as error:
        result = f"raised {type(error).__name__}: {error}".replace("\n", " ")
    print(f"{name}: {result} [{time.monotonic() - began:.0f} s]", flush=True)


def drawn_by_callback(t):
    struct = jax.ShapeDtypeStruct((8, 4), jnp.float32)
    rows = jax.pure_callback(lambda t: ROWS[:8], struct, t)
    return hg.full_batch(rows)(t)


rows, params = on_all(ROWS, P("d")), on_all(np.ones(4, np.float32), P())
objective, hyper = objective_of(rows, params), {"l2": 0.01, "rate": 0.1}
if what == "values":
    for adjoint in (hg.Checkpointed(slots=2), hg.Reversible()):
        name = type(adjoint).__name__
        value = lambda hyper, adjoint=adjoint: objective(hyper, adjoint=adjoint)
        report(name, lambda value=value: jax.value_and_grad(value)(hyper))
    tuned = lambda: hg.tune(objective, hyper, optax.adam(0.01), steps=2, progress=True).hyper
    report("tune", tuned)
elif what == "keeps":

    class Stopped(Exception):
        """As a kill would."""

    def stop(record, hyper):
        if record.step == 1:
            raise Stopped

    def tuned(directory, on_step=None):
        return hg.tune(
            objective,
            hyper,
            optax.adam(0.01),
            steps=3,
            checkpoint=directory,
            on_step=on_step,
            progress=False,
        ).hyper

    directory = sys.argv[4]
    report("whole", lambda: tuned(None))
    report("stopped", lambda: tuned(f"{directory}/tune", stop))
    report("resumed", lambda: tuned(f"{directory}/tune"))
    report(
        "other",
        lambda: hg.tune(objective, hyper, optax.adam(1), steps=3, checkpoint=f"{directory}/tune"),
    )

    def fitted(directory, stop=False):
        def on_step(evaluation, weights):
            if stop and evaluation.iteration == 2:
                raise Stopped

        return hg.learned.fit(
            hg.learned.RelativeLSTM(hidden=(3,)),
            hg.learned.Quadratics(size=3),
            steps=6,
            unroll=3,
            batch=2,
            iterations=4,
            evaluations=2,
            every=2,
            checkpoint=directory,
            progress=False,
            on_step=on_step,
        ).weights

    report("fit", lambda: fitted(None))
    report("fit stopped", lambda: fitted(f"{directory}/fit", stop=True))
    report("fit again", lambda: fitted(f"{directory}/fit"))
    for name, checkpoint in {
        "memory": None,
        "disk": f"{directory}/run",
        "again": f"{directory}/run",
    }.items():
        found = lambda checkpoint=checkpoint: hg.hypergradient(
            objective, hyper, adjoint=hg.Reversible(), segments=2, checkpoint=checkpoint
        )
        report(name, found)
elif what == "reads":
    read = []

    def decode(row):
        read.append(1)
        return row

    def failing(row):
        decode(row)
        if rank == 1 and len(read) > 3:
            raise OSError("a disk is gone")
        return row

    def found(decode, split):
        batches = hg.stream(ROWS, size=8, key=0, decode=decode, split=split)
        objective = objective_of(rows, params, batches)
        return hg.hypergradient(objective, hyper, adjoint=hg.Reversible(), segments=2)

    halves = NamedSharding(mesh, P("d"))
    report("split", lambda: found(decode, halves))
    print(f"count: {len(read) - 1} [0 s]", flush=True)  # one to know what a row is like
    report("whole", lambda: found(None, None))
    read.clear()
    report("failed", lambda: found(failing, halves))
    own = hg.recorded([ROWS[:8] + rank] * 5)
    report("others", lambda: hg.hypergradient(objective_of(rows, params, own), hyper, segments=1))
    report("after", lambda: found(None, halves))
elif what == "fails":
    backwards = lambda: objective(hyper | {"rate": 1e9}, adjoint=hg.Reversible())
    report("run", backwards)
    value = lambda hyper: objective(hyper, adjoint=hg.Reversible())
    report("gradient", lambda: jax.grad(value)(hyper | {"rate": 1e9}))
    found = lambda: objective.hypergradient(hyper | {"rate": 1e9}, adjoint=hg.Reversible())
    report("status", lambda: found().status.numbers)
    report("callback", lambda: objective_of(rows, params, drawn_by_callback)(hyper))
    report("after", lambda: jax.value_and_grad(objective)(hyper))
elif what == "ends":
    tuned = lambda: (
        hg.tune(
            objective,
            hyper,
            optax.adam(1e-9),
            steps=10**6,
            on_step=lambda *_: print("step", flush=True),
        ).hyper
    )
    report("tune", tuned)

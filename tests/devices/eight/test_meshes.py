"""One hypergradient over a mesh: the values of one device, wherever parameters and rows are."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import hindgrad as hg
from devices.eight.conftest import of_kind
from devices.eight.networks import (
    DATA,
    FSDP,
    ROWS,
    TENSOR,
    assert_same,
    hypergradient,
    momentum,
    on_one_device,
    placed,
)

ADJOINTS = {
    "Stored": hg.Stored(),
    "activations": hg.Stored(activations=2**20),
    "Checkpointed": hg.Checkpointed(slots=2),
    "Reversible": hg.Reversible(),
    "Forward": hg.Forward(),
    "Truncated": hg.Truncated(3),
}
PLACINGS = {"data": DATA, "fsdp": FSDP, "tensor": TENSOR}


@pytest.mark.parametrize("name", ADJOINTS)
def test_adjoints(explicit, name):
    options = {"adjoint": ADJOINTS[name], "optimizer": momentum()}
    assert_same(hypergradient(explicit, FSDP, **options), on_one_device(**options))


PLACINGS = {"data": DATA, "fsdp": FSDP, "tensor": TENSOR}


@pytest.mark.parametrize("name", PLACINGS)
def test_placings_on_an_automatic_mesh(name):
    options = {"adjoint": hg.Checkpointed(slots=2), "optimizer": momentum()}
    assert_same(hypergradient(of_kind("auto"), PLACINGS[name], **options), on_one_device(**options))


def test_tensor_parallel(explicit):
    options = {"adjoint": hg.Checkpointed(slots=2), "optimizer": momentum()}
    assert_same(hypergradient(explicit, TENSOR, **options), on_one_device(**options))


def test_clipped_adam_backwards(explicit):
    def found(w, rows):
        training = hg.Training(
            lambda w, h, batch: jnp.mean((jnp.tanh(batch.data @ w) - 1) ** 2),
            optimizer=hg.Adam(lambda h, t: h, clip=hg.ClipByGlobalNorm(0.1)),
            batches=hg.minibatches(rows, size=16, key=0),
            steps=4,
        )
        run = lambda h: jnp.sum(training(w, h, adjoint=hg.Reversible()).params ** 2)
        return jax.jit(jax.grad(run))(jnp.float32(0.1))

    expected = found(jnp.eye(8), ROWS)
    put = lambda x: jax.device_put(x, NamedSharding(explicit, P("d")))
    with jax.set_mesh(explicit):
        assert_same(found(put(jnp.eye(8)), put(ROWS)), expected)


def test_optax(explicit):
    optimizer = hg.from_optax(lambda h: optax.adamw(h["rate"]))
    options = {"adjoint": hg.Stored(), "optimizer": optimizer}
    assert_same(hypergradient(explicit, FSDP, **options), on_one_device(**options), 1e-4)


def test_microbatches(mesh):
    options = {"adjoint": hg.Stored(), "optimizer": momentum(), "microbatch": 8}
    found = hypergradient(mesh, FSDP, **options)
    assert_same(found, on_one_device(**options))


def test_microbatches_of_the_full_batch_run_backwards(explicit):
    options = {"adjoint": hg.Reversible(), "optimizer": momentum(), "microbatch": 16}
    options["batches"] = hg.full_batch
    found = hypergradient(explicit, DATA, **options)
    assert_same(found, on_one_device(**options))


def test_shard_map_in_the_loss(mesh):
    def share(x, weights, w1, w2):
        errors = jnp.sum((jnp.tanh(x @ w1) @ w2 - x) ** 2, 1)
        return jax.lax.pmean(jnp.mean(weights * errors), "d")

    def shared(params, hyper, batch):
        specs = (P("d"), P("d"), P(), P())
        mean = jax.shard_map(share, mesh=mesh, in_specs=specs, out_specs=P())
        return mean(*batch.data, params["w1"], params["w2"]) + hyper["l2"] * jnp.sum(
            params["w1"] ** 2
        )

    def whole(params, hyper, batch):
        x, weights = batch.data
        errors = jnp.sum((jnp.tanh(x @ params["w1"]) @ params["w2"] - x) ** 2, 1)
        return jnp.mean(weights * errors) + hyper["l2"] * jnp.sum(params["w1"] ** 2)

    options = {"adjoint": hg.Reversible(), "optimizer": momentum()}
    found = hypergradient(mesh, DATA, loss=shared, **options)
    assert_same(found, on_one_device(loss=whole, **options))


def test_implicit(explicit):
    """The derivative of ridge regression's solution, against its closed form in float64."""
    x, y = ROWS, ROWS @ jnp.linspace(-1, 1, 8)
    put = lambda a: jax.device_put(a, NamedSharding(explicit, P("d")))

    def loss(params, hyper, batch):
        x, y = batch.data
        return jnp.mean((x @ params - y) ** 2) + hyper * jnp.sum(params**2)

    training = hg.Training(
        loss,
        optimizer=hg.Momentum(0.2, 0.8),
        batches=hg.full_batch((put(x), put(y))),
        steps=200,
    )
    objective = hg.Objective(
        training, init=put(jnp.zeros(8)), score=lambda params, hyper, key: jnp.sum(params**2)
    )
    with jax.set_mesh(explicit):
        found = jax.jit(jax.grad(lambda h: objective(h, adjoint=hg.Implicit())))(jnp.float32(0.1))
        warm = objective.hypergradient(jnp.float32(0.1), adjoint=hg.Implicit())
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    matrix = x.T @ x / 32 + 0.1 * np.eye(8)
    solution = np.linalg.solve(matrix, x.T @ y / 32)
    expected = -2 * solution @ np.linalg.solve(matrix, solution)
    np.testing.assert_allclose(float(found), expected, rtol=1e-4)
    np.testing.assert_allclose(float(warm.gradient), expected, rtol=1e-4)


def test_a_loop_in_float64(explicit):
    """Against the same run written by hand, differentiated by JAX, on one device."""
    with jax.enable_x64(True), jax.set_mesh(explicit):
        put = lambda a, spec: jax.device_put(
            np.asarray(a, np.float64), NamedSharding(explicit, spec)
        )
        w, x = put(np.eye(8), P("d")), put(ROWS, P("d"))
        loss = lambda w, h, x: jnp.mean((jnp.tanh(x @ w) - 1) ** 2) + h * jnp.sum(w**2)
        batches = hg.minibatches(x, size=8, key=1)
        training = hg.Training(
            lambda w, h, batch: loss(w, h, batch.data),
            optimizer=hg.Momentum(0.3, 0.9, convention=hg.HeavyBall()),
            batches=batches,
            steps=5,
        )
        run = lambda h: jnp.sum(training(w, h, adjoint=hg.Reversible()).params ** 2)
        found = float(jax.jit(jax.grad(run))(0.1))
        one = [np.asarray(ROWS, np.float64)[np.asarray(batches(t).index)] for t in range(5)]
    with jax.enable_x64(True):

        def by_hand(h):
            w, v = jnp.eye(8), jnp.zeros((8, 8))
            for x in one:
                v = 0.9 * v + jax.grad(loss)(w, h, x)
                w = w - 0.3 * v
            return jnp.sum(w**2)

        expected = float(jax.grad(by_hand)(0.1))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_second_call_is_not_traced_again(explicit):
    traced = []
    with jax.set_mesh(explicit):
        params, rows, hyper = placed(explicit, FSDP)

        def loss(params, hyper, batch):
            traced.append(1)
            return jnp.mean((batch.data @ params["w1"]) ** 2) * hyper["rate"]

        batches = hg.minibatches(rows, size=16, key=0)
        training = hg.Training(loss, optimizer=momentum(), batches=batches, steps=2)
        score = lambda params, hyper, key: jnp.mean((rows @ params["w1"]) ** 2)
        objective = hg.Objective(training, init=params, score=score)
        objective.hypergradient(jax.tree.map(lambda x: 2 * x, hyper))
        before = len(traced)
        objective.hypergradient(jax.tree.map(lambda x: 3 * x, hyper))
    assert before == len(traced)

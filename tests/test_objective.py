"""A start, a run and a score together."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
import problems

HYPER = {"rate": 0.3, "log_l2": -6.0, "scale": 1.2}
OPTIMIZER = hg.Momentum(lambda h, t: h["rate"], 0.9)


def init(hyper, key):
    return jax.tree.map(lambda p: p * hyper["scale"], problems.init(key))


def test_hypergradient_through_the_start(key, x64):
    """The direct dependence on hyper and the start's are part of the gradient."""
    objective = hg.Objective(
        problems.training(OPTIMIZER, 5),
        init=init,
        score=lambda params, hyper, key: problems.valid(params) + hyper["scale"] ** 2,
    )
    value, gradient = jax.value_and_grad(objective)(HYPER, key)
    assert value == objective(HYPER, key)
    for name in HYPER:
        plus, minus = ({**HYPER, name: HYPER[name] + s} for s in (1e-6, -1e-6))
        difference = (objective(plus, key) - objective(minus, key)) / 2e-6
        assert float(gradient[name]) == pytest.approx(float(difference), rel=1e-6, abs=1e-9)


def test_key_draws_training_and_score_alike(key):
    """Training and score see one key, so that they can share a split; the start sees another."""
    seen = {}

    def training(key):
        seen["training"] = jax.random.key_data(key)
        return problems.training(OPTIMIZER, 2)

    def start(hyper, key):
        seen["init"] = jax.random.key_data(key)
        return init(hyper, key)

    def score(params, hyper, key):
        seen["score"] = jax.random.key_data(key)
        return problems.valid(params)

    with jax.disable_jit():
        hg.Objective(training, init=start, score=score)(HYPER, key)
    np.testing.assert_array_equal(seen["training"], seen["score"])
    assert not np.array_equal(seen["training"], seen["init"])


def test_no_batch_has_the_key_of_the_start(key):
    """Though both are drawn from one key."""
    batches = hg.minibatches(jnp.zeros((4, 1)), size=2, key=key)
    taken = [jax.random.key_data(batches(t).key).tolist() for t in (0, 1, 2**31 - 1)]
    seen = []

    def start(hyper, key):
        seen.append(jax.random.key_data(key).tolist())
        return jnp.ones(())

    training = hg.Training(
        lambda w, h, batch: w * h["rate"], optimizer=OPTIMIZER, batches=lambda t: None, steps=1
    )
    with jax.disable_jit():
        hg.Objective(training, init=start, score=lambda w, h, key: w)(HYPER, key)
    assert seen
    assert not any(drawn in taken for drawn in seen)


def test_options(key):
    objective = hg.Objective(
        problems.training(OPTIMIZER, 6), init=init, score=lambda p, h, key: problems.valid(p)
    )
    assert objective(HYPER) == objective(HYPER, 0) == objective(HYPER, jax.random.key(0))
    assert objective(HYPER, 1) != objective(HYPER, 2)
    assert objective(HYPER, key, steps=2) != objective(HYPER, key)
    stored, replayed = (
        jax.grad(lambda h, a=a: objective(h, key, adjoint=a))(HYPER)["rate"]
        for a in (hg.Stored(), hg.Checkpointed(slots=2))
    )
    assert float(stored) == pytest.approx(float(replayed), rel=1e-5)
    values = jax.vmap(objective, in_axes=(None, 0))(HYPER, jax.random.split(key, 3))
    assert values.shape == (3,)
    assert len(set(values.tolist())) == 3
    assert objective.run(HYPER, key).losses.shape == (6,)


def test_a_module_is_a_start_not_a_function(key):
    network = eqx.nn.MLP(64, 10, 4, 1, key=key)
    loss = lambda net, h, batch: jnp.mean(jax.vmap(net)(batch[0]) ** 2)
    training = hg.Training(loss, optimizer=OPTIMIZER, batches=problems.batches, steps=2)
    objective = hg.Objective(training, init=network, score=lambda net, h, key: net(jnp.ones(64))[0])
    assert jnp.isfinite(objective(HYPER))


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (lambda bias: bias, r"score has shape \(10,\)"),
        (lambda bias: jnp.sum(bias > 0), "score has dtype int32; a float is needed"),
    ],
)
def test_score_must_be_a_scalar_float(score, words):
    objective = hg.Objective(
        problems.training(OPTIMIZER, 2), init=init, score=lambda p, h, key: score(p["out"]["b"])
    )
    with pytest.raises(ValueError, match=words):
        objective(HYPER)


def test_a_score_may_be_a_number():
    constant: Any = lambda params, hyper, key: 0.5
    objective = hg.Objective(problems.training(OPTIMIZER, 2), init=init, score=constant)
    for adjoint in (hg.Stored(), hg.PersistentEvolution(2, window=2, spread=0.1)):
        value, gradient = jax.value_and_grad(lambda h, a=adjoint: objective(h, adjoint=a))(HYPER)
        assert value == 0.5
        assert not any(gradient.values())


def test_without_a_score(key):
    """A run, with seed 0 unless another is given; its score is asked for by name."""
    training = hg.Training(
        lambda w, hyper, batch: jnp.sum((w[None] - batch.data) ** 2) * hyper,
        optimizer=hg.Momentum(0.1, decay=0.9),
        batches=hg.minibatches(jax.random.normal(key, (8, 2)), size=2, key=0),
        steps=4,
    )
    objective = hg.Objective(training, init=lambda hyper, key: jax.random.normal(key, (2,)))
    default, seeded, other = (objective.run(1.0, *given).params for given in ((), (0,), (1,)))
    assert jnp.all(default == seeded)
    assert jnp.all(default != other)
    with pytest.raises(ValueError, match=r"has no score: give Objective\(…, score=…\)"):
        objective(1.0)
    with pytest.raises(ValueError, match="has no score"):
        hg.jacobian(objective, 1.0)
    found = hg.attribute(objective, 1.0, lambda w, hyper, key: w)
    np.testing.assert_allclose(found.values, default, rtol=1e-5)

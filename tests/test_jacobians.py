"""Many scores of one run, differentiated together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
from hindgrad.adjoints import scores as module

ROWS = np.random.default_rng(0).normal(size=(40, 3))
TARGETS = np.tanh(ROWS @ [1.0, -2.0, 0.5])
HYPER = {"rate": np.full(12, 0.3), "decay": 0.6, "weight": np.linspace(0.5, 1.5, 32), "scale": 0.5}
ADJOINTS = {
    "stored": hg.Stored(),
    "checkpointed": hg.Checkpointed(slots=3),
    "reversible": hg.Reversible(min_decay=0.3),
    "forward": hg.Forward(),
    "truncated beyond the start": hg.Truncated(50),
}
TRAINING = hg.Training(
    lambda params, hyper, batch: jnp.mean(
        hyper["weight"][batch.index] * (network(params, batch.data[0]) - batch.data[1]) ** 2
    ),
    optimizer=hg.Momentum(lambda hyper, t: hyper["rate"][t], lambda hyper, t: hyper["decay"]),
    batches=hg.minibatches((ROWS[:32], TARGETS[:32]), size=8, key=0),
    steps=12,
)


def network(params, x):
    return jnp.tanh(x @ params["in"]) @ params["out"]


def init(hyper, key):
    first, second = jax.random.split(key)
    inner, outer = jax.random.normal(first, (3, 4)), jax.random.normal(second, (4,))
    return {"in": hyper["scale"] * inner, "out": hyper["scale"] * outer}


def errors(params, hyper, key):
    """The error at each of eight rows, and what the scale costs."""
    del key
    missed = (network(params, ROWS[32:]) - TARGETS[32:]) ** 2
    return jnp.append(missed, jnp.sum(params["out"] ** 2) * hyper["scale"])


def objective_of(score, **options):
    return hg.Objective(TRAINING, init=options.get("init", init), score=score)


def one_by_one(objective_of_pick, count):
    """The value and derivative of each score on a way back of its own: of their products with the
    rows of a unit matrix."""
    derived = jax.jit(lambda pick: jax.value_and_grad(objective_of_pick(pick))(HYPER))
    values, rows = zip(*map(derived, jnp.eye(count)), strict=True)
    return jnp.stack(values), jax.tree.map(lambda *rows: jnp.stack(rows), *rows)


def of_errors():
    return one_by_one(lambda pick: objective_of(lambda *args: errors(*args) @ pick), 9)


def assert_same(found, wanted, **near):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, **near)


@pytest.mark.parametrize("adjoint", ADJOINTS.values(), ids=ADJOINTS)
def test_each_score_as_on_its_own(x64, adjoint):
    found = hg.jacobian(objective_of(errors), HYPER, adjoint=adjoint)
    near = 1e-6 if isinstance(adjoint, hg.Reversible) else 1e-10
    assert_same(tuple(found), of_errors(), rtol=near, atol=near)


BLOCKS = {1: (9, 1), 4: (3, 3), 8: (2, 5), 9: (1, 9)}
"""Of nine scores."""


@pytest.mark.parametrize("adjoint", [hg.Stored(), hg.Reversible(min_decay=0.3)])
@pytest.mark.parametrize("together", BLOCKS, ids="{} together".format)
def test_in_blocks(x64, monkeypatch, adjoint, together):
    """Also where the last block is not full."""
    size, sizes, many = 2 * 16, [], module.ManyScores
    monkeypatch.setattr(module, "TOGETHER", together * size)
    made = lambda *args: sizes.append(many(*args)) or sizes[-1]
    monkeypatch.setattr(module, "ManyScores", made)
    jax.clear_caches()  # JAX keeps what the way back of a program is for many cotangents
    objective = objective_of(lambda *args: together * errors(*args))
    found = hg.jacobian(objective, HYPER, adjoint=adjoint)
    assert [(x.blocks, x.block) for x in sizes] == [BLOCKS[together]]
    wanted = jax.tree.map(lambda x: together * x, of_errors())
    assert_same(tuple(found), wanted, rtol=1e-6, atol=1e-6)


def test_scores_of_any_shape(x64):
    whole = hg.jacobian(objective_of(errors), HYPER)
    table = lambda *args: errors(*args)[:6].reshape(2, 3)
    found = hg.jacobian(objective_of(table), HYPER)
    wanted = jax.tree.map(lambda x: x[:6].reshape(2, 3, *x.shape[1:]), tuple(whole))
    assert_same(tuple(found), wanted, rtol=1e-12)
    scalar = hg.jacobian(objective_of(lambda *args: errors(*args)[0]), HYPER)
    assert scalar.values.shape == ()
    assert_same(scalar.jacobian, jax.tree.map(lambda x: x[0], whole.jacobian), rtol=1e-10)


@pytest.mark.parametrize("adjoint", [hg.Stored(), hg.Reversible(min_decay=0.3)])
def test_scores_of_the_whole_run(x64, adjoint):
    """The losses' cotangents go back by their steps."""

    def score(run, hyper, key):
        del key
        return jnp.stack([run.losses[3], jnp.sum(run.losses * hyper["rate"]), run.params["out"][0]])

    found = hg.jacobian(objective_of(hg.RunScore(score)), HYPER, adjoint=adjoint)

    picked = lambda pick: objective_of(hg.RunScore(lambda *args: score(*args) @ pick))
    assert_same(tuple(found), one_by_one(picked, 3), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("adjoint", [hg.Stored(), hg.Reversible(min_decay=0.3)])
def test_with_a_state_beside_the_weights(x64, adjoint):
    def loss(params, hyper, batch, state):
        mean, count, key = state
        x, y = batch.data
        mean = 0.9 * mean + 0.1 * jnp.mean(x @ params["in"], 0)
        predicted = jnp.tanh(x @ params["in"] - mean[None]) @ params["out"]
        value = jnp.mean(hyper["weight"][batch.index] * (predicted - y) ** 2)
        return value, (mean, count + 1, jax.random.fold_in(key, count))

    training = hg.Training(
        loss, optimizer=TRAINING.optimizer, batches=TRAINING.batches, steps=TRAINING.steps
    )

    def objective(pick):
        score = lambda params, hyper, key, state: pick(jnp.append(state[0], params["out"][0]))
        begin = lambda hyper, key: (init(hyper, key), (jnp.zeros(4), jnp.int32(0), key))
        return hg.Objective(training, init=begin, score=score)

    found = hg.jacobian(objective(lambda x: x), HYPER, adjoint=adjoint)
    wanted = one_by_one(lambda pick: objective(lambda x: x @ pick), 5)
    assert_same(tuple(found), wanted, rtol=1e-6, atol=1e-8)


def test_an_optimum(x64):
    """Each score has a linear system of its own."""
    ridge = lambda params, hyper, batch: (
        jnp.mean((ROWS @ params - TARGETS) ** 2) + hyper * jnp.sum(params**2)
    )
    training = hg.Training(
        ridge,
        optimizer=hg.Momentum(lambda hyper, t: 0.3, lambda hyper, t: 0.5),
        batches=lambda t: None,
        steps=300,
    )
    objective = hg.Objective(training, init=jnp.zeros(3), score=lambda params, *_: params)
    found = hg.jacobian(objective, 0.1, adjoint=hg.Implicit())
    gram = ROWS.T @ ROWS / 40 + 0.1 * np.eye(3)
    minimum = np.linalg.solve(gram, ROWS.T @ TARGETS / 40)
    np.testing.assert_allclose(found.values, minimum, rtol=1e-8)
    np.testing.assert_allclose(found.jacobian, -np.linalg.solve(gram, minimum), rtol=1e-6)


def test_by_jax_and_for_many_runs(x64):
    """`jax.jacrev` goes the same way, and `vmap` over runs an ordinary one."""
    trained = lambda hyper, adjoint: TRAINING(
        init(HYPER, jax.random.key(1)), hyper, adjoint=adjoint
    )
    outs = lambda hyper, adjoint: trained(hyper, adjoint).params["out"]
    by = lambda adjoint: jax.jacrev(lambda hyper: outs(hyper, adjoint))
    wanted = by(hg.Forward())(HYPER)
    for adjoint in (hg.Stored(), hg.Reversible(min_decay=0.3)):
        assert_same(by(adjoint)(HYPER), wanted, rtol=1e-6, atol=1e-8)
        scaled = lambda s, adjoint=adjoint: by(adjoint)(HYPER | {"decay": 0.6 * s})
        both = jax.vmap(scaled)(jnp.array([1.0, 0.9]))
        assert_same(jax.tree.map(lambda x: x[0], both), wanted, rtol=1e-6, atol=1e-8)


def test_a_run_that_cannot_be_undone():
    hyper = HYPER | {"decay": 0.2}
    with pytest.raises(RuntimeError, match="decay"):
        hg.jacobian(objective_of(errors), hyper, adjoint=hg.Reversible(min_decay=0.3))


def test_a_step_that_is_another_when_it_is_run_again():
    draws = np.random.default_rng(0)

    def impure(t):
        fresh = lambda t: draws.normal(size=(8, 3)).astype(np.float32)
        x = jax.pure_callback(fresh, jax.ShapeDtypeStruct((8, 3), jnp.float32), t)
        return x, jnp.tanh(x[:, 0])

    training = hg.Training(
        lambda params, hyper, batch: jnp.mean((network(params, batch[0]) - batch[1]) ** 2),
        optimizer=TRAINING.optimizer,
        batches=impure,
        steps=12,
    )
    objective = hg.Objective(training, init=init, score=errors)
    with pytest.raises(RuntimeError, match="another loss"):
        hg.jacobian(objective, HYPER, adjoint=hg.Stored())


def test_memory_is_that_of_the_scores_states():
    """One state for each further score, where the hyperparameters are few."""
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(64, 400)), jnp.float32)

    def temporary(count):
        objective = hg.Objective(
            hg.Training(
                lambda params, hyper, batch: jnp.mean((rows @ params) ** 2),
                optimizer=hg.Momentum(lambda hyper, t: hyper, lambda hyper, t: 0.9),
                batches=lambda t: None,
                steps=5,
            ),
            init=jnp.ones((400, 100)),
            score=lambda params, *_: params[:count, 0] ** 2,
        )
        found = jax.jit(lambda hyper: hg.jacobian(objective, hyper, adjoint=hg.Reversible()))
        return found.lower(jnp.float32(0.1)).compile().memory_analysis().temp_size_in_bytes

    state = 2 * 40_000 * 4
    assert temporary(64) - temporary(16) < 1.05 * 48 * state


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda params, *_: (params["out"], 1.0), "one array"),
        (lambda params, *_: jnp.argmax(params["out"]), "floats are needed"),
        (lambda params, *_: params["out"][:0], "nothing to differentiate"),
    ],
)
def test_refused_scores(score, message):
    with pytest.raises(ValueError, match=message):
        hg.jacobian(objective_of(score), HYPER)


def test_refused_ways():
    with pytest.raises(ValueError, match="estimates the derivative of one score"):
        hg.jacobian(objective_of(errors), HYPER, adjoint=hg.Evolution(pairs=2, spread=0.1))
    with pytest.raises(TypeError, match="take jax"):
        hg.jacobian(lambda hyper: hyper, HYPER)
    with pytest.raises(ValueError, match="many scores"):
        objective_of(errors)(HYPER)

"""A second axis of the mesh, for what is independent: runs with other settings, retrainings."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import hindgrad as hg
from devices.eight.networks import DATA, FSDP, PARAMS, ROWS, assert_same, momentum, network
from hindgrad.attribution import retraining

SETTINGS = {"rate": jnp.array([0.1, 0.2]), "weights": jnp.ones((2, 32))}
QUERIES = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)


def mesh_of(*kinds):
    return jax.make_mesh((2, 4), ("runs", "d"), axis_types=kinds)


def objective_of(params, rows, score, steps=6):
    def loss(params, hyper, batch):
        errors = jnp.sum((network(params, batch.data) - batch.data) ** 2, 1)
        return jnp.mean(hyper["weights"][batch.index] * errors)

    training = hg.Training(
        loss, optimizer=momentum(), batches=hg.minibatches(rows, size=16, key=0), steps=steps
    )
    return hg.Objective(training, init=params, score=score)


def error(params, hyper, key):
    return jnp.mean((network(params, QUERIES) - QUERIES) ** 2)


def placed(mesh, placing):
    put = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))
    params = {name: put(x, getattr(placing, name)) for name, x in PARAMS.items()}
    return params, put(ROWS, placing.rows), put


def of_runs(objective, adjoint, **options):
    """The hypergradients of several runs."""
    found = jax.value_and_grad(lambda hyper: objective(hyper, adjoint=adjoint))
    return jax.jit(jax.vmap(found, **options))


@pytest.mark.parametrize("adjoint", [hg.Checkpointed(slots=2), hg.Reversible()], ids=repr)
@pytest.mark.parametrize("placing", [DATA, FSDP], ids=["data", "fsdp"])
def test_runs_with_other_settings(adjoint, placing):
    """Each device computes its share of a batch in its share of the runs."""
    alone = of_runs(objective_of(PARAMS, ROWS, error), adjoint)
    mesh = mesh_of(AxisType.Auto, AxisType.Auto)
    with jax.set_mesh(mesh):
        params, rows, put = placed(mesh, placing)
        hypers = jax.tree.map(lambda x: put(x, P("runs")), SETTINGS)
        objective = objective_of(params, rows, error)
        split = of_runs(objective, adjoint, spmd_axis_name="runs")
        found = split(hypers)
        flops = split.lower(hypers).compile().cost_analysis()["flops"]
    assert_same(found, alone(SETTINGS))
    assert found[0].sharding.spec == P("runs")
    assert flops < 0.4 * alone.lower(SETTINGS).compile().cost_analysis()["flops"]


def test_beside_an_explicit_axis():
    """The network's own; its rows are not split, since indexing by them would be ambiguous."""
    alone = of_runs(objective_of(PARAMS, ROWS, error), hg.Checkpointed())(SETTINGS)
    mesh = mesh_of(AxisType.Auto, AxisType.Explicit)
    with jax.set_mesh(mesh):
        params, rows, put = placed(mesh, FSDP._replace(rows=P()))
        hypers = jax.tree.map(lambda x: put(x, P("runs")), SETTINGS)
        objective = objective_of(params, rows, error)
        found = of_runs(objective, hg.Checkpointed(), spmd_axis_name="runs")(hypers)
    assert_same(found, alone)


def errors(params, hyper, key):
    return jnp.sum((network(params, QUERIES) - QUERIES) ** 2, 1)


HYPER = {"rate": jnp.float32(0.1), "weights": jnp.ones(32)}


@pytest.mark.parametrize(
    ("adjoint", "placing", "count"),
    [
        (hg.Stored(), DATA, 32),
        (hg.Stored(), DATA, 3),
        (hg.Checkpointed(slots=2), FSDP, 32),
        (hg.Reversible(), FSDP, 32),
    ],
    ids=repr,
)
def test_scores_of_one_run(adjoint, placing, count):
    """Each device pulls its share of the scores back through its share of a batch."""
    many = lambda *args: jnp.tile(errors(*args), 8)[:count]
    alone = hg.jacobian(objective_of(PARAMS, ROWS, many), HYPER, adjoint=adjoint)
    mesh = mesh_of(AxisType.Auto, AxisType.Auto)
    with jax.set_mesh(mesh):
        params, rows, _ = placed(mesh, placing)
        objective = objective_of(params, rows, many)
        found = hg.jacobian(objective, HYPER, adjoint=adjoint, axis="runs")

        def flops(**axis):
            found = jax.jit(lambda hyper: hg.jacobian(objective, hyper, adjoint=adjoint, **axis))
            return found.lower(HYPER).compile().cost_analysis()["flops"]

        if count == 32:
            assert flops(axis="runs") < 0.6 * flops()
        with pytest.raises(ValueError, match=r"axis='x': scores are split over an automatic axis"):
            hg.jacobian(objective, HYPER, axis="x")
    assert_same(found, alone)
    spec = found.jacobian["weights"].sharding.spec
    assert spec[:1] == (("runs",) if count == 32 else ())


def test_scores_within_a_program():
    """Whose arguments are all that is on the mesh."""
    alone = hg.jacobian(objective_of(PARAMS, ROWS, errors), HYPER)
    mesh = mesh_of(AxisType.Auto, AxisType.Auto)
    with jax.set_mesh(mesh):
        params, rows, _ = placed(mesh, DATA)
        of = lambda params, rows: hg.jacobian(
            objective_of(params, rows, errors), HYPER, axis="runs"
        )
        found = jax.jit(of)(params, rows)
    assert_same(found, alone)
    assert found.jacobian["weights"].sharding.spec[0] == "runs"


def attributed(params, rows, **options):
    return hg.attribute(
        objective_of(params, rows, errors),
        HYPER,
        errors,
        examples=lambda hyper: hyper["weights"],
        **options,
    )


def test_retrainings(monkeypatch):
    """A certificate is that of one device; each device trains its share of the runs."""
    asked = {"runs": 12, "drop": 0.1, "progress": False}
    alone = attributed(PARAMS, ROWS)
    wanted = alone.certify(**asked)
    retrained, places = retraining._retrained, []

    def watched(*given):
        result = retrained(*given)
        places.append(result.sharding.spec)
        return result

    monkeypatch.setattr(retraining, "_retrained", watched)
    mesh = mesh_of(AxisType.Auto, AxisType.Auto)
    with jax.set_mesh(mesh):
        params, rows, _ = placed(mesh, DATA)
        blame = attributed(params, rows, axis="runs")
        found = blame.certify(**asked, axis="runs")
        message = r"axis='other'\): runs are split over an automatic axis .*there is 'runs', 'd'"
        with pytest.raises(ValueError, match=message):
            blame.certify(**asked, axis="other")
    np.testing.assert_allclose(blame.removed, alone.removed, rtol=1e-4, atol=1e-6)
    assert found.lds == pytest.approx(wanted.lds)
    assert places
    assert all(spec[0] == "runs" for spec in places)
    with pytest.raises(ValueError, match=r"axis='runs'\): runs are split .*there is none"):
        alone.certify(**asked, axis="runs")


STRATEGIES = {
    "Evolution": partial(hg.Evolution, 4, spread=0.01, key=1),
    "PersistentEvolution": partial(hg.PersistentEvolution, 4, window=2, spread=0.01, key=1),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_members_of_evolution_strategies(name):
    hyper = {"rate": jnp.float32(0.1), "weights": jnp.ones(32)}
    key, strategy = jax.random.key(0), STRATEGIES[name]
    alone = objective_of(PARAMS, ROWS, error).hypergradient(hyper, key, adjoint=strategy())
    mesh = mesh_of(AxisType.Auto, AxisType.Auto)
    with jax.set_mesh(mesh):
        params, rows, _ = placed(mesh, FSDP)
        objective = objective_of(params, rows, error)

        def flops(**axis):
            found = lambda hyper: objective.hypergradient(hyper, key, adjoint=strategy(**axis))
            return jax.jit(found).lower(hyper).compile().cost_analysis()["flops"]

        assert flops(axis="runs") < 0.75 * flops()
        found = objective.hypergradient(hyper, key, adjoint=strategy(axis="runs"))
        with pytest.raises(ValueError, match=r"axis='x': members are split over an automatic axis"):
            objective.hypergradient(hyper, key, adjoint=strategy(axis="x"))
    assert_same((found.value, found.gradient), (alone.value, alone.gradient), 5e-4)
    with pytest.raises(ValueError, match=r"block=2, axis='runs'\): members split over an axis"):
        strategy(block=2, axis="runs")

"""`on_step=` of tune, tune_online and learned.fit; scores of the whole run."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
from hindgrad.adjoints import antithetic

CENTER = jnp.array([1.0, -2.0])
HYPER = {"rate": 0.1}


def training(steps=10):
    loss = lambda params, hyper, batch: jnp.sum((params - CENTER) ** 2) / 2
    optimizer = hg.Momentum(lambda h, t: h["rate"], 0.5)
    return hg.Training(loss, optimizer=optimizer, batches=lambda t: None, steps=steps)


def objective(score=lambda params, hyper, key: jnp.sum((params - CENTER) ** 2)):
    return hg.Objective(training(), init=jnp.zeros(2), score=score)


def tuned(**options):
    return hg.tune(objective(), HYPER, optax.sgd(0.01), steps=4, progress=False, **options)


def test_tune_gives_each_record_with_its_hyperparameters():
    seen = []
    result = tuned(on_step=lambda record, hyper: seen.append((record, hyper)))
    assert [record for record, _ in seen] == result.history
    for record, hyper in seen:
        np.testing.assert_allclose(objective()(hyper), record.value, rtol=1e-6)


def test_an_error_in_it_ends_the_tuning_and_loses_nothing(tmp_path):
    def fail(record, hyper):
        if record.step == 2:
            raise OSError("no space for the log")

    with pytest.raises(OSError, match="no space"):
        tuned(on_step=fail, checkpoint=tmp_path / "run")
    seen = []
    rest = tuned(checkpoint=tmp_path / "run", on_step=lambda record, _: seen.append(record.step))
    assert seen == [3]
    assert rest.history == tuned().history


def test_tune_online_gives_each_change():
    seen = []
    result = hg.tune_online(
        training(40),
        jnp.zeros(2),
        HYPER,
        lambda params, hyper, t: jnp.sum((params - CENTER) ** 2),
        optax.sgd(1e-3),
        every=7,
        progress=False,
        on_step=lambda change, hyper: seen.append((change, hyper)),
    )
    trajectory = result.trajectory
    assert [change.step for change, _ in seen] == trajectory.steps.tolist()
    assert [change.status for change, _ in seen] == trajectory.status.tolist()
    np.testing.assert_array_equal([hyper["rate"] for _, hyper in seen], trajectory.hyper["rate"])


def test_fit_gives_each_evaluation():
    seen = []
    result = hg.learned.fit(
        hg.learned.MomentumMLP(),
        hg.learned.Quadratics(2),
        steps=4,
        unroll=2,
        batch=2,
        iterations=4,
        every=2,
        evaluations=2,
        key=0,
        progress=False,
        on_step=lambda evaluation, weights: seen.append(evaluation),
    )
    assert seen == result.history[1:]


def test_a_score_of_the_whole_run():
    """Its derivative against differences; what needs scores on the way refuses it."""
    score = hg.RunScore(lambda run, hyper, key: jnp.mean(run.losses) + jnp.sum(run.params))
    value = lambda rate: float(objective(score)({"rate": rate}))
    slope = (value(0.101) - value(0.099)) / 0.002
    for adjoint in (hg.Stored(), hg.Reversible(), hg.Forward()):
        found = objective(score).hypergradient(HYPER, adjoint=adjoint)
        np.testing.assert_allclose(found.gradient["rate"], slope, rtol=1e-2)
    estimate = objective(score).hypergradient(HYPER, adjoint=hg.Evolution(64, spread=1e-3))
    along = antithetic.directions(jax.random.fold_in(jax.random.key(0), 0), 64, jnp.zeros(()))
    np.testing.assert_allclose(estimate.gradient["rate"], jnp.mean(along**2) * slope, rtol=2e-2)
    persistent = hg.PersistentEvolution(window=5, spread=0.1)
    with pytest.raises(ValueError, match="RunScore"):
        objective(score).hypergradient(HYPER, adjoint=persistent)
    result = hg.tune(objective(score), HYPER, optax.sgd(1e-3), steps=2, progress=False)
    assert result.diagnosis is not None

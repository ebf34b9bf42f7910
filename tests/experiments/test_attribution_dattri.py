"""The benchmark's own models: dropout, the start, the pixels, and what is reported."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

import hindgrad as hg
from experiments.attribution import attribution_dattri as experiment
from experiments.attribution import attribution_lds_report as report
from experiments.attribution import trained
from experiments.attribution.networks import Rectified

(MODEL,) = experiment.SMALL.models


def test_everything_is_written_and_nothing_else(written, results):
    assert written == {"lds.png", "single.csv", "halved.csv", "models.csv"}
    assert [one["way"] for one in results["single"]] == list(report.WAYS)
    assert [one["way"] for one in results["halved"]] == list(report.BY_HALVES)


def test_parameters_are_as_many_as_there():
    """.11 million."""
    params = experiment.MLP.network.start(jax.random.key(0), (28, 28), 10)
    assert sum(x.size for x in jax.tree.leaves(params)) == 109_386
    for layer in params:
        most = layer["w"].shape[0] ** -0.5
        assert 0.9 * most < jnp.max(jnp.abs(layer["w"])) <= most
        assert jnp.max(jnp.abs(layer["b"])) <= most


def test_dropout_in_training_alone():
    """A tenth of the units is left out of each row, and their mean stays."""
    network = Rectified((4000,), dropout=0.1)
    params = [
        {"w": jnp.zeros((2, 4000)), "b": jnp.ones(4000)},
        {"w": jnp.ones((4000, 1)), "b": jnp.zeros(1)},
    ]
    x = jnp.zeros((3, 2))
    np.testing.assert_allclose(network.logits(params, x), 4000)
    dropped = network.logits(params, x, jax.random.key(0))[:, 0] * 0.9
    np.testing.assert_allclose(dropped, 3600, atol=4 * (4000 * 0.09) ** 0.5)
    assert len(set(dropped.tolist())) == 3


def test_pixels_are_centred_and_scaled():
    plain, own = (
        trained.draw(replace(MODEL, center=center, unit=unit), 3, 0)
        for center, unit in ((0.0, 1.0), (0.1307, 0.3081))
    )
    np.testing.assert_allclose(own.train.x, (plain.train.x - 0.1307) / 0.3081, rtol=1e-5, atol=1e-6)


def test_the_hypergradient_is_that_of_the_dropped_run():
    """Beside finite differences of one row's weight, with the same units left out, in float64."""
    rows, key = trained.draw(MODEL, 3, 0), jax.random.key(1)
    with jax.enable_x64(True):
        rows = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == "float32" else x, rows)
        objective, ones = trained.objective_of(rows), jnp.ones(60, jnp.float64)
        found = hg.jacobian(objective, ones, key).jacobian[:, 7]
        value = lambda weight: objective.score(
            objective.run(ones.at[7].set(weight), key).params, None, None
        )
        wanted = (value(1 + 1e-6) - value(1 - 1e-6)) / 2e-6
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-8)

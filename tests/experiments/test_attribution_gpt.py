"""Documents of a GPT: what is asked, and what a certificate leaves in the table."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.attribution import attribution_gpt as experiment
from experiments.attribution import attribution_gpt_report as report
from experiments.text import gpt_tuning

SMALL = experiment.SMALL


def test_everything_is_written_and_nothing_else(written):
    assert written == {"attribution-gpt.png", "table.csv"}


def test_certificates(results):
    (one,) = results["found"]
    assert one["peak"] == SMALL.peaks[0]
    assert one["lds"] > 0.8  # of fifteen retrainings
    assert 0.5 < one["ratio"] < 1.5
    assert one["precision"] < 1e-3
    assert one["verdict"] in report._rows(results)[0][-1]


def test_what_is_refused_is_said(results):
    results["found"] = [{"peak": 0.1, "seed": 0, "verdict": report.REFUSED, "reason": "…"}]
    assert report._rows(results)[0][-1] == report.REFUSED
    assert report.summary(results) == ["At no rate was there anything to certify."]


def test_passages():
    """The mean loss of rows that stand together, of the text that no training sees."""
    text = gpt_tuning.divided(SMALL.text, SMALL.context, SMALL.documents)
    objective = experiment.objective_of(SMALL, text, 1e-3)
    run = objective.run(jnp.ones(SMALL.documents), jax.random.key(0))
    found = experiment.passages(SMALL, text)(run.params)
    assert found.shape == (SMALL.queries,)
    first = gpt_tuning.losses(run.params, text.test[: SMALL.passage], None)
    np.testing.assert_allclose(found[0], jnp.mean(first), rtol=1e-5)

"""Certificates against retrainings by hand, and what they say where scores are no guide."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import hindgrad as hg
from attribution import problem
from hindgrad.attribution import certify, ranks
from hindgrad.attribution.certificate import Certificate, described
from hindgrad.attribution.retraining import without
from hindgrad.diagnostics.precision import LeafPrecision


def attribution(queries=problem.queries, hyper=None, **options):
    objective, ones = problem.of_weights(**options)
    return hg.attribute(objective, hyper or ones, queries, adjoint=hg.Stored())


@pytest.fixture(scope="module")
def found():
    with jax.enable_x64(True):
        yield attribution()


def test_against_retrainings_by_hand(x64, found, monkeypatch, capsys):
    """The score of each query, its interval's middle, and the removal of what matters most."""
    draw, drawn = certify._draw, []
    monkeypatch.setattr(certify, "_draw", lambda *args: drawn.append(draw(*args)) or drawn[0])
    certificate = found.certify(runs=20, drop=0.05, seed=3)
    gone = drawn[0]
    assert gone.shape == (20, problem.ROWS)
    assert np.all(gone.sum(1) == 1)
    run = lambda gone: problem.by_hand(problem.hyper_with(np.where(gone, 0.0, 1.0)))
    happened = np.stack([run(row) for row in gone])
    foretold = np.stack([found.removed[:, row].sum(1) for row in gone])
    for query in range(5):
        wanted = stats.spearmanr(foretold[:, query], happened[:, query]).statistic
        assert certificate.lds[query] == pytest.approx(wanted, abs=1e-9)
        row = int(found.top(query, 1).rows[0])
        removal = certificate.top[query]
        assert removal.after == pytest.approx(run(np.arange(problem.ROWS) == row)[query], rel=1e-9)
        assert removal.before == pytest.approx(float(found.values[query]), rel=1e-9)
        assert removal.random == pytest.approx(happened[:, query].mean(), rel=1e-9)
        assert removal.foretold == pytest.approx(removal.before + found.top(query, 1).effects[0])
    low, high = certificate.interval
    assert low < certificate.mean < high
    assert certificate.mean > 0.9
    assert certificate.metasmoothness > 0.8
    assert certificate.precision.error < 1e-14  # it is float64 itself
    assert not certificate.unmoved
    assert certificate.message in capsys.readouterr().out


def test_the_order_of_the_steps_stays(x64, found):
    """A run without rows has the batches of the whole one: weights of zero, nothing moved up."""
    weights = np.where(np.arange(problem.ROWS) % 5 == 0, 0.0, 1.0)
    np.testing.assert_allclose(
        found.retrained({"weight": weights}),
        problem.by_hand(problem.hyper_with(weights)),
        rtol=1e-9,
    )


def test_side_by_side(x64, found):
    """However many runs are trained at a time, also where that does not divide their number."""
    options = {"runs": 10, "drop": 0.1, "progress": False}
    one, several = (found.certify(side_by_side=n, **options) for n in (1, 7))
    assert one.lds == pytest.approx(several.lds)
    for query, removal in one.top.items():
        np.testing.assert_allclose(removal, several.top[query])


def test_queries_that_do_not_change_are_named(found):
    """Not NaN; nor do they count."""
    queries = lambda params, hyper, key: (
        problem.queries(params, hyper, key)
        * jnp.array([1.0, 0.0, 1.0, 0.0, 1.0], params["in"].dtype)
    )
    certificate = attribution(queries).certify(runs=10)
    assert certificate.unmoved == [1, 3]
    assert sorted(certificate.lds) == sorted(certificate.top) == [0, 2, 4]
    assert "2 queries (1, 3) do not change at all" in certificate.message
    assert "nan" not in certificate.message


def test_weights_of_settings_that_matter_to_no_query(x64):
    """Scores other than zero, and no removal that changes anything."""
    step = lambda x: jax.lax.stop_gradient(jnp.round(x) - x) + x  # rounded, and its slope is one
    queries = lambda params, hyper, key: step(problem.queries(params, hyper, key))
    certificate = attribution(queries).certify(runs=10)
    assert certificate.unmoved == [0, 1, 2, 3, 4]
    assert certificate.mean is certificate.interval is certificate.ratio is None
    assert certificate.verdict == "not to be trusted"
    assert "LDS" not in certificate.message


def test_scores_that_are_no_guide(x64):
    """A query whose slope is turned round: the order is the opposite one."""
    turned = lambda x: jax.lax.stop_gradient(2 * x) - x
    queries = lambda params, hyper, key: turned(problem.queries(params, hyper, key))
    certificate = attribution(queries).certify(runs=12, bar=0.5)
    assert certificate.mean < -0.8
    assert certificate.verdict == "not to be trusted"
    assert not any(removal.beats_random for removal in certificate.top.values())


def test_retrainings_that_diverge(x64):
    queries = lambda params, hyper, key: (
        problem.queries(params, hyper, key) + jnp.log(hyper["weight"][:5])
    )
    certificate = attribution(queries).certify(runs=12, drop=0.1)
    assert 0 < certificate.diverged <= 12 + 5
    assert not certificate.ok
    assert "diverge" in certificate.message


def test_chaos():
    certificate = attribution(rate=60.0, steps=60).certify(runs=12, drop=0.05)
    assert certificate.metasmoothness < 0.5
    assert certificate.verdict == "not to be trusted"
    assert "chaotic" in certificate.message


def test_rows_without_weight_are_not_removed(x64):
    weights = np.zeros(problem.ROWS)
    weights[:3] = 1.0
    found = attribution(hyper={"weight": weights})
    asked = certify.Asked(10, 0.5, 0.9, jax.random.key(0), None, False)
    assert found.examples is not None
    assert not certify._draw(found.examples, found.hyper, asked)[:, 3:].any()
    with pytest.raises(ValueError, match="Some must stay"):
        found.certify(drop=0.9)


def test_rows_of_several_weights():
    gone = jnp.array([[True, False, False], [False, False, True]])
    kept = without(jnp.arange(6.0).reshape(3, 2) + 1, gone)
    np.testing.assert_array_equal(kept, [[[0, 0], [3, 4], [5, 6]], [[1, 2], [3, 4], [0, 0]]])


def test_a_second_certificate_does_not_compile(found, monkeypatch, x64):
    found.certify(runs=10, drop=0.1, side_by_side=4)
    traced = []
    monkeypatch.setattr(problem, "nll", lambda *_: traced.append(1))
    found.certify(runs=14, drop=0.2, side_by_side=4, seed=5)
    assert not traced


def test_a_stream():
    batches = hg.stream(problem.X.astype(np.float32), size=problem.BATCH, key=0)
    streamed = attribution(batches=batches, steps=6)
    memory = attribution(
        batches=hg.minibatches(problem.X.astype(np.float32), size=problem.BATCH, key=0), steps=6
    )
    np.testing.assert_allclose(streamed.removed, memory.removed, rtol=1e-4, atol=1e-7)
    one, other = (found.certify(runs=10, drop=0.1) for found in (streamed, memory))
    assert one.lds == pytest.approx(other.lds, abs=0.05)
    assert one.precision is None or one.precision.digits > 3


def test_correlations():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 30, 4))
    a[:, 2] = np.round(a[:, 2])  # with ties
    b[:, 3] = 1.0
    wanted = [stats.spearmanr(a[:, i], b[:, i]).statistic for i in range(3)]
    np.testing.assert_allclose(ranks.spearman(a, b), [*wanted, 0.0])


def test_the_interval_holds_the_truth(monkeypatch):
    """Of normal pairs whose correlation is known, in about 95 of 100 draws."""
    monkeypatch.setattr(ranks, "RESAMPLES", 150)
    random, held = np.random.default_rng(1), 0
    truth = 6 / np.pi * np.arcsin(0.8 / 2)  # Spearman's, of a correlation of .8
    for _ in range(60):
        a, noise = random.normal(size=(2, 50, 4))
        low, high = ranks.interval(a, 0.8 * a + 0.6 * noise, random)
        held += low <= truth <= high
    assert 50 <= held < 60


CERTIFIED = Certificate(
    bar=0.9,
    runs=50,
    dropped=1,
    examples=100,
    name="hyper['weight']",
    lds={0: 0.97, 1: 0.95},
    interval=(0.93, 0.98),
    unmoved=[],
    unscored=[],
    ratio=1.1,
    faintness=1e4,
    top={},
    diverged=0,
    metasmoothness=0.98,
    precision=LeafPrecision(1e-5, 1.0, 1.0),
)
VERDICTS = {
    "all is well": ({}, "certified", []),
    "the interval reaches below": ({"interval": (0.85, 0.98)}, "undecided", ["more runs"]),
    "below": ({"bar": 0.97, "interval": (0.93, 0.98)}, "not to be trusted", ["No single cause"]),
    "chaos": (
        {"bar": 0.97, "metasmoothness": 0.2, "ratio": 1e-6},
        "not to be trusted",
        ["chaotic .*lower the rates.* eps .*smaller model.*Evolution"],
    ),
    "rounding": (
        {"bar": 0.97, "precision": LeafPrecision(0.9, 0.4, 1.0)},
        "not to be trusted",
        ["larger eps"],
    ),
    "beyond the first order": ({"bar": 0.97, "ratio": 3.0}, "not to be trusted", ["3 times"]),
    "nothing of the first order": (
        {"bar": 0.97, "ratio": -0.02},
        "not to be trusted",
        ["foretell nothing of what happens.* Lower the rates"],
    ),
    "the right order, not the size": ({"ratio": 0.3}, "certified", ["0.3 times"]),
    "changes of rounding": ({"faintness": 12.0}, "certified", ["12 units"]),
    "some diverge": ({"diverged": 2}, "not to be trusted", ["2 of the retrainings"]),
    "one does not move": ({"unmoved": [4]}, "certified", ["Query 4 does not change at all"]),
    "one that nothing trains": (
        {"unmoved": [4], "unscored": [4]},
        "certified",
        ["Query 4 does not change, as the scores say: .* Drop more"],
    ),
    "NaN is no chaos": (
        {"diverged": 2, "metasmoothness": np.nan},
        "not to be trusted",
        ["divides by the weights"],
    ),
}


@pytest.mark.parametrize(("changes", "verdict", "reasons"), VERDICTS.values(), ids=VERDICTS)
def test_verdicts(changes, verdict, reasons):
    certificate = CERTIFIED._replace(**changes)
    assert certificate.verdict == verdict
    assert certificate.ok == (verdict == "certified")
    assert repr(certificate).startswith(f"<Certificate: {verdict}, LDS 0.960")
    assert len(certificate.reasons) == len(reasons)
    for reason, pattern in zip(certificate.reasons, reasons, strict=True):
        assert re.search(pattern, reason)


def test_what_is_left_out_is_said_first():
    assert "Of 2 queries" not in described(CERTIFIED)
    text = described(CERTIFIED._replace(unmoved=[4, 5]))
    assert text.splitlines()[0].endswith("(Of 2 of 4 queries: the others do not change.)")
    assert "1 of 100 examples (hyper['weight'])" in text


def test_the_same_rows_at_random_are_no_rivals(x64, found):
    """Of 24 rows, one of 100 random removals is the top one itself."""
    certificate = found.certify(runs=100, drop=0.04, bar=-1.0)
    assert certificate.dropped == 1
    assert sum(removal.beats_random for removal in certificate.top.values()) >= 3


def test_rows_without_weight_are_never_the_top(x64):
    """Even where all others hold a query up."""
    weights = np.ones(problem.ROWS)
    weights[::2] = 0
    found = attribution(hyper={"weight": weights})
    with_weight = list(range(1, problem.ROWS, 2))
    for ranking in (found.top(0, 100), found.bottom(0, 100)):
        assert sorted(ranking.rows) == with_weight
    below = -np.abs(found.removed)
    given = found.objective, found.hyper, found.key, found.adjoint, found.examples
    of = certify.Attributed(*given, scores=below, removed=below)
    assert not certify._top(of, 2)[:, ::2].any()


def test_queries_in_half_precision():
    halves = lambda *given: problem.queries(*given).astype(jnp.bfloat16)
    assert attribution(halves).certify(runs=10, drop=0.2, bar=-1.0).runs == 10

"""`agreement`, and the approximate adjoint that it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
import problems


def objective(key, steps=problems.STEPS, optimizer=None):
    optimizer = hg.Momentum(problems.rate, 0.9) if optimizer is None else optimizer
    params = problems.init(key)
    training = problems.training(optimizer, steps)
    score = lambda params, hyper, key: problems.valid(params)
    hyper = {name: problems.hyper(params, steps)[name] for name in ("rate", "log_l2")}
    return hg.Objective(training, init=params, score=score), hyper


def test_exact_adjoints_agree(key, capsys):
    f, hyper = objective(key)
    found = hg.agreement(f, hyper, hg.Reversible())
    assert abs(found.whole.cosine - 1) < 1e-6
    assert abs(found.whole.norm_ratio - 1) < 1e-5
    assert "['log_l2']" in found.leaves
    assert "Reversible against Checkpointed" in capsys.readouterr().out


def test_truncation_is_seen(key):
    """Rates before the window get no gradient: the cosine is that of the part that remains."""
    f, hyper = objective(key)
    exact = jax.grad(f)(hyper)["rate"]["out"]
    found = hg.agreement(f, hyper, hg.Truncated(4)).leaves["['rate']['out']"]
    assert found.norm_ratio < 0.99
    assert found.cosine < 0.999
    assert found.cosine >= 0.9 * np.linalg.norm(exact[-4:]) / np.linalg.norm(exact)


def test_interpolated_is_exact_for_one_step(key):
    """A line between two states has no other states on it."""
    for optimizer in (None, hg.Adam(lambda hyper, t: 0.01 * hyper["rate"]["out"][t])):
        f, hyper = objective(key, 1, optimizer)
        found = hg.agreement(f, hyper, hg.Interpolated())
        assert found.whole.cosine > 1 - 1e-6
        assert abs(found.whole.norm_ratio - 1) < 1e-5


def test_interpolated_is_exact_on_a_line():
    """A loss linear in the parameters moves them along a line, once the velocity has settled:
    with decay 0, at once."""
    for convention in (hg.Damped(), hg.HeavyBall(), hg.PositionFirst()):
        training = hg.Training(
            lambda params, hyper, batch: hyper["slope"] * jnp.sum(params),
            optimizer=hg.Momentum(0.1, 0.0, convention=convention),
            batches=lambda t: None,
            steps=5,
        )
        f = hg.Objective(
            training, init=jnp.ones(2), score=lambda params, hyper, key: jnp.sum(params**2)
        )
        found = hg.agreement(f, {"slope": 0.3}, hg.Interpolated())
        np.testing.assert_allclose(found.whole, (1.0, 1.0), rtol=1e-5)


def test_interpolated_costs_agreement(key):
    """What Fu et al. 2016 approximate is not exact on a curved path."""
    f, hyper = objective(key)
    found = hg.agreement(f, hyper, hg.Interpolated())
    assert 0.1 < found.whole.cosine < 0.9999


def test_no_floats(key):
    f, _ = objective(key)
    with pytest.raises(ValueError, match="without a float"):
        hg.agreement(f, {"rate": 1}, hg.Interpolated())

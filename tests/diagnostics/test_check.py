"""`check` says right of what is right, wrong of what is wrong, and neither of what is noise."""

import jax
import jax.numpy as jnp
import numpy as np

import hindgrad as hg
import problems


def test_right(key, capsys):
    optimizer = hg.Momentum(problems.rate, problems.decay)
    params = problems.init(key)
    objective = hg.Objective(
        problems.training(optimizer, 6), init=params, score=lambda p, h, key: problems.valid(p)
    )
    result = hg.check(objective, problems.hyper(params), adjoint=hg.Checkpointed(slots=2))
    assert result.ok
    assert "agrees with finite differences" in capsys.readouterr().out
    for direction in result.directions:
        assert abs(direction.hypergradient - direction.difference) <= 0.01 * abs(
            direction.difference
        )


def test_wrong(capsys):
    result = hg.check(lambda h: jax.lax.stop_gradient(h["a"]) ** 2 + h["b"], {"a": 3.0, "b": 1.0})
    assert not result.ok
    assert "DISAGREES" in capsys.readouterr().out


def test_wrong_by_a_tenth():
    @jax.custom_jvp
    def square(x):
        return x**2

    square.defjvp(lambda primals, tangents: (primals[0] ** 2, 2.2 * primals[0] * tangents[0]))
    assert not hg.check(square, 3.0).ok
    assert hg.check(lambda x: x**2, 3.0).ok


def test_undecided(capsys):
    """A value that jumps at every scale has no derivative that differences could find."""
    result = hg.check(lambda h: jnp.sin(1e6 * h) * 1e-3, 1.0)
    assert not result.ok
    result = hg.check(lambda h: jnp.nan * h, 1.0)
    assert not result.ok
    assert "Undecided" in capsys.readouterr().out


def test_a_nan_hypergradient_disagrees(x64):
    """The root at zero: plain autodiff gives NaN where the function is flat."""
    result = hg.check(lambda h: jnp.where(h < 10, h, jnp.sqrt(h - h) + h), 3.0)
    assert [d.verdict for d in result.directions] == ["disagrees"]
    assert np.isfinite([d.difference for d in result.directions]).all()


def test_key_and_directions():
    """As many directions as asked for, but no more than there are numbers to change."""
    product = lambda h, key: jnp.prod(h) * jax.random.normal(key)
    for numbers, directions in ((2, 2), (1, 1)):
        result = hg.check(product, jnp.full(numbers, 2.0), key=3, directions=2)
        assert len(result.directions) == directions
        assert result.ok


def test_a_second_check_compiles_nothing():
    traces = []

    def value(hyper):
        traces.append(1)
        return hyper**2

    for start in (2.0, 3.0):
        assert hg.check(value, start, directions=1).ok
        traces.append(0)
    assert traces == [1, 1, 0, 0]


def test_a_derivative_within_the_rounding_of_a_constant():
    """What is zero but for rounding does not disagree with differences that are exactly zero."""
    almost = lambda hyper: 1.0 + 1e-9 * jnp.sum(hyper)
    assert "DISAGREES" not in hg.check(almost, jnp.ones(3)).message
    one_bit = lambda h: almost(h) + jnp.where(h[0] > 1.01, 2**-22, 0.0)  # at the larger steps
    assert "DISAGREES" not in hg.check(one_bit, jnp.ones(3)).message
    stopped = hg.check(lambda h: 1.0 + jax.lax.stop_gradient(h).sum(), jnp.ones(3))
    assert "DISAGREES" in stopped.message

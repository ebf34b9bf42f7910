"""The table of where optax has no derivative: complete, and true."""

import jax
import jax.numpy as jnp
import optax
import pytest

import hindgrad as hg
import optax_cases as cases
from hindgrad.optimizers.from_optax.derivatives import UNDEFINED, explanation
from hindgrad.optimizers.from_optax.links import links

QUICK = """
    adam clip_by_global_norm dog lars muon radam scale_by_factored_rms schedule_free_adamw sgd
    rmsprop sm3
"""
"""The others are slow tests."""


def marked(names):
    return [
        name if name in QUICK.split() else pytest.param(name, marks=pytest.mark.slow)
        for name in sorted(names)
    ]


def test_every_transformation_of_optax_is_known():
    """One that is new in optax belongs into one of these lists. (Old versions lack some.)"""
    lists = (cases.DEFINED, cases.AS_WITHIN, cases.REFUSED)
    known = [*UNDEFINED, *(name for names in lists for name in names.split())]
    assert len(known) == len(set(known))
    assert set(cases.found()) <= set(known)


@pytest.mark.parametrize("name", marked({*UNDEFINED, *cases.DEFINED.split()}))
def test_row(x64, name):
    row = UNDEFINED.get(name)
    backward, forward = cases.undefined_at(lambda rate: cases.make(name, {}, rate))
    assert backward == (row.at if row else "")
    if row and row.at:
        assert row.forward == (not forward)


@pytest.mark.parametrize("name", marked({*UNDEFINED, *cases.DEFINED.split()}))
def test_row_in_float32(name):
    row = UNDEFINED.get(name)
    backward, _ = cases.undefined_at(lambda rate: cases.make(name, {}, rate))
    assert backward == (row.float32 or row.at if row else "")


@pytest.mark.parametrize("name", marked(n for n, row in UNDEFINED.items() if row.setting))
def test_setting(x64, name):
    """The setting does what the row says."""
    row = UNDEFINED[name]
    settings = eval(f"dict({row.setting})")
    backward, _ = cases.undefined_at(lambda rate: cases.make(name, settings, rate))
    assert backward == row.left


def clip(most):
    """As in docs/optimizer.md."""

    def clipped(grads, params=None):
        flat, shaped = jax.flatten_util.ravel_pytree(grads)
        return shaped(flat * jnp.minimum(1.0, most / optax.safe_norm(flat, 1e-12)))

    return optax.stateless(clipped)


def as_optax(optimizer):
    """An optimizer of ours with the interface of optax, for a rate that is constant."""
    at = jnp.int32(0)

    def of(rate):
        coefficients = optimizer.coefficients(rate, at)

        def update(grads, state, params):
            after, state = optimizer.update(grads, state, params, coefficients)
            return jax.tree.map(jnp.subtract, after, params), state

        return optax.GradientTransformation(lambda p: optimizer.init(p, coefficients), update)

    return of


INSTEAD = {
    "hg.Adam": as_optax(hg.Adam(lambda rate, t: rate)),
    "hg.Momentum": as_optax(hg.Momentum(lambda rate, t: rate, 0.9)),
    "a clip by optax.safe_norm (docs/optimizer.md)": clip,
}


@pytest.mark.parametrize("instead", sorted({row.instead for row in UNDEFINED.values()}))
def test_what_is_named_instead_has_a_derivative(x64, instead):
    names = {"optax": optax}
    make = INSTEAD.get(instead) or (lambda rate: eval(instead, {**names, "rate": rate}))
    assert cases.undefined_at(make) == ("", "")


def test_the_message_knows_settings():
    """A part whose setting mends it is not named; another is."""
    chain = optax.chain(
        optax.scale_by_adam(eps_root=1e-8), optax.masked(optax.scale_by_novograd(), True)
    )
    message = explanation(links(chain))
    assert "scale_by_novograd is NaN at an array" in message
    assert "scale_by_adam" not in message
    assert "adam_eps_root=1e-12" in explanation(links(optax.contrib.muon(0.1)))
    assert "schedule_free(optax.adamw" in explanation(links(optax.contrib.schedule_free_adamw(0.1)))
    steps = optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation()
    assert "pass eps_root=1e-12, or use hg.Adam" in explanation(links(steps))

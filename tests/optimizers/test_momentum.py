"""Every convention of momentum against `jax.grad` of the same run written by hand."""

import jax
import jax.numpy as jnp
import pytest

import hindgrad as hg
import problems

CONVENTIONS = [hg.Damped(), hg.PositionFirst(), hg.HeavyBall(), hg.Nesterov()]
WEIGHT_DECAYS = [None, hg.Coupled(problems.weight_decay), hg.Decoupled(problems.weight_decay)]
CASES = [
    (convention, weight_decay)
    for convention in CONVENTIONS
    for weight_decay in WEIGHT_DECAYS
    if not (isinstance(convention, hg.PositionFirst) and isinstance(weight_decay, hg.Decoupled))
]


def by_hand(params, hyper, convention, weight_decay):
    """The formulas once more, for scalars and arrays of one leaf, in one scan."""

    def leaf(p, v, g, a, m, s):
        g = g + s * p if isinstance(weight_decay, hg.Coupled) else g
        kept = p - a * s * p if isinstance(weight_decay, hg.Decoupled) else p
        match convention:
            case hg.Damped():
                v = m * v - (1 - m) * g
                return kept + a * v, v
            case hg.PositionFirst():
                return kept, m * v - g
            case hg.HeavyBall():
                v = m * v + g
                return kept - a * v, v
            case hg.Nesterov():
                v = m * v + g
                return kept - a * (g + m * v), v

    def step(state, t):
        p, v = state
        a = problems.spread(problems.rate(hyper, t), p)
        if isinstance(convention, hg.PositionFirst):
            p = jax.tree.map(lambda p, a, v: p + a * v, p, a, v)
        value, g = jax.value_and_grad(problems.loss)(p, hyper, problems.batches(t))
        pairs = jax.tree.map(leaf, p, v, g, a, hyper["decay"], hyper["weight_decay"])
        return jax.tree.transpose(jax.tree.structure(p), jax.tree.structure((0, 0)), pairs), value

    start = params, jax.tree.map(jnp.zeros_like, params)
    (params, _), losses = problems.scan(step, start)
    return problems.score(params, losses)


def gradients(key, convention, weight_decay):
    params = problems.init(key)
    hyper = problems.hyper(params)
    optimizer = hg.Momentum(
        problems.rate, problems.decay, weight_decay=weight_decay, convention=convention
    )
    training = problems.training(optimizer)
    ours = lambda params, hyper: problems.score(training(params, hyper))
    theirs = lambda params, hyper: by_hand(params, hyper, convention, weight_decay)
    both = [jax.value_and_grad(f, argnums=(0, 1)) for f in (ours, theirs)]
    return jax.jit(lambda *args: [f(*args) for f in both])(params, hyper)


@pytest.mark.parametrize(("convention", "weight_decay"), CASES, ids=repr)
def test_float64(key, x64, convention, weight_decay):
    (value, got), (wanted_value, wanted) = gradients(key, convention, weight_decay)
    assert abs(value - wanted_value) <= 1e-12 * abs(wanted_value)
    if weight_decay is None:
        assert not jnp.any(jnp.stack(jax.tree.leaves(got[1].pop("weight_decay"))))
        wanted[1].pop("weight_decay")
    assert problems.relative_error(got, wanted) <= 1e-10


@pytest.mark.parametrize("convention", CONVENTIONS, ids=repr)
def test_float32(key, convention):
    coupled = hg.Coupled(problems.weight_decay)
    (_, got), (_, wanted) = gradients(key, convention, coupled)
    assert problems.relative_error(got, wanted) <= 1e-5


def test_closed_form(x64):
    """Damped momentum on ½λθ²: two steps, by hand."""
    quadratic = lambda theta, hyper, batch: 0.5 * hyper["curvature"] * theta**2
    momentum = hg.Momentum(lambda h, t: h["rate"], lambda h, t: h["decay"])
    training = hg.Training(quadratic, optimizer=momentum, batches=lambda t: t, steps=2)
    a, m, c = 0.1, 0.7, 2.0
    hyper = {"rate": a, "decay": m, "curvature": c}
    got = jax.grad(lambda theta: training(theta, hyper).params)(3.0)
    first = 1 - a * (1 - m) * c
    wanted = first + a * (-m * (1 - m) * c - (1 - m) * c * first)
    assert abs(got - wanted) <= 1e-14


def test_one_rate_per_layer_and_numbers(key, x64):
    """A prefix of the parameters, with numbers and arrays, means the same as writing it out."""
    params = problems.init(key)
    hyper = problems.hyper(params)
    prefix = {"hidden": 0.2, "out": {"w": 0.1, "b": jnp.full(10, 0.3)}}
    full = {
        "hidden": {"w": jnp.full((64, 6), 0.2), "b": jnp.full(6, 0.2)},
        "out": {"w": jnp.asarray(0.1), "b": jnp.asarray(0.3)},
    }
    runs = [
        problems.training(hg.Momentum(lambda h, t, r=r: r, 0.8))(params, hyper)
        for r in (prefix, full)
    ]
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, runs[0], runs[1])))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: hg.Momentum(0.1, 1.0), r"Momentum\(decay\)=1.0 is outside of its range \[0, 1\)"),
        (lambda: hg.Momentum(-0.1), r"Momentum\(rate\)=-0.1"),
        (lambda: hg.Momentum("0.1"), "a number or a function"),
        (lambda: hg.Momentum(0.1, weight_decay=hg.Coupled(-1.0)), "strength"),
        (
            lambda: hg.Momentum(0.1, weight_decay=hg.Decoupled(0.1), convention=hg.PositionFirst()),
            "Use Coupled",
        ),
    ],
)
def test_bad_coefficients(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_structure(key):
    params = problems.init(key)
    hyper = problems.hyper(params)
    with pytest.raises(ValueError, match=r"rate has the structure .* not a prefix"):
        problems.training(hg.Momentum({"hidden": 0.1}))(params, hyper)
    with pytest.raises(ValueError, match=r"rate has shape \(3,\) .*'b'"):
        problems.training(hg.Momentum(lambda h, t: jnp.ones(3)))(params, hyper)

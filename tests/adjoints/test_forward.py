"""`Forward`: under every transformation, at a memory that no length changes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
import problems

FORWARD = hg.Forward()
STEPS = 6


def spring(state, hyper, t):
    """Momentum on a curved valley, with an integer in the state and an output per step."""
    x, v, count = state
    g = jax.grad(lambda x: jnp.sum(hyper["a"] * jnp.cosh(x - hyper["centre"])))(x)
    v = hyper["decay"] * v - hyper["rate"][t // 2] * g
    return (x + v, v, count + 1), {"x": x[0], "count": count}


START = (np.array([-0.5, 0.7]), np.zeros(2), 0)
HYPER = {"rate": np.linspace(0.1, 0.3, 3), "decay": 0.8, "a": 2.0, "centre": np.array([0.3, 0.1])}


def start():
    return jnp.asarray(START[0]), jnp.asarray(START[1]), jnp.int32(0)


def score(state, outputs, hyper):
    return jnp.sum(state[0] ** 3) + jnp.vdot(jnp.arange(STEPS), outputs["x"]) + hyper["decay"] ** 2


def ours(hyper, adjoint=FORWARD):
    return score(*hg.unroll(spring, start(), hyper, STEPS, adjoint=adjoint), hyper)


def plain(hyper):
    loop = jax.lax.scan(lambda s, t: spring(s, hyper, t), start(), jnp.arange(STEPS))
    return score(*loop, hyper)


@pytest.fixture
def hyper(x64):
    return jax.tree.map(jnp.asarray, HYPER)


@pytest.mark.parametrize("adjoint", [FORWARD, hg.Forward(block=2), hg.Forward(block=1)], ids=repr)
def test_any_dynamics_under_every_transformation(hyper, adjoint):
    """grad, vmap of grad, grad of vmap, jit, checkpoint, inside a scan."""
    f = lambda h: ours(h, adjoint)
    wanted = jax.grad(plain)(hyper)
    batch = jax.tree.map(lambda x: jnp.stack([x, 0.9 * x]), hyper)
    first = lambda tree: jax.tree.map(lambda x: x[0], tree)
    scanned = lambda h: jax.lax.scan(lambda c, _: (c + f(h), None), 0.0, None, length=2)[0] / 2
    for got in (
        first(jax.vmap(jax.grad(f))(batch)),
        first(jax.grad(lambda b: jnp.sum(jax.vmap(f)(b)))(batch)),
        jax.jit(jax.grad(jax.checkpoint(f)))(hyper),
        jax.grad(scanned)(hyper),
    ):
        assert problems.relative_error(got, wanted) <= 1e-12


def test_forward_mode_and_second_derivatives(hyper):
    along = jax.tree.map(jnp.cos, hyper)
    for got, wanted in zip(*(jax.jvp(f, (hyper,), (along,)) for f in (ours, plain)), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12)
    product = lambda f: jax.jvp(jax.grad(f), (hyper,), (along,))[1]
    twice = lambda f: jax.grad(lambda h: jax.jvp(f, (h,), (along,))[1])(hyper)
    wanted = product(plain)
    in_blocks = lambda h: ours(h, hg.Forward(block=2))
    for got in (product(ours), twice(ours), product(in_blocks)):
        assert problems.relative_error(got, wanted) <= 1e-10


def test_within_truncated(hyper):
    """The share of the last steps, forwards as backwards."""
    got, wanted = (
        jax.grad(ours)(hyper, hg.Truncated(3, inner=inner)) for inner in (FORWARD, hg.Stored())
    )
    assert problems.relative_error(got, wanted) <= 1e-12


# A training run.


def objective(optimizer, steps=STEPS, init=None):
    def scaled(hyper, key):
        return jax.tree.map(lambda p: p * hyper["scale"], problems.init(key))

    return hg.Objective(
        problems.training(optimizer, steps),
        init=init or scaled,
        score=lambda p, h, key: problems.valid(p) + h["scale"] ** 2,
    )


RATE = hg.schedules.Piecewise(knots=2, steps=STEPS, range=hg.schedules.Real())
TRAINED = {"rate": [0.2, 0.4], "scale": 1.2, "log_l2": -5.0}
OPTIMIZERS = {
    "momentum": hg.Momentum(lambda h, t: RATE(jnp.stack(h["rate"]), t)),
    "optax": hg.from_optax(lambda h: optax.adamw(0.1 * h["rate"][1], weight_decay=0.01)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training(x64, name):
    """The start's dependence and the direct term too, with a tangent for each of the four."""
    value = objective(OPTIMIZERS[name])
    got = jax.grad(value)(TRAINED, 0, adjoint=hg.Forward(limit=4))
    wanted = jax.grad(value)(TRAINED, 0, adjoint=hg.Stored())
    assert float(wanted["scale"]) != 0
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-10, atol=1e-15)


def test_losses_on_the_way_and_data(x64):
    """An objective of the run's losses; data as a hyperparameter, closed over."""

    def value(hyper, adjoint):
        loss = lambda params, h, batch: jnp.sum((params - hyper["data"]) ** 2 * h["weight"])
        training = hg.Training(
            loss, optimizer=hg.Momentum(0.1), batches=lambda t: None, steps=STEPS
        )
        run = training(jnp.zeros(3), {"weight": hyper["weight"]}, adjoint=adjoint)
        return jnp.vdot(jnp.arange(STEPS), run.losses) + jnp.sum(run.state**2)

    hyper = {"data": jnp.arange(3.0), "weight": jnp.array([1.0, 2.0, 0.5])}
    wanted = jax.grad(value)(hyper, hg.Stored())
    for adjoint in (hg.Forward(limit=6), hg.Forward(block=4)):
        assert problems.relative_error(jax.grad(value)(hyper, adjoint), wanted) <= 1e-12


def test_what_does_not_move_costs_nothing(key):
    """Integers, keys, None, what is closed over and held fixed: one tangent is all there is."""

    def loss(params, hyper, batch):
        noise = jax.random.normal(hyper["key"], ()) * hyper["many"].sum()
        return jnp.sum((params - noise) ** 2 / hyper["count"]) * hyper["moved"]

    training = hg.Training(loss, optimizer=hg.Momentum(0.1), batches=lambda t: None, steps=3)
    whole = hg.Objective(training, init=jnp.zeros(50), score=lambda p, h, key: jnp.sum(p))
    fixed = {"many": jnp.ones(100), "count": 3, "key": key, "none": None, "name": "chase"}

    def value(moved, adjoint):
        return whole({**fixed, "moved": moved}, adjoint=adjoint)

    got, wanted = (jax.grad(value)(0.5, a) for a in (hg.Forward(limit=1), hg.Stored()))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    direct = jax.grad(
        lambda m: jnp.sum(
            training(jnp.zeros(50), {**fixed, "moved": m}, adjoint=hg.Forward(limit=1)).params
        )
    )
    np.testing.assert_allclose(direct(0.5), wanted, rtol=1e-5)


def unrolled(adjoint, steps):
    """A run of any dynamics, and its score."""

    def step(state, hyper, t):
        return jnp.tanh(state * hyper["a"] + hyper["b"] * jnp.cos(1.0 * t))

    return lambda hyper: jnp.sum(hg.unroll(step, jnp.ones(1000), hyper, steps, adjoint=adjoint)[0])


def scored(adjoint, steps):
    """An objective, whose batches would be worth keeping for the next block."""

    def batches(t):
        return jnp.cos(1.0 * t + jnp.arange(1000.0))

    loss = lambda params, hyper, batch: jnp.sum((params - hyper["b"] * batch) ** 2)
    optimizer = hg.Momentum(lambda hyper, t: 0.1 * hyper["a"], 0.5)
    run = hg.Training(loss, optimizer=optimizer, batches=batches, steps=steps)
    objective = hg.Objective(run, init=jnp.ones(1000), score=lambda params, *_: jnp.sum(params))
    return lambda hyper: objective(hyper, adjoint=adjoint)


def memory(make, adjoint, steps):
    """Bytes that a compiled hypergradient needs beside its arguments and results."""
    value = make(adjoint, steps)
    struct = {"a": jnp.float32(0.9), "b": jnp.float32(0.1)}
    return jax.jit(jax.grad(value)).lower(struct).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("make", [unrolled, scored])
def test_memory_does_not_depend_on_the_number_of_steps(make):
    """Where `Stored` needs a state of 4,000 bytes or more for each."""
    for adjoint in (FORWARD, hg.Forward(block=1)):
        short, long = (memory(make, adjoint, steps) for steps in (20, 2000))
        assert long <= short + 8 * 2000  # each step's number and loss
    assert memory(make, hg.Stored(), 2000) > memory(make, hg.Stored(), 20) + 1900 * 4000


def test_a_second_call_compiles_nothing():
    traces = []

    def step(state, hyper, t):
        traces.append(1)
        return state * hyper

    gradient = jax.grad(lambda h: hg.unroll(step, 1.0, h, 3, adjoint=FORWARD)[0])
    assert gradient(2.0) == 12.0
    before = len(traces)
    assert gradient(3.0) == 27.0
    assert len(traces) == before


def test_limit_names_the_counts():
    with pytest.raises(ValueError, match=r"7 numbers \(arrays of 1, 2, 1, 3\).* limit is 6"):
        jax.grad(ours)(jax.tree.map(jnp.asarray, HYPER), hg.Forward(limit=6))
    value = objective(OPTIMIZERS["momentum"], init=problems.init(jax.random.key(0)))
    run = lambda params: jnp.sum(
        value.training(params, TRAINED, adjoint=hg.Forward(limit=9)).losses
    )
    with pytest.raises(ValueError, match=r"Objective\(init=…\)"):
        jax.grad(run)(value.init)


@pytest.mark.parametrize("options", [{"block": 0}, {"limit": 0}, {"block": -1}])
def test_misuse(options):
    with pytest.raises(ValueError, match="at least 1, is needed"):
        hg.Forward(**options)


def test_a_rule_for_the_reverse_mode_only_is_refused():
    """JAX has no forward mode through it, where only hyperparameters enter it."""
    bounded = jax.custom_vjp(lambda x: x)
    bounded.defvjp(lambda x: (x, None), lambda _, d: (jnp.clip(d, -1, 1),))
    loss = lambda params, hyper, batch: jnp.sum((params - bounded(hyper["target"])) ** 2)
    training = hg.Training(loss, optimizer=hg.Momentum(0.1), batches=lambda t: None, steps=3)
    score = lambda params, hyper, key: jnp.sum(params**2)
    objective = hg.Objective(training, init=jnp.ones(2), score=score)
    with pytest.raises(ValueError, match=r"reverse mode only.* use Stored"):
        jax.grad(lambda h: objective(h, adjoint=hg.Forward()))({"target": jnp.ones(2)})

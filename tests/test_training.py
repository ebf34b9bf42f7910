"""What users meet on the first day: models, hyperparameters and closures of every kind."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hindgrad as hg
import problems


def simple(h, t):
    return h["rate"]


OPTIMIZER = hg.Momentum(simple, 0.9)


def test_goes_on_from_a_state(key):
    params, hyper = problems.init(key), problems.hyper(problems.init(key))
    training = problems.training(hg.Adam(problems.rate))
    whole = training(params, hyper)
    first = training(params, hyper, steps=5)
    rest = training(first.params, hyper, state=first.state, start=5, steps=7)
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, whole.params, rest.params)))
    assert jnp.array_equal(whole.losses, jnp.concatenate([first.losses, rest.losses]))
    assert whole.losses.shape == (problems.STEPS,)


def test_the_state_carries_derivatives(key, x64):
    """A run in two halves has the hypergradient of the whole."""
    params, hyper = problems.init(key), problems.hyper(problems.init(key))
    training = problems.training(hg.Momentum(problems.rate, problems.decay))

    def halves(hyper):
        first = training(params, hyper, steps=5)
        rest = training(first.params, hyper, state=first.state, start=5, steps=7)
        return problems.valid(rest.params) + jnp.sum(first.losses)

    def whole(hyper):
        run = training(params, hyper)
        return problems.valid(run.params) + jnp.sum(run.losses[:5])

    got, wanted = jax.jit(lambda h: (jax.grad(halves)(h), jax.grad(whole)(h)))(hyper)
    got.pop("weight_decay"), wanted.pop("weight_decay")
    assert problems.relative_error(got, wanted) <= 1e-12


def test_losses_and_batches_close_over_traced_values(key, x64):
    """What the functions close over gets its derivative too, under jit and grad."""
    params = problems.init(key)
    x, y = problems.data()

    def score(scale, penalty, adjoint):
        def loss(params, hyper, batch):
            return problems.cross_entropy(params, *batch) + penalty * jnp.sum(
                params["out"]["w"] ** 2
            )

        def batches(t):
            return scale * x[:32], jnp.roll(y[:32], t - t)

        optimizer = hg.Momentum(lambda h, t: h["rate"] * penalty, 0.5)
        training = hg.Training(loss, optimizer=optimizer, batches=batches, steps=4)
        return problems.valid(training(params, {"rate": 0.3}, adjoint=adjoint).params)

    value = jax.jit(score, static_argnums=2)
    for adjoint in (hg.Stored(), hg.Checkpointed(slots=2)):
        got = jax.jit(jax.grad(score, argnums=(0, 1)), static_argnums=2)(1.0, 0.5, adjoint)
        for i, derivative in enumerate(got):
            h = 1e-6 * np.eye(2)[i]
            difference = value(*(np.array([1.0, 0.5]) + h), adjoint)
            difference = (difference - value(*(np.array([1.0, 0.5]) - h), adjoint)) / 2e-6
            assert abs(derivative - difference) <= 1e-6 * abs(difference)


def test_keys_in_hyper_and_closures(key):
    """Randomness drawn in the loss from a key: the same on the way back as on the way forward."""
    params = problems.init(key)

    def loss(params, hyper, batch):
        t, (x, y) = batch
        noise = jax.random.bernoulli(jax.random.fold_in(hyper["key"], t), 0.8, x.shape)
        closed = jax.random.normal(jax.random.fold_in(key, t), x.shape)
        return problems.cross_entropy(params, x * noise + 0.1 * closed, y)

    batches = lambda t: (t, problems.batches(t))
    training = hg.Training(loss, optimizer=OPTIMIZER, batches=batches, steps=6)
    score = lambda rate, adjoint: problems.valid(
        training(params, {"rate": rate, "key": key}, adjoint=adjoint).params
    )
    stored, replayed = (jax.grad(score)(0.5, a) for a in (hg.Stored(), hg.Checkpointed(slots=2)))
    assert float(stored) == pytest.approx(float(replayed), rel=1e-5)
    assert stored != 0


def test_odd_leaves_in_hyper(key):
    """Python floats, integers, None, strings, functions and keys among the hyperparameters."""
    params = problems.init(key)
    network = eqx.nn.MLP(10, 1, 4, 1, key=key)
    hyper = {
        "rate": 0.3,
        "layers": 2,
        "nothing": None,
        "name": "digits",
        "square": jnp.square,
        "key": key,
        "network": network,
    }

    def loss(params, hyper, batch):
        assert hyper["name"] == "digits"
        assert hyper["nothing"] is None
        penalty = sum(jnp.sum(hyper["square"](params["out"]["w"])) for _ in range(hyper["layers"]))
        return (
            problems.cross_entropy(params, *batch)
            + 1e-3 * penalty * hyper["network"](jnp.ones(10))[0]
        )

    training = hg.Training(loss, optimizer=OPTIMIZER, batches=problems.batches, steps=3)
    gradient = eqx.filter_jit(eqx.filter_grad(lambda h: problems.valid(training(params, h).params)))
    floats = gradient({**hyper, "rate": jnp.asarray(0.3)})
    assert floats["rate"] != 0
    assert floats["layers"] is None
    assert floats["square"] is None
    assert floats["key"] is None
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(floats["network"]))


def test_equinox_module_as_params(key):
    """Functions among the parameters stay; every array is trained and differentiated."""
    network = eqx.nn.MLP(64, 10, 8, 1, activation=jnp.tanh, key=key)

    def loss(network, hyper, batch):
        x, y = batch
        logits = jax.vmap(network)(x)
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(y.size), y])

    training = hg.Training(loss, optimizer=OPTIMIZER, batches=problems.batches, steps=3)
    trained = training(network, {"rate": 0.3}).params
    assert isinstance(trained, eqx.nn.MLP)
    assert trained.activation is network.activation
    score = lambda network: loss(training(network, {"rate": 0.3}).params, {}, problems.data())
    gradient = eqx.filter_grad(score)(network)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(eqx.filter(gradient, eqx.is_array)))


def test_data_as_hyperparameters(key, x64):
    """Derivatives with respect to the training data, through `full_batch`."""
    x, y = problems.data(slice(0, 20))
    params = problems.init(key)

    def score(x):
        training = hg.Training(
            lambda p, h, batch: problems.cross_entropy(p, *batch.data),
            optimizer=OPTIMIZER,
            batches=hg.full_batch((x, y)),
            steps=4,
        )
        return problems.valid(training(params, {"rate": 0.5}).params)

    gradient = jax.grad(score)(x)
    direction = jax.random.normal(key, x.shape)
    difference = (score(x + 1e-6 * direction) - score(x - 1e-6 * direction)) / 2e-6
    assert float(jnp.vdot(gradient, direction)) == pytest.approx(float(difference), rel=1e-6)


def test_large_coefficients_are_pulled_back_at_once(key, x64, monkeypatch):
    """The cotangents of coefficients give the same whether kept for all steps or summed."""
    params, hyper = problems.init(key), problems.hyper(problems.init(key))

    def gradient():
        training = problems.training(hg.Momentum(problems.rate, problems.decay))
        return jax.grad(lambda h: problems.score(training(params, h)))(hyper)

    kept = gradient()
    monkeypatch.setattr("hindgrad.gradient_training.STACK_LIMIT", 0)
    monkeypatch.setattr("hindgrad.trees.size", lambda tree: 0)
    summed = gradient()
    kept.pop("weight_decay"), summed.pop("weight_decay")
    assert problems.relative_error(summed, kept) <= 1e-12


def test_no_recompilation(key):
    """A second call with other values of the same shapes traces nothing again."""
    params, traces = problems.init(key), []

    def loss(params, hyper, batch):
        traces.append(1)
        return problems.cross_entropy(params, *batch)

    training = hg.Training(loss, optimizer=OPTIMIZER, batches=problems.batches, steps=3)
    objective = hg.Objective(
        training, init=lambda h, key: problems.init(key), score=lambda p, h, key: problems.valid(p)
    )
    calls = [
        lambda rate: training(params, {"rate": rate}),
        lambda rate: objective({"rate": rate}),
        lambda rate: objective({"rate": rate}, key),
        lambda rate: jax.value_and_grad(objective)({"rate": rate}),
    ]
    for call in calls:
        call(0.1)
        before = len(traces)
        call(0.2)
        assert len(traces) == before


def test_unroll_does_not_recompile():
    traces = []

    def step(state, hyper, t):
        traces.append(1)
        return state * hyper

    call = lambda h: jax.grad(lambda h: hg.unroll(step, 1.0, h, 3)[0])(h)
    call(0.5)
    before = len(traces)
    call(0.6)
    assert len(traces) == before


def test_misuse_when_called(key):
    make = lambda loss: hg.Training(loss, optimizer=OPTIMIZER, batches=lambda t: t, steps=2)
    with pytest.raises(ValueError, match=r"loss has shape \(2,\)"):
        make(lambda p, h, b: p)(jnp.ones(2), {"rate": 0.1})
    with pytest.raises(ValueError, match="nothing to train"):
        make(lambda p, h, b: 0.0)({"n": 3}, {"rate": 0.1})


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_scalar_that_the_loss_does_not_read(dtype):
    """Its gradient is a constant zero, which JAX gives as a literal; it moves all the same."""
    x = jnp.arange(12.0).reshape(4, 3) / 10
    loss = lambda params, hyper, batch: jnp.mean((x @ params["w"] - 1) ** 2)
    training = hg.Training(
        loss,
        optimizer=hg.Momentum(
            lambda hyper, t: hyper["rate"], weight_decay=hg.Decoupled(lambda hyper, t: hyper["l2"])
        ),
        batches=lambda t: None,
        steps=3,
    )
    start = {"w": jnp.ones(3) / 3, "unread": jnp.asarray(0.5, dtype)}
    score = lambda params, hyper, key: loss(params, hyper, None) + params["unread"].astype(float)
    objective = hg.Objective(training, init=start, score=score)
    hyper = {"rate": jnp.float32(0.1), "l2": jnp.float32(0.01)}
    wanted = jax.grad(lambda h: objective(h, adjoint=hg.Forward()))(hyper)
    for adjoint in (hg.Stored(), hg.Checkpointed(), hg.Truncated(3)):
        found = jax.grad(lambda h, a=adjoint: objective(h, adjoint=a))(hyper)
        for name, value in wanted.items():
            rtol = 1e-5 if dtype == jnp.float32 else 1e-2
            np.testing.assert_allclose(found[name], value, rtol=rtol)

"""Optax optimizers, with their settings as hyperparameters, against a scan by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
import problems

OPTIMIZERS = {
    "sgd": lambda h: optax.sgd(h["rate"]),
    "momentum": lambda h: optax.sgd(h["rate"], momentum=h["decay"]),
    "nesterov": lambda h: optax.sgd(h["rate"], momentum=h["decay"], nesterov=True),
    "adam": lambda h: optax.adam(h["rate"], b1=h["decay"], eps_root=1e-8),
    "adamw": lambda h: optax.adamw(h["rate"], weight_decay=h["decay"], eps_root=1e-8),
    "adamax": lambda h: optax.adamax(h["rate"], b1=h["decay"]),
    "nadam": lambda h: optax.nadam(h["rate"], b1=h["decay"], eps_root=1e-8),
    "amsgrad": lambda h: optax.amsgrad(h["rate"], b1=h["decay"], eps_root=1e-8),
    "adabelief": lambda h: optax.adabelief(h["rate"], b1=h["decay"], eps_root=1e-8),
    "rmsprop": lambda h: optax.rmsprop(h["rate"], decay=h["decay"], eps=1e-6),
    "adagrad": lambda h: optax.adagrad(h["rate"]),
    "adadelta": lambda h: optax.adadelta(h["rate"], rho=h["decay"]),
    "yogi": lambda h: optax.yogi(h["rate"], b1=h["decay"]),
    "lion with decay": lambda h: optax.lion(h["rate"], weight_decay=h["decay"]),
    "lamb": lambda h: optax.lamb(h["rate"], b1=h["decay"], eps_root=1e-8),
    "clipped": lambda h: optax.chain(
        optax.clip_by_global_norm(h["decay"]), optax.sgd(h["rate"], momentum=0.9)
    ),
    "scheduled": lambda h: optax.sgd(lambda count: h["rate"] / (1 + h["decay"] * count)),
}


def by_hand(make, params, hyper):
    def step(state, t):
        params, memory = state
        value, grads = jax.value_and_grad(problems.loss)(params, hyper, problems.batches(t))
        updates, memory = make(hyper).update(grads, memory, params)
        return (optax.apply_updates(params, updates), memory), value

    (params, _), losses = problems.scan(step, (params, make(hyper).init(params)))
    return problems.score(params, losses)


FLOAT32 = {"momentum", "adam"}  # the others are slow tests
CASES = [
    pytest.param(name, bits, marks=() if bits == 64 or name in FLOAT32 else pytest.mark.slow)
    for name in OPTIMIZERS
    for bits in (64, 32)
]


@pytest.mark.parametrize(("name", "bits"), CASES)
def test_against_by_hand(key, name, bits):
    make = OPTIMIZERS[name]
    with jax.enable_x64(bits == 64):
        params = problems.init(key, width=4)
        hyper = {"rate": jnp.asarray(0.02), "decay": jnp.asarray(0.7), "log_l2": jnp.asarray(-4.0)}
        training = problems.training(hg.from_optax(make))
        ours = jax.grad(lambda p, h: problems.score(training(p, h)), argnums=(0, 1))
        theirs = jax.grad(lambda p, h: by_hand(make, p, h), argnums=(0, 1))
        got, wanted = jax.jit(lambda *args: (ours(*args), theirs(*args)))(params, hyper)
    assert problems.relative_error(got, wanted) <= (1e-10 if bits == 64 else 1e-5)


def test_integer_state_goes_on(key):
    """An optimizer whose memory holds a count resumes where it was."""
    params = problems.init(key)
    hyper = {"log_l2": -6.0}
    training = problems.training(hg.from_optax(lambda h: optax.adam(0.01)), 10)
    whole = training(params, hyper)
    first = training(params, hyper, steps=4)
    rest = training(first.params, hyper, state=first.state, start=4, steps=6)
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, whole.params, rest.params)))


def test_odd_leaves_in_hyper(key):
    """The whole of `hyper` reaches the function: strings, integers, None and keys too."""
    params = problems.init(key)
    hyper = {"rate": 0.1, "log_l2": -6.0, "name": "sgd", "n": 2, "none": None, "key": key}
    training = problems.training(hg.from_optax(lambda h: getattr(optax, h["name"])(h["rate"])), 3)
    score = lambda rate: problems.valid(training(params, {**hyper, "rate": rate}).params)
    assert jax.grad(score)(0.1) != 0


ROWS = jnp.asarray(np.random.default_rng(0).normal(size=(20, 3)), jnp.float32)
TARGET = jnp.tanh(ROWS @ jnp.asarray([1.0, -2.0, 0.5]))
START = (0.1, 0.2, 0.3)


def mean_square(w):
    return jnp.mean((ROWS.astype(w.dtype) @ w - TARGET.astype(w.dtype)) ** 2)


def regression(make, loss=lambda w, hyper, t: mean_square(w), adjoint=None, dtype=float, steps=5):
    """The loss after a few steps, as a function of a hyperparameter."""
    training = hg.Training(loss, optimizer=hg.from_optax(make), batches=lambda t: t, steps=steps)

    def score(hyper, start=START):
        return mean_square(training(jnp.asarray(start, dtype), hyper, adjoint=adjoint).params)

    return score


def agree(derivative, score, at, tolerance=1e-5, h=1e-5):
    """Whether a derivative is that of finite differences."""
    wanted = (score(at + h) - score(at - h)) / (2 * h)
    return abs(derivative - wanted) <= tolerance * abs(wanted)


def pause(w, hyper, t):
    """Nothing to learn in the first two steps: all gradients are zero."""
    return jnp.where(t < 2, 0.0, 1.0) * mean_square(w)


FAULTS = {
    "radam": (lambda h: optax.radam(h), r"scale_by_radam is NaN in every step.*hg\.Forward"),
    "lars": (lambda h: optax.lars(h), r"scale_by_trust_ratio .*hg\.Forward"),
    "clip": (
        lambda h: optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(h, momentum=0.9)),
        r"clip_by_global_norm is NaN where all gradients are exactly zero.*safe_norm",
    ),
    "novograd": (lambda h: optax.novograd(h, eps_root=1e-8), r"novograd .*use hg\.Adam"),
    "partitioned": (
        lambda h: optax.partition({"a": optax.amsgrad(h)}, "a"),
        r"scale_by_amsgrad .*pass eps_root=1e-12",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_noticed_and_its_part_named(name):
    """A derivative that is born NaN in the update raises, spread by other parts or not."""
    make, message = FAULTS[name]
    with pytest.raises(Exception, match=message):
        jax.jit(jax.grad(regression(make, pause)))(0.1)


@pytest.mark.parametrize("name", ["radam", "lars", "clip"])
def test_forward_mode_where_the_message_says_so(x64, name):
    score = regression(FAULTS[name][0], pause, hg.Forward())
    assert agree(jax.grad(score)(0.1), score, 0.1)


def test_a_fault_in_forward_mode():
    loss = lambda w, hyper, t: mean_square(w.at[0].set(0.0))
    with pytest.raises(Exception, match=r"scale_by_adam .*exactly zero.*pass eps_root=1e-12"):
        jax.grad(regression(optax.adam, loss, hg.Forward()))(0.1)


def test_an_update_of_ones_own_that_fails():
    """Nothing is known of it but its name."""

    def root(rate):
        def update(grads, state, params=None):
            return jax.tree.map(lambda g: -rate * jnp.sqrt(jnp.abs(g)), grads), state

        return optax.chain(optax.GradientTransformation(optax.init_empty_state, update))

    with pytest.raises(Exception, match="one of root has no derivative there"):
        jax.grad(regression(root, pause))(0.1)


def test_a_fault_that_reaches_nothing_is_none(x64):
    """dog has no derivative by the initial parameters. One by the rate does not need it."""
    score = regression(optax.contrib.dog)
    assert agree(jax.grad(score)(1.1), score, 1.1, 1e-3)
    with pytest.raises(Exception, match="dog is NaN by the initial parameters"):
        jax.grad(score, 1)(1.1, jnp.asarray(START))


def test_overflow_is_no_fault():
    """A cotangent that grows until it overflows is that of a run that is unstable."""
    gradient = jax.grad(regression(lambda h: optax.adagrad(h), steps=3))
    assert np.isfinite(gradient(0.1))
    unstable = lambda w, hyper, t: 1e3 * jnp.sum(jnp.sin(1e3 * w))
    assert not np.isfinite(jax.grad(regression(optax.sgd, unstable, steps=60))(1.0))


def test_infinite_hyperparameters_are_no_divergence():
    """An infinite bound does not hide a fault."""
    make = lambda h: optax.chain(optax.clip(h["most"]), optax.adam(h["rate"]))
    score = regression(make, pause)
    with pytest.raises(Exception, match="pass eps_root"):
        jax.grad(lambda rate: score({"rate": rate, "most": jnp.inf}))(0.1)


def counting(rate):
    """Python numbers in its state, one of which becomes a float."""

    def update(grads, state, params=None):
        total = state["total"] + jnp.sum(grads**2)
        scale = -rate / (1 + state["count"])
        return scale * grads, {"count": state["count"] + 1, "total": total, "on": state["on"]}

    init = lambda params: {"count": 0, "total": 0, "on": np.bool_(True)}
    return optax.GradientTransformation(init, update)


def test_python_numbers_in_the_state(x64):
    score = regression(counting)
    assert agree(jax.grad(score)(0.1), score, 0.1)
    training = hg.Training(
        lambda w, hyper, t: mean_square(w),
        optimizer=hg.from_optax(counting),
        batches=lambda t: t,
        steps=3,
    )
    state = training(jnp.asarray(START), 0.1).state
    assert state["count"] == 3
    assert state["count"].dtype == jnp.int64
    assert state["total"].dtype == jnp.float64


def test_a_key_in_the_state(key):
    """What is drawn in a step is the same in each run."""
    score = regression(lambda h: optax.noisy_sgd(h, eta=0.1, key=key))
    assert score(0.1) == score(0.1)
    assert jnp.isfinite(jax.grad(score)(0.1))


def test_a_count_that_becomes_a_float():
    def halved(rate):
        update = lambda grads, state, params=None: (grads, state / 2)
        return optax.GradientTransformation(lambda params: jnp.int32(4), update)

    with pytest.raises(TypeError, match=r"is int32 before a step and float32 after it.*0\.0"):
        regression(halved)(0.1)


HALF = {
    "momentum": (lambda h: optax.sgd(0.1, momentum=h), 0.5),
    "clip": (lambda h: optax.chain(optax.clip_by_global_norm(h), optax.sgd(0.1)), 0.5),
    "adam": (lambda h: optax.adam(0.1, b1=h, eps_root=1e-6), 0.5),
}


@pytest.mark.parametrize("name", HALF)
def test_hyperparameters_of_more_precision_than_the_parameters(name):
    """bfloat16 parameters and state stay so, under a float32 hyperparameter."""
    make, at = HALF[name]
    training = hg.Training(
        lambda w, hyper, t: mean_square(w.astype(jnp.float32)),
        optimizer=hg.from_optax(make),
        batches=lambda t: t,
        steps=5,
    )
    run = training(jnp.asarray(START, jnp.bfloat16), jnp.float32(at))
    assert run.params.dtype == jnp.bfloat16
    floats = [x for x in jax.tree.leaves(run.state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert all(x.dtype == jnp.bfloat16 for x in floats)
    score = regression(make, lambda w, h, t: mean_square(w.astype(jnp.float32)), dtype=jnp.bfloat16)
    exact = regression(make)
    got = jax.grad(lambda h: score(h).astype(jnp.float32))(at)
    wanted = jax.grad(exact)(at)
    assert abs(got - wanted) <= 0.15 * abs(wanted)


@pytest.mark.parametrize("limit", [jnp.float32(0.5), np.float32(0.5)], ids=["jax", "numpy"])
def test_a_number_closed_over_of_more_precision_than_the_parameters(limit):
    """As if it were a hyperparameter; optax itself refuses a limit in float32 here."""

    def final(rate, clip):
        training = hg.Training(
            lambda w, hyper, t: mean_square(w),
            optimizer=hg.from_optax(lambda rate: optax.chain(clip, optax.sgd(rate))),
            batches=lambda t: t,
            steps=3,
        )
        params = training(jnp.asarray(START, jnp.bfloat16), rate).params
        assert params.dtype == jnp.bfloat16
        return jnp.sum(params.astype(jnp.float32))

    rate = jnp.asarray(0.1, jnp.bfloat16)
    clip = optax.clip_by_global_norm(limit)
    found, right = (jax.grad(final)(rate, c) for c in (clip, optax.clip_by_global_norm(0.5)))
    np.testing.assert_allclose(float(found), float(right), rtol=0.05)


def test_several_steps_to_one(x64):
    """What is no `GradientTransformation`, but has its methods, serves as well. (It sums up in
    float32.)"""
    score = regression(lambda h: optax.MultiSteps(optax.sgd(h, momentum=0.5), 2))
    assert agree(jax.grad(score)(0.1), score, 0.1, 1e-3, h=1e-3)


REFUSED = {
    "polyak_sgd": (lambda h: optax.polyak_sgd(h), "scale_by_polyak takes value besides"),
    "within a chain": (
        lambda h: optax.chain(optax.sgd(h), optax.contrib.reduce_on_plateau()),
        "reduce_on_plateau takes value besides",
    ),
    "lbfgs": (lambda h: optax.lbfgs(h), "scale_by_zoom_linesearch takes value, grad, value_fn"),
    "warm-up": (
        lambda h: optax.sgd(optax.warmup_cosine_decay_schedule(0.0, h, 1, 3)),
        r"warmup_cosine_decay_schedule .*hg\.schedules",
    ),
    "piecewise": (
        lambda h: optax.sgd(optax.piecewise_constant_schedule(0.1, {2: h})),
        r"piecewise_constant_schedule .*hg\.schedules",
    ),
    "not optax": (lambda h: h, "no optax transformation"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    make, message = REFUSED[name]
    with pytest.raises(TypeError, match=message):
        regression(make)(0.1)


def test_an_error_of_ones_own_function_stays():
    with pytest.raises(jax.errors.TracerBoolConversionError):
        regression(lambda h: optax.sgd(0.1 if h > 0 else 0.2))(0.1)


def test_a_schedule_of_ours_as_the_rate(x64):
    """What the message about optax's schedules says to use."""
    schedule = hg.schedules.Linear(knots=2, steps=5)
    make = lambda h: optax.sgd(lambda count: schedule(h, count))
    score, at = regression(make), schedule.init(0.1)
    along = jnp.asarray([1.0, 2.0])
    assert agree(jnp.vdot(jax.grad(score)(at), along), lambda s: score(at + s * along), 0.0)


def test_what_takes_the_value_can_be_unrolled(x64):
    """What the message about further arguments says to use."""

    def step(carry, hyper, t):
        params, state = carry
        value, grads = jax.value_and_grad(mean_square)(params)
        update = optax.polyak_sgd(hyper).update
        updates, state = update(grads, state, params, value=value)
        return optax.apply_updates(params, updates), state

    def score(hyper):
        start = jnp.asarray(START)
        final, _ = hg.unroll(step, (start, optax.polyak_sgd(hyper).init(start)), hyper, 3)
        return mean_square(final[0])

    assert agree(jax.grad(score)(0.1), score, 0.1)


SECOND = {
    "sgd": lambda h: optax.sgd(h, momentum=0.5),
    "adam": lambda h: optax.adam(h, eps_root=1e-8),
}


@pytest.mark.parametrize("name", SECOND)
def test_second_derivatives(x64, name):
    loss = lambda w, hyper, t: jnp.sum(jnp.cos(w))
    score = regression(SECOND[name], loss, hg.Stored())
    assert agree(jax.grad(jax.grad(score))(0.1), jax.grad(score), 0.1)
    assert agree(jax.hessian(score)(0.1), jax.grad(score), 0.1)


@pytest.mark.parametrize("name", SECOND)
def test_an_inner_training_within_a_loss(x64, name):
    """MAML: the outer loss is that of the parameters adapted by an inner training, so that the
    hypergradient takes second derivatives of the inner one."""
    inner = regression(SECOND[name], adjoint=hg.Stored(), steps=3)
    outer = hg.Training(
        lambda w, hyper, t: inner(hyper["inner"], w),
        optimizer=hg.from_optax(lambda h: optax.sgd(h["outer"])),
        batches=lambda t: t,
        steps=3,
    )

    def score(rate):
        hyper = {"inner": rate, "outer": 0.1}
        return mean_square(outer(jnp.asarray(START), hyper, adjoint=hg.Stored()).params)

    assert agree(jax.grad(score)(0.05), score, 0.05)


def test_a_schedule_with_an_empty_cell(key):
    """`exponential_decay` closes over a function that it only makes where it clips."""
    schedule = optax.exponential_decay(0.1, 10, 0.9)
    run = problems.training(hg.from_optax(lambda hyper: optax.sgd(schedule)), 5)
    params = problems.init(key)
    assert jnp.all(jnp.isfinite(run(params, problems.hyper(params)).losses))

"""Optax optimizers, with their settings as hyperparameters, against a scan by hand."""

import jax
import jax.numpy as jnp
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

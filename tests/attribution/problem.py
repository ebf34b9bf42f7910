"""A run small enough to be written by hand: weights, labels, features and settings as causes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import hindgrad as hg
from hindgrad import trees

ROWS, FEATURES, CLASSES, STEPS, BATCH = 24, 3, 3, 15, 8
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(ROWS, FEATURES))
Y = np.argmax(X @ RANDOM.normal(size=(FEATURES, CLASSES)) + RANDOM.normal(size=(ROWS, CLASSES)), 1)
QUERIES = RANDOM.normal(size=(5, FEATURES)), np.array([0, 1, 2, 1, 0])
GROUPS = np.arange(ROWS) // 4


def network(params, x):
    return jnp.tanh(x @ params["in"]) @ params["out"]


def nll(params, x, labels):
    return -jnp.sum(labels * jax.nn.log_softmax(network(params, x)), -1)


def loss(params, hyper, batch):
    """Of a minibatch: everything in `hyper` by the numbers of its rows."""
    rows = batch.index
    x = batch.data + hyper["pixels"][rows]
    weights = hyper["weight"][rows] * hyper["group"][jnp.asarray(GROUPS)[rows]]
    penalty = hyper["l2"] * sum(jnp.sum(w**2) for w in params.values())
    return jnp.mean(weights * nll(params, x, hyper["label"][rows])) + penalty


def start():
    random = np.random.default_rng(1)
    return {"in": random.normal(size=(FEATURES, 4)), "out": random.normal(size=(4, CLASSES))}


def init(hyper, key):
    del key
    return jax.tree.map(lambda w: hyper["scale"] * jnp.asarray(w), start())


def queries(params, hyper, key):
    """The loss at each of five rows."""
    del hyper, key
    x, y = QUERIES
    return nll(params, jnp.asarray(x), jax.nn.one_hot(y, CLASSES, dtype=params["in"].dtype))


def hyper():
    return {
        "weight": np.linspace(0.5, 1.5, ROWS),
        "group": np.linspace(1.2, 0.8, ROWS // 4),
        "label": np.eye(CLASSES)[Y],
        "pixels": np.zeros((ROWS, FEATURES)),
        "rate": np.full(STEPS, 0.4),
        "decay": 0.6,
        "l2": 0.01,
        "scale": 0.7,
    }


def weight(hyper):
    return hyper["weight"]


def objective(optimizer=None, **options):
    momentum = hg.Momentum(lambda hyper, t: hyper["rate"][t], lambda hyper, t: hyper["decay"])
    training = hg.Training(
        options.get("loss", loss),
        optimizer=optimizer or momentum,
        batches=hg.minibatches(jnp.asarray(X), size=BATCH, key=0),
        steps=options.get("steps", STEPS),
    )
    return hg.Objective(training, init=options.get("init", init), score=lambda *_: 0.0)


def of_weights(**options):
    """The same run, of which the weights are the only hyperparameters, at one."""
    fixed = lambda hyper: trees.as_hyper(hyper_with(hyper["weight"]))
    rate = options.pop("rate", 0.4)
    training = hg.Training(
        lambda params, hyper, batch: loss(params, fixed(hyper), batch),
        optimizer=options.pop("optimizer", hg.Momentum(rate, 0.6)),
        batches=options.pop("batches", hg.minibatches(jnp.asarray(X), size=BATCH, key=0)),
        steps=options.pop("steps", STEPS),
    )
    begin = lambda given, key: init(fixed(given), key)
    return hg.Objective(training, init=begin, score=queries), {"weight": np.ones(ROWS)}


def hyper_with(weights):
    return hyper() | {"weight": weights}


@functools.cache
def rows_of(t):
    return np.asarray(hg.minibatches(jnp.arange(ROWS), size=BATCH, key=0)(t).index)


def by_hand(hyper):
    """The queries [5] after the same run as a loop in NumPy's float64, from nothing but the rows
    of each batch: gradients, momentum and all."""
    params = {name: hyper["scale"] * w for name, w in start().items()}
    speed = {name: np.zeros_like(w) for name, w in params.items()}
    for t in range(STEPS):
        rows = rows_of(t)
        x = X[rows] + hyper["pixels"][rows]
        hidden = np.tanh(x @ params["in"])
        labels = hyper["label"][rows]
        weights = hyper["weight"][rows] * hyper["group"][GROUPS[rows]] / BATCH
        errors = _softmax(hidden @ params["out"]) * labels.sum(1, keepdims=True) - labels
        errors = weights[:, None] * errors
        back = (errors @ params["out"].T) * (1 - hidden**2)
        grads = {"in": x.T @ back, "out": hidden.T @ errors}
        for name in params:
            grad = grads[name] + 2 * hyper["l2"] * params[name]
            speed[name] = hyper["decay"] * speed[name] - (1 - hyper["decay"]) * grad
            params[name] = params[name] + hyper["rate"][t] * speed[name]
    x, y = QUERIES
    return -np.log(_softmax(np.tanh(x @ params["in"]) @ params["out"])[np.arange(len(y)), y])


def _softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)

"""Dependence of results on arguments, and closures made part of a pytree."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
from hindgrad import trees


def test_dependence():
    def function(x):
        return {
            "x": jnp.sin(x["a"])[0],
            "constant": jnp.ones(2),
            "loop": jax.lax.fori_loop(0, 3, lambda i, c: c * x["a"][1], 1.0),
            "name": "no array",
        }

    struct, depends = trees.dependence(function, {"a": jnp.ones(3)})
    assert depends == {"x": True, "constant": False, "loop": True, "name": None}
    assert struct["constant"].shape == (2,)


def test_closed_functions_carry_their_arrays():
    def outer(x):
        closed = trees.close(lambda y: {"sum": x + y, "constant": jnp.asarray(0.5)}, x)
        arrays, static = eqx.partition(closed, eqx.is_array)
        doubled = eqx.combine(jax.tree.map(lambda a: 2 * a, arrays), static)
        return doubled(1.0 * x), closed(x)["constant"] * x

    result, half = jax.jit(outer)(3.0)
    assert (result["sum"], result["constant"], half) == (9.0, 0.5, 1.5)


def test_as_hyper():
    hyper = {"f": 0.5, "i": 3, "none": None, "array": np.ones(2), "function": jnp.sin, "flag": True}
    got = trees.as_hyper(hyper)
    assert eqx.is_array(got["f"])
    assert not got["f"].weak_type
    assert isinstance(got["array"], jax.Array)
    assert (got["i"], got["none"], got["function"], got["flag"]) == (3, None, jnp.sin, True)


def test_sizes():
    tree = {"a": jnp.zeros((2, 3)), "b": np.zeros(4, np.float64), "c": None}
    assert trees.size(tree) == 10
    assert trees.nbytes(tree) == 6 * 4 + 4 * 8


def test_norm_is_of_all_floats_in_their_widest_type(x64):
    tree = {"a": jnp.array([3.0], jnp.bfloat16), "b": jnp.array([4j]), "n": 7, "e": jnp.zeros(0)}
    with jax.numpy_dtype_promotion("strict"):
        norm = trees.norm(tree)
    assert norm == 5
    assert norm.dtype == jnp.float64
    assert trees.norm({"a": jnp.full(4, 0.5, jnp.float16)}).dtype == jnp.float32
    assert trees.widest(jnp.bfloat16, np.float16) == np.float32
    assert trees.norm({"n": 1}) == 0


class Layer(eqx.Module):
    """What a module of one's own may hold."""

    weight: jax.Array
    slope: float = 0.1
    table: np.ndarray = eqx.field(default_factory=lambda: np.ones(3))
    name: str = "layer"

    def __call__(self, x):
        hidden = (x * self.table[None]) @ self.weight
        return jnp.where(hidden > 0, hidden, self.slope * hidden)


def test_of_a_module_only_jax_arrays_are_trained():
    layer = Layer(jnp.ones(3))
    trained, rest = trees.split_trained({"a": layer, "b": np.ones(2), "c": 0.5, "n": 3})
    assert [x.shape for x in jax.tree.leaves(trained)] == [(3,), (2,), ()]
    assert rest["a"].slope == 0.1
    assert isinstance(rest["a"].table, np.ndarray)
    assert rest["n"] == 3


def trained_by(way):
    layer = Layer(jnp.array([0.3, 0.2, -0.1]))
    x = jax.random.normal(jax.random.key(0), (20, 3))
    loss = lambda model, hyper, batch: jnp.mean((model(x) - jax.nn.relu(x[:, 0])) ** 2)
    training = hg.Training(
        loss, optimizer=hg.Adam(lambda h, t: h["rate"]), batches=lambda t: None, steps=8
    )
    return way(training, layer, {"rate": 0.05}, loss)


def through_training(training, layer, hyper, loss):
    return training(layer, hyper).params


def through_jit(training, layer, hyper, loss):
    params = jax.jit(lambda h: training(layer, h).params.weight)(hyper)
    return eqx.tree_at(lambda m: m.weight, layer, params)


def through_online(training, layer, hyper, loss):
    tuned = hg.tune_online(training, layer, hyper, loss, optax.sgd(0.0), every=2, progress=False)
    return tuned.params


def through_objective(training, layer, hyper, loss):
    def score(model, hyper, key):
        return jnp.sum(model.weight * jnp.array([1.0, 10.0, 100.0])) + 1e4 * jnp.sum(model.table)

    values = [
        hg.Objective(training, init=init, score=score)(hyper)
        for init in (layer, lambda h, k: layer)
    ]
    assert values[0] == values[1]
    return through_training(training, layer, hyper, loss)


@pytest.mark.parametrize("way", [through_training, through_jit, through_online, through_objective])
def test_settings_of_a_module_stay(way):
    """A slope of 0.1 became −.003, and a NumPy table was trained."""
    params = trained_by(way)
    assert params.slope == 0.1
    np.testing.assert_array_equal(params.table, np.ones(3))
    assert np.abs(params.weight - jnp.array([0.3, 0.2, -0.1])).max() > 0.1


def test_attention(key):
    """Its dropout holds a Python float."""
    attention = eqx.nn.MultiheadAttention(2, 4, key=key)
    x = jax.random.normal(key, (5, 4))
    training = hg.Training(
        lambda m, h, b: jnp.mean((m(x, x, x) - 1) ** 2),
        optimizer=hg.Momentum(0.1),
        batches=lambda t: None,
        steps=3,
    )
    for adjoint in (hg.Stored(), hg.Reversible(), hg.Forward()):
        assert np.isfinite(training(attention, None, adjoint=adjoint).losses).all()

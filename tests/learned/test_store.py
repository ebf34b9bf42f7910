"""Learned optimizers in files."""

import json
import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from hindgrad.learned import (
    CoordinateLSTM,
    LearnedOptimizer,
    LogSign,
    MomentumMLP,
    Partitioned,
    Quadratics,
    RNNProp,
    View,
    by_kind,
    learned_curves,
    load,
    save,
    store,
)

SMALL = CoordinateLSTM(hidden=(3,), scale=0.01)

OPTIMIZERS = [
    SMALL,
    CoordinateLSTM((4, 2), preprocess=None),
    CoordinateLSTM((2,), LogSign(5.0), scale=1 / 3, second_derivatives=True),
    RNNProp((2,), decays=(0.9, 0.999)),
    MomentumMLP((3,), decays=(0.1, 0.9)),
    Partitioned({"dense": MomentumMLP((2,)), "bias": Partitioned({"bias": SMALL})}),
    Partitioned({"bias": SMALL, "dense": SMALL}, by_kind),
    Partitioned({"a": SMALL, "b": SMALL}, {"w": "a", "b": ("b", ["a", "b"])}),
]


def drawn(optimizer):
    """Weights by NumPy, which compiles nothing."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(optimizer.weights, jax.random.key(0))
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), jnp.float32), shapes)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_what_is_loaded_is_what_was_saved(tmp_path, optimizer):
    weights, notes = drawn(optimizer), {"seed": 3, "on": ["quadratics", None, 0.1]}
    save(tmp_path / "mine.safetensors", optimizer, weights, notes)
    loaded = load(tmp_path / "mine.safetensors")
    assert eqx.tree_equal(loaded.optimizer, optimizer)
    assert eqx.tree_equal(loaded.weights, weights)
    assert loaded.notes == notes
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]


def test_equal_content_gives_equal_bytes(tmp_path):
    """Whatever the layout of the weights in memory, and the order of notes and parts."""
    other = MomentumMLP((2,))
    for name, parts, notes in (
        ("one", {"dense": other, "bias": SMALL}, {"a": 1, "b": 2}),
        ("two", {"bias": SMALL, "dense": other}, {"b": 2, "a": 1}),
    ):
        optimizer = Partitioned(parts)
        layout = np.asfortranarray if name == "two" else np.ascontiguousarray
        weights = jax.tree.map(layout, drawn(optimizer))
        save(tmp_path / name, optimizer, weights, notes)
        assert eqx.tree_equal(load(tmp_path / name).weights, drawn(optimizer))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


PROGRAM = """
import sys, jax, numpy as np
from hindgrad.learned import Quadratics, learned_curves, load

trained = load(sys.argv[1])
key = jax.random.key(5)
losses = learned_curves(trained.optimizer, trained.weights, Quadratics(4), key, count=3, steps=9)
print(np.asarray(losses).tobytes().hex())
"""


def test_the_curve_is_the_same_to_the_bit_in_another_process(tmp_path):
    path, weights = tmp_path / "mine.safetensors", drawn(SMALL)
    save(path, SMALL, weights)
    curves = learned_curves(SMALL, weights, Quadratics(4), jax.random.key(5), count=3, steps=9)
    assert np.ptp(curves, axis=1).min() > 0
    call = [sys.executable, "-c", PROGRAM, str(path)]
    said = subprocess.run(call, capture_output=True, text=True, check=True, env=dict(os.environ))
    assert said.stdout.strip() == np.asarray(curves).tobytes().hex()


def test_as_optax_takes_the_same_steps(tmp_path):
    save(tmp_path / "mine", SMALL, drawn(SMALL))
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(2)}
    ours = load(tmp_path / "mine").as_optax()
    theirs = SMALL.as_optax(drawn(SMALL))
    steps = [o.update(params, o.init(params), params)[0] for o in (ours, theirs)]
    assert eqx.tree_equal(*steps)
    assert float(jnp.abs(steps[0]["w"]).max()) > 0


def test_the_file_is_plain_safetensors(tmp_path):
    """Arrays by name, and JSON beside them: nothing that runs."""
    weights = drawn(SMALL)
    save(tmp_path / "mine.safetensors", SMALL, weights, {"seed": 1})
    with safe_open(tmp_path / "mine.safetensors", framework="numpy") as file:
        metadata = file.metadata()
        np.testing.assert_array_equal(
            file.get_tensor("layers.0.matrix"), weights["layers"][0]["matrix"]
        )
    assert metadata["format"] == "hindgrad learned optimizer 1"
    assert json.loads(metadata["optimizer"])["class"] == "CoordinateLSTM"
    assert json.loads(metadata["notes"]) == {"seed": 1}


class Mine(LearnedOptimizer):
    """Somebody's own."""

    second_derivatives: bool = False

    def weights(self, key):
        return jnp.ones(())

    def begin(self, params):
        return None

    def step(self, weights, grads, memory):
        return jax.tree.map(lambda g: -weights * g, grads), memory


class Signs(View):
    """A view of somebody's own."""

    features = property(lambda self: 1)
    outputs = property(lambda self: 1)

    def begin(self, params):
        return None

    def see(self, grads, memory):
        return jnp.sign(grads), None, memory

    def say(self, outputs, unit):
        return outputs[0]


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (Mine(), r"Cannot save the optimizer, Mine\(.*never code. Instead, save the weights alone"),
        (CoordinateLSTM((2,), Signs()), "Cannot save the optimizer's preprocess, Signs"),
        (Partitioned({"a": Mine()}), r"Cannot save the optimizer's parts\['a'\], Mine"),
        (
            Partitioned({"a": SMALL}, lambda params: "a"),
            "Cannot save the optimizer's labels, .*Instead, give labels as a tree of names",
        ),
        (CoordinateLSTM((2,), scale=float("nan")), "scale, nan.*use Python numbers"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(tmp_path, optimizer, message):
    with pytest.raises(ValueError, match=message) as error:
        save(tmp_path / "mine", optimizer, drawn(optimizer))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_weights_of_another_optimizer_are_refused(tmp_path):
    other = drawn(CoordinateLSTM((4,)))
    with pytest.raises(ValueError, match=r"do not belong.*layers\.0\.bias has shape \(16,\)"):
        save(tmp_path / "mine", SMALL, other)
    with pytest.raises(ValueError, match=r"output\.bias is missing"):
        save(tmp_path / "mine", SMALL, {"layers": drawn(SMALL)["layers"]})
    half = jax.tree.map(lambda w: w.astype(jnp.float16), drawn(SMALL))
    with pytest.raises(ValueError, match="are float16; a file holds float32"):
        save(tmp_path / "mine", SMALL, half)
    with pytest.raises(ValueError, match="Give texts, finite numbers"):
        save(tmp_path / "mine", SMALL, drawn(SMALL), {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_float64_elsewhere_does_not_matter(tmp_path, x64):
    weights = drawn(SMALL)
    save(tmp_path / "mine", SMALL, weights)
    assert eqx.tree_equal(load(tmp_path / "mine").weights, weights)


def changed(tmp_path, **metadata):
    """A file with other metadata."""
    save(tmp_path / "mine", SMALL, drawn(SMALL))
    with safe_open(tmp_path / "mine", framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        old = file.metadata()
    new = {name: v for name, v in (old | metadata).items() if v is not None}
    safetensors.numpy.save_file(arrays, tmp_path / "changed", metadata=new)
    return tmp_path / "changed"


UNKNOWN = json.dumps({"class": "Path", "fields": {}})
OTHER = json.dumps({"class": "CoordinateLSTM", "fields": {"hidden": {"tuple": [5]}}})
VIEW = json.dumps({"class": "LogSign", "fields": {}})
WRONG = json.dumps({"class": "CoordinateLSTM", "fields": {"depth": 3}})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": None}, "no learned optimizer. Give one that hg.learned.save wrote"),
        ({"format": "hindgrad network 1"}, "no learned optimizer"),
        ({"format": "hindgrad learned optimizer 2"}, "version 2 of the format"),
        ({"optimizer": UNKNOWN}, "needs 'Path', which this hindgrad does not have"),
        ({"optimizer": OTHER}, r"not those of the architecture in it: layers\.0\.bias has shape"),
        ({"optimizer": WRONG}, "damaged"),
        ({"optimizer": VIEW}, "is no learned optimizer"),
        ({"optimizer": "{"}, "damaged"),
        ({"optimizer": None}, "damaged"),
        ({"optimizer": '{"function": "system"}'}, "damaged"),
        ({"notes": "["}, "damaged"),
    ],
)
def test_a_file_of_another_kind_is_one_clear_error(tmp_path, metadata, message):
    path = changed(tmp_path, **metadata)
    with pytest.raises(ValueError, match=message) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_damaged_file_is_one_clear_error(tmp_path):
    save(tmp_path / "whole", SMALL, drawn(SMALL))
    content = (tmp_path / "whole").read_bytes()
    for damaged in (b"", b"PK not really", content[:100], content[:-3]):
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged: not readable as safetensors"):
            load(tmp_path / "damaged")


def test_a_name_or_path_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SHIPPED", tmp_path)
    for name in ("two", "one"):
        save(tmp_path / f"{name}.safetensors", SMALL, drawn(SMALL), {"name": name})
    assert load("one").notes == {"name": "one"}
    with pytest.raises(ValueError, match=r"'three'.*come with the package: 'one', 'two'\. For one"):
        load("three")
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "three.safetensors")
    with pytest.raises(ValueError, match="is no file"):
        load(tmp_path)


@pytest.mark.parametrize("name", store.shipped())
def test_what_ships_loads_and_says_what_it_was_learned_on(name):
    trained = load(name)
    assert trained.notes
    assert isinstance(trained.optimizer, LearnedOptimizer)


def test_every_class_of_the_library_is_known():
    names = {"CoordinateLSTM", "LogSign", "MomentumMLP", "Partitioned", "RNNProp"}
    assert names <= set(store.known())
    assert "Mine" not in store.known()
    assert "LearnedOptimizer" not in store.known()

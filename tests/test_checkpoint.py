"""Checkpoints: what is kept, whose it is, and what becomes of a damaged one."""

import shutil
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hindgrad as hg
from hindgrad import checkpoint
from hindgrad.checkpoint import Call, Checkpoint, contents, described
from hindgrad.tuning.probes import measures, moves

STEPS = 4
HYPER = {"a": jnp.zeros(3), "b": 1.0, "n": 3}


def bowl(hyper):
    return jnp.sum((hyper["a"] - 1.0) ** 2) + hyper["b"] ** 2


def steep(hyper):
    return 2 * bowl(hyper)


ADAM = optax.adam(0.1)


def tuned(directory, objective=bowl, hyper=HYPER, optimizer=ADAM, **options):
    options = {"steps": STEPS, "progress": False, "diagnose": False} | options
    return hg.tune(objective, hyper, optimizer, checkpoint=directory, **options)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A directory with the states of the last two steps, and the result."""
    directory = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "SECONDS_BETWEEN_SAVES", 0.0)
        result = tuned(directory)
    return directory, result


def damaged(kept, tmp_path, damage, states=(STEPS,)):
    directory = tmp_path / "damaged"
    shutil.copytree(kept[0], directory)
    for state in states:
        damage(directory / "states" / str(state))
    return directory


def cut(state):
    for file in state.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def zero(state):
    for file in state.rglob("*"):
        if file.is_file():
            file.write_bytes(bytes(file.stat().st_size))


def empty(state):
    shutil.rmtree(state)
    state.mkdir()


def unfinished(state):
    state.rename(state.with_name(f"{state.name}.orbax-checkpoint-tmp-0"))


DAMAGES = {
    "cut": cut,
    "zeros": zero,
    "empty": empty,
    "unfinished": unfinished,
    "no arrays": lambda state: shutil.rmtree(state / "arrays"),
    "no notes": lambda state: shutil.rmtree(state / "notes"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_state_is_made_again_from_the_one_before(kept, tmp_path, name):
    directory = damaged(kept, tmp_path, DAMAGES[name])
    for _ in range(2):  # the second time nothing is damaged
        result = tuned(directory)
        assert result.history == kept[1].history
        assert jnp.array_equal(result.hyper["a"], kept[1].hyper["a"])


@pytest.mark.parametrize("damage", [DAMAGES["cut"], DAMAGES["no arrays"]])
def test_if_no_state_can_be_read_the_directory_is_named(kept, tmp_path, damage):
    directory = damaged(kept, tmp_path, damage, states=(STEPS - 1, STEPS))
    with pytest.raises(ValueError, match=rf"{directory} cannot be read: .* Delete the directory"):
        tuned(directory)


def test_files_are_no_directories(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "states").write_text("mine")
    for directory in (file, file / "below", tmp_path / "foreign"):
        with pytest.raises(ValueError, match=rf"{directory} cannot be a directory"):
            tuned(directory)
    assert file.read_text() == "mine"


def test_another_programs_states_are_left_alone(tmp_path):
    theirs = tmp_path / "states" / "7" / "weights"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    with pytest.raises(ValueError, match="another program's"):
        tuned(tmp_path)
    assert theirs.read_text() == "theirs"


def test_one_call_at_a_time(tmp_path):
    """While one runs, another is refused; after it, and after an error, the directory is free."""

    def meddling(hyper):
        with pytest.raises(
            RuntimeError, match=f"Another call is using the checkpoint in {tmp_path}"
        ):
            tuned(tmp_path)
        raise KeyError("a mistake")

    with pytest.raises(KeyError, match="a mistake"):
        tuned(tmp_path, meddling)
    assert tuned(tmp_path).value < 4


def test_a_start_that_fails_leaves_the_directory_free(tmp_path):
    with pytest.raises(ValueError, match="cannot begin there"):
        tuned(tmp_path, lambda hyper: jnp.nan * bowl(hyper))
    assert tuned(tmp_path).value < 4


OTHERS = {
    "objective": {"objective": steep},
    "optimizer": {"optimizer": optax.adam(0.1, b1=0.8)},
    "hyper": {"hyper": HYPER | {"n": 4}},
    "project": {"project": hg.constraints.Box(a=(None, 9.0))},
    "patience": {"patience": 7},
    "average": {"average": 0.25},
    "steps": {"steps": STEPS + 1},
    "adjoint": {"adjoint": hg.Stored(), "objective": None},
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_call_is_refused(kept, name):
    """Functions, which cannot be compared, are told apart by the first numbers that they give."""
    training = hg.Training(
        lambda w, h, batch: h["b"] * w**2,
        optimizer=hg.Momentum(0.1, 0.5),
        batches=lambda t: None,
        steps=1,
    )
    run = hg.Objective(training, init=jnp.ones(()), score=lambda w, h, key: w**2 + bowl(h))
    options: Any = {k: run if v is None else v for k, v in OTHERS[name].items()}
    with pytest.raises(ValueError, match=f"belongs to a call with another `{name}`"):
        tuned(kept[0], **options)


def test_what_concerns_the_end_may_be_another(kept):
    result = tuned(kept[0], choose=lambda hyper: hyper["b"], diagnose=True)
    assert result.history == kept[1].history
    assert result.diagnosis is not None


AWKWARD = {
    "empty": jnp.zeros((0, 2)),
    "a.b": 1.0,
    "a": {"b": 2.0},
    "bf16": jnp.ones(2, jnp.bfloat16),
    "bounds": jnp.array([jnp.inf, 0.0]),
    "z": jnp.complex64(1j),
    "text": "x",
    "none": None,
    "network": eqx.nn.MLP(1, 1, 2, 1, key=jax.random.key(0)),
    "key": jax.random.key(3),
}


def awkward(hyper):
    small = jnp.sum(hyper["bf16"].astype(jnp.float32) ** 2) + jnp.sum(hyper["empty"])
    pair = (hyper["a.b"] - 2 * hyper["a"]["b"]) ** 2 + jnp.abs(hyper["z"]) ** 2
    return small + pair + jnp.sum(hyper["network"](jnp.ones(1)) ** 2)


def test_all_kinds_of_hyperparameters_are_kept(tmp_path, monkeypatch):
    """Interrupted at the second step, it ends as without; empty arrays, names with dots, infinite
    numbers, modules, keys."""
    whole = tuned(None, awkward, AWKWARD)

    def interrupt(bar, record, best):
        if record.step == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr("hindgrad.tuning.tune.show_record", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path, awkward, AWKWARD)
    monkeypatch.undo()
    assert (tmp_path / "states" / "2").is_dir()
    result = tuned(tmp_path, awkward, AWKWARD)
    assert repr(result.history) == repr(whole.history)
    for got, wanted in zip(*map(jax.tree.leaves, (result.hyper, whole.hyper)), strict=True):
        assert got is wanted or np.array_equal(_data(got), _data(wanted))


def _data(leaf):
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


class Kept(NamedTuple):
    tree: Any
    points: list
    text: str


def test_numbers_keep_their_types(tmp_path):
    """Python's among the arrays, and what is no number at all."""
    tree = {"n": 3, "x": 0.1, "yes": True, "f": jnp.tanh, "k": jax.random.key(1), "e": jnp.ones(0)}
    with Checkpoint(tmp_path, lambda: Call({})) as store:
        store.save(1, Kept(tree, [jnp.ones(2)] * 3, "here"), ("text",), now=True)
    empty = tree | {"n": 0, "x": 0.0, "yes": False, "k": jax.random.key(0)}
    begin = Kept(empty, [], "")
    like = lambda notes: begin._replace(points=[jnp.zeros(2)] * notes["points"])
    with Checkpoint(tmp_path, lambda: Call({})) as store:
        restored, points, text = store.restore(begin, like, ("text",))
    assert text == "here"
    assert len(points) == 3
    assert (restored["n"], restored["x"], restored["yes"], restored["f"]) == (
        3,
        0.1,
        True,
        jnp.tanh,
    )
    assert type(restored["yes"]) is bool
    assert restored["k"] == tree["k"]


def test_words_and_digests():
    """Addresses in memory are left out; every bit of an array counts."""
    assert "0x" not in described(lambda x: x)
    assert described(hg.Stored()) == "Stored()"
    one, other = (contents({"a": np.array([0.0, x])}) for x in (1.0, 1.0 + 1e-15))
    assert one != other
    assert one == contents({"a": np.array([0.0, 1.0])})
    assert contents({"a": jnp.ones(1)}) != contents({"b": jnp.ones(1)})
    assert measures({"a": jnp.ones(3)})[0] == pytest.approx(3**0.5)
    assert measures({"a": jnp.ones(3)})[1] != measures({"a": -jnp.ones(3)})[1]


@pytest.mark.parametrize(
    "other",
    [
        optax.adam(0.2),
        optax.adam(0.1, b2=0.9),
        optax.sgd(0.1),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)),
        optax.chain(optax.clip_by_global_norm(5.0), optax.sgd(0.1)),
        optax.polyak_sgd(),
    ],
)
def test_optimizers_are_told_apart(other):
    params = {"a": jnp.ones(3), "b": jnp.zeros((2, 2))}
    one, another = moves(ADAM, params), moves(other, params)
    assert one == moves(optax.adam(0.1), params)
    assert not np.allclose(one, another, rtol=1e-3)

"""Which rows train, validate and test."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from hindgrad.apps import datasets
from hindgrad.apps.clean.suspicion import Learner, cleaning, folds
from hindgrad.apps.distill.command import divide
from hindgrad.apps.model import Network, draw_problem
from hindgrad.apps.splits import Grouped, set_aside, split_of
from hindgrad.apps.table import DataError, Table, read

RNG = np.random.default_rng(0)
ROWS = 120
SIZES = [1] * 20 + [4] * 15 + [10] * 4
GROUPS = RNG.permutation(np.repeat(np.arange(len(SIZES)), SIZES)).astype(np.int32)


def grouped(groups=GROUPS):
    y = np.arange(len(groups), dtype=np.int32) % 3
    x = np.arange(len(groups), dtype=float)[:, None]
    table = Table("t", x, y, "classification", ("a", "b", "c"), ("x",), "y")
    return replace(table, groups=groups)


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_two_sides_of_any_split(seed):
    table = grouped()
    pool, tested = set_aside(table, 0.2, seed)
    assert sorted([*pool, *tested]) == list(range(ROWS))
    assert not set(GROUPS[pool]) & set(GROUPS[tested])
    assert 0.1 < len(tested) / ROWS < 0.3
    division = split_of(table, pool, 0.25)
    seen = set()
    for key in jax.random.split(jax.random.key(seed), 20):
        train, valid = (pool[np.asarray(part)] for part in division.draw(key))
        assert not set(GROUPS[train]) & set(GROUPS[valid])
        assert len(set(train)) == len(train) == len(division.train_slots)
        assert len(train) + len(valid) == len(pool) - 9
        seen |= set(valid)
    assert len(seen) > 0.9 * len(pool)


def test_two_large_groups_are_one_for_each_part():
    table = grouped(np.repeat(np.arange(3), 40).astype(np.int32))
    pool, tested = set_aside(table, 0.2, 0)
    assert len(np.unique(table.groups[tested])) == 1
    train, valid = split_of(table, pool, 0.25).draw(jax.random.key(0))
    groups = table.groups[pool]
    assert not set(groups[np.asarray(train)]) & set(groups[np.asarray(valid)])
    assert min(len(train), len(valid)) > 0


def test_one_group_for_all_is_refused():
    table = grouped(np.zeros(ROWS, np.int32))
    with pytest.raises(DataError, match="--test leaves no row to validate by"):
        split_of(table, np.arange(ROWS), 0.25)


def test_distill_and_clean_divide_whole_groups():
    parts = divide(grouped().y, 0.2, 0.2, 0, GROUPS)
    assert sorted(np.concatenate(parts)) == list(range(ROWS))
    for i, part in enumerate(parts):
        assert len(part)
        assert all(not set(GROUPS[part]) & set(GROUPS[other]) for other in parts[i + 1 :])
    x, y = np.zeros((ROWS, 1)), grouped().y
    problem = cleaning(x, y, np.zeros(ROWS, bool), Learner((1, 3), 10), GROUPS)
    assert isinstance(problem.division, Grouped)
    divided = folds(problem, jax.random.key(0))
    assert sorted(np.concatenate(divided)) == list(range(ROWS))
    assert len(divided) == 5
    for i, fold in enumerate(divided):
        assert all(not set(GROUPS[fold]) & set(GROUPS[other]) for other in divided[i + 1 :])
    halves = problem.split(jax.random.key(1))
    assert not set(GROUPS[np.asarray(halves[0])]) & set(GROUPS[np.asarray(halves[1])])


def test_a_column_names_the_groups_and_is_no_feature(tmp_path):
    path = tmp_path / "a.csv"
    lines = [f"{i * i % 17},p{GROUPS[i]},{'xyz'[i % 3]}" for i in range(ROWS)]
    lines[5] = "3,,x"  # nobody's
    path.write_text("a,patient,kind\n" + "\n".join(lines) + "\n")
    table = read(str(path), group="patient")
    assert table.features == ("a",)
    assert table.groups is not None
    same = table.groups[:, None] == table.groups[None]
    expected = (GROUPS[:, None] == GROUPS[None]) & (np.arange(ROWS) != 5)[None]
    expected &= (np.arange(ROWS) != 5)[:, None]
    np.testing.assert_array_equal(same, expected | np.eye(ROWS, dtype=bool))
    assert (
        table.notes[-1] == f"Rows of one 'patient' stay together ({table.groups.max() + 1} groups)."
    )
    assert table.fingerprint() != read(str(path), drop=["patient"]).fingerprint()


def test_the_built_in_phoneme_keeps_its_speakers_together(tmp_path, monkeypatch):
    monkeypatch.setenv(datasets.FOLDER, str(tmp_path))
    np.savez(
        tmp_path / "phoneme.npz",
        x=RNG.normal(size=(ROWS, 4)).astype(np.float32),
        y=(np.arange(ROWS) % 2).astype(np.uint8),
        classes=np.array(["aa", "ao"]),
        speaker=np.array([f"train.s{g}" for g in GROUPS]),
    )
    table = read("phoneme")
    assert len(np.unique(table.groups)) == len(SIZES)
    assert table.notes == (f"Rows of one 'speaker' stay together ({len(SIZES)} groups).",)
    problem, _ = draw_problem(
        table, Network((4, 2), "classification", 10, 8), test=0.2, valid=0.2, seed=0
    )
    assert isinstance(problem.division, Grouped)

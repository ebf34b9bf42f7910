#!/usr/bin/env bash
# orbax-checkpoint 0.12.8 (jax 0.10.2): the keys "a.b" and "a" → "b" are stored in the same place. A
# tree with both is saved without a word, and one value comes back twice.
#
# Seen: {"a.b": [1 1], "a": {"b": [0 0]}} is restored as {"a.b": [0 0], "a": {"b": [0 0]}}
source "$(dirname "$0")/environment.sh"
environment jax==0.10.2 jaxlib==0.10.2 orbax-checkpoint==0.12.8
python - <<'PYTHON'
import pathlib

import numpy as np
import orbax.checkpoint as ocp

tree = {"a.b": np.ones(2), "a": {"b": np.zeros(2)}}
folder = pathlib.Path.cwd() / "checkpoint"
with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(folder, tree)
    checkpointer.wait_until_finished()
    read = checkpointer.restore(folder)
print(tree, "restored as", read)
assert np.array_equal(read["a.b"], read["a"]["b"]), "both values are kept now"
PYTHON

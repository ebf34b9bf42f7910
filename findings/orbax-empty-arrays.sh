#!/usr/bin/env bash
# orbax-checkpoint 0.12.8 (jax 0.10.2): a tree with an array without elements, such as the state of an
# optimizer for an empty group, cannot be saved.
#
# Seen: ValueError: Cannot save arrays with zero size
source "$(dirname "$0")/environment.sh"
environment jax==0.10.2 jaxlib==0.10.2 orbax-checkpoint==0.12.8
python - <<'PYTHON'
import pathlib

import numpy as np
import orbax.checkpoint as ocp

with ocp.StandardCheckpointer() as checkpointer:
    try:
        checkpointer.save(pathlib.Path.cwd() / "checkpoint", {"x": np.zeros((0, 3))})
        checkpointer.wait_until_finished()
    except ValueError as error:
        print("ValueError:", str(error).splitlines()[0])
        assert "zero size" in str(error), "another error now"
    else:
        raise SystemExit("an empty array is saved now")
PYTHON
